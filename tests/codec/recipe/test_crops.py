"""What a crop is cut from: one clip where that suffices, else cross-faded ones; its level is random, never clipped."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.corpus import Clip, CorpusError
from codec.recipe.crops import FADE_SECONDS, CropSampler, joined

RATE = 24_000


def peaks(root: Path, amplitude: float, gain_db: tuple[float, float], crops: int = 300) -> np.ndarray:
    """Peaks ``[crops]`` of crops of a steady tone, in dB over its amplitude; each crop must be nothing but the tone."""
    path = root / "tone.wav"
    tone = amplitude * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    soundfile.write(path, tone, RATE, subtype="FLOAT")
    sampler = CropSampler([Clip("a", path, domain="speech")], RATE, {"speech": 1.0}, gain_db, seed=0)
    found = []
    for item in range(crops):
        crop, _ = sampler.crop(item // 4, item % 4, 960)  # 20 periods of 48 samples: the peak is among them
        assert np.abs(crop).max() <= 1.0
        # a clipped sine has a larger mean square than half of its peak's
        assert np.square(crop).mean() == pytest.approx(np.abs(crop).max() ** 2 / 2, rel=0.01)
        found.append(20 * np.log10(np.abs(crop).max() / amplitude))
    return np.array(found)


def test_levels_spread_evenly_over_their_range(tmp_path: Path) -> None:
    gains = peaks(tmp_path, 0.2, (-8.0, 4.0))
    assert gains.min() >= -8.01 and gains.max() <= 4.01
    counts, _ = np.histogram(gains, bins=4, range=(-8.01, 4.01))
    assert counts.min() > 50 and counts.max() < 100, "75 of 300 expected in each quarter"


def test_an_empty_range_leaves_the_level_alone(tmp_path: Path) -> None:
    assert np.abs(peaks(tmp_path, 0.2, (0.0, 0.0), 20)).max() < 0.01


def test_what_would_clip_is_scaled_to_the_full_scale(tmp_path: Path) -> None:
    assert peaks(tmp_path, 0.8, (6.0, 6.0), 20) == pytest.approx(20 * np.log10(1 / 0.8), abs=0.01)


def test_clips_that_cannot_fill_a_crop_end_the_training_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(240), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more")
    short, broken = (Clip(name, tmp_path / f"{name}.wav", domain="sound") for name in ("short", "broken"))
    with pytest.raises(CorpusError, match="1000 clips of domain sound do not fill 20 s: lower trainer.crop_seconds."):
        CropSampler([short], RATE, {"sound": 1.0}, (0, 0), 0).crop(0, 0, 20 * RATE)
    with pytest.raises(CorpusError, match=r"none of 1000 clips of domain sound can be read \(.*broken.wav"):
        CropSampler([broken], RATE, {"sound": 1.0}, (0, 0), 0).crop(0, 0, RATE)
    capsys.readouterr()
    mixed = CropSampler([short, broken], RATE, {"sound": 1.0}, (0, 0), 0)
    crop, files = mixed.crop(0, 0, 2400)
    assert len(crop) == 2400 and set(files) == {short.path}
    assert capsys.readouterr().out.count("skipped in training") == 1, "named once"


def ramps(root: Path, *seconds: float) -> CropSampler:
    """Clips that rise by 1e-5 per sample from −0.9: each sample tells its place. No level, so that it still does."""
    clips = []
    for number, length in enumerate(seconds):
        wav = -0.9 + 1e-5 * np.arange(int(length * RATE))
        soundfile.write(root / f"{number}.wav", wav, RATE, subtype="FLOAT")
        clips.append(Clip(str(number), root / f"{number}.wav", domain="speech"))
    return CropSampler(clips, RATE, {"speech": 1.0}, (0, 0), seed=0)


@pytest.mark.parametrize("lengths", [(4.0,), (3.2,), (4.0, 3.3, 6.0)], ids=str)
def test_a_clip_as_long_as_the_crop_fills_it(tmp_path: Path, lengths: tuple[float, ...]) -> None:
    sampler, samples = ramps(tmp_path, *lengths), int(3.2 * RATE)
    first: dict[str, list[int]] = {}
    for item in range(200):
        crop, (file,) = sampler.crop(0, item, samples)  # one file: nothing is joined
        assert len(crop) == samples and np.diff(crop).max() < 5e-5, "one cut"
        first.setdefault(file.stem, []).append(round((float(crop[0]) + 0.9) / 1e-5))
    for name, starts in first.items():
        room = int(lengths[int(name)] * RATE) - samples
        assert min(starts) <= 0.2 * room + 5 and max(starts) >= 0.8 * room - 5, "from any place, both ends heard"


def test_only_crops_that_a_clip_does_not_fill_are_joined(tmp_path: Path) -> None:
    sampler = ramps(tmp_path, 4.0, 4.0, 4.0, 1.0)
    joins = [len(sampler.crop(0, item, int(3.2 * RATE))[1]) > 1 for item in range(400)]
    assert np.mean(joins) == pytest.approx(0.25, abs=0.06), "those that begin with the one short clip of four"


def test_clips_are_joined_without_a_click_and_without_a_dip(tmp_path: Path) -> None:
    """A hard splice of these levels jumps by 0.8; a fade of amplitudes leaves a hole of 3 dB in noise."""
    clips = []
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.full(int(0.8 * RATE), (-1) ** number * 0.4), RATE)
        clips.append(Clip(str(number), tmp_path / f"{number}.wav", domain="speech"))
    sampler, fade = CropSampler(clips, RATE, {"speech": 1.0}, (0, 0), 0), int(FADE_SECONDS * RATE)
    jumps = [np.abs(np.diff(sampler.crop(0, item, 3 * RATE)[0])).max() for item in range(20)]
    assert 0.001 < max(jumps) < 0.8 / fade * 2, "spread over the fade"
    noise = np.random.default_rng(1).standard_normal((2, 2000, 1000)).astype(np.float32)
    power = np.mean([np.square(joined(a, b, fade)) for a, b in zip(*noise, strict=True)], axis=0)
    assert len(power) == 2000 - fade
    assert power.min() > 0.8 and power.max() < 1.2, "as loud where two clips meet as elsewhere"


def test_a_crop_depends_on_seed_step_and_item_alone(tmp_path: Path) -> None:
    one, two = ramps(tmp_path, 4.0, 0.5, 1.2), ramps(tmp_path, 4.0, 0.5, 1.2)
    two.crop(3, 1, RATE)
    for step, item in ((5, 0), (5, 1), (6, 0)):
        (a, files), (b, same) = one.crop(step, item, 2 * RATE), two.crop(step, item, 2 * RATE)
        assert np.array_equal(a, b) and files == same and len(a) == 2 * RATE


def test_clips_are_drawn_by_duration_where_asked(tmp_path: Path) -> None:
    clips = ramps(tmp_path, 9.0, 1.0).by_domain["speech"]
    drawn = {}
    for by_duration in (False, True):
        sampler = CropSampler(clips, RATE, {"speech": 1.0}, (0, 0), 0, by_duration)
        first = [sampler.crop(step, 0, RATE // 2)[1][0].stem for step in range(400)]
        drawn[by_duration] = first.count("0") / len(first)
    assert drawn == {False: pytest.approx(0.5, abs=0.1), True: pytest.approx(0.9, abs=0.06)}


def test_a_crop_of_a_long_file_decodes_no_more_than_it_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "hour.flac", np.zeros(60 * RATE, np.int16), 44_100)
    sampler = CropSampler([Clip("a", tmp_path / "hour.flac", domain="speech")], RATE, {"speech": 1.0}, (0, 0), 0)
    read, decoded = soundfile.SoundFile.read, []

    def counted(self: soundfile.SoundFile, frames: int = -1, **how: object) -> np.ndarray:
        decoded.append(frames)
        return read(self, frames, **how)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    sampler.crop(0, 0, int(3.2 * RATE))
    assert len(decoded) == 1 and 3.2 * 44_100 <= decoded[0] < 3.4 * 44_100
