"""The random level of a crop: spread over its range in dB, absent where the range is empty, never clipped."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.corpus import Clip, CorpusError
from codec.crops import CropSampler

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
    soundfile.write(tmp_path / "short.wav", np.zeros(24), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more")
    short, broken = (Clip(name, tmp_path / f"{name}.wav", domain="sound") for name in ("short", "broken"))
    with pytest.raises(CorpusError, match="1000 clips of domain sound do not fill 2 s: lower trainer.crop_seconds."):
        CropSampler([short], RATE, {"sound": 1.0}, (0, 0), 0).crop(0, 0, 2 * RATE)
    with pytest.raises(CorpusError, match=r"none of 1000 clips of domain sound could be read \(.*broken.wav"):
        CropSampler([broken], RATE, {"sound": 1.0}, (0, 0), 0).crop(0, 0, RATE)
    capsys.readouterr()
    mixed = CropSampler([short, broken], RATE, {"sound": 1.0}, (0, 0), 0)
    crop, files = mixed.crop(0, 0, 240)
    assert len(crop) == 240 and set(files) == {short.path}
    assert capsys.readouterr().out.count("skipped in training") == 1, "named once"
