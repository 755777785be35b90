"""Listening copies are equally loud, and the spectrograms of an item are on one scale."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from page_fixtures import tone
from PIL import Image

from page.loudness import PEAK, Level, equally_loud, matching_gains, measure
from page.media import (
    HEIGHT,
    RANGE,
    WIDTH,
    Scale,
    common_scale,
    picture,
    read_mono,
    save_picture,
    spectrogram,
    write_copy,
)


def noise(seconds: float, rate: int, amplitude: float) -> np.ndarray:
    return (amplitude * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype("float32")


def test_loudness_of_a_known_tone() -> None:
    # ITU-R BS.1770: a full-scale sine of 997 Hz in one front channel is -3.01 LKFS
    for rate in (16000, 24000, 48000):
        found = measure(tone(2.0, rate, 997.0), rate)
        assert found.loudness == pytest.approx(-3.01, abs=0.1) and found.peak == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.399])
def test_a_clip_shorter_than_a_block_has_a_loudness_too(seconds: float) -> None:
    # the filters ring in, so that a very short tone is measured a little off
    assert measure(tone(seconds, 24000, 997.0, 0.1), 24000).loudness == pytest.approx(-23.01, abs=0.5)


def test_what_has_no_loudness() -> None:
    assert measure(np.zeros(24000, "float32"), 24000).loudness is None
    assert measure(tone(1.0, 24000, 997.0, 1e-4), 24000).loudness is None  # below the gate of -70 LUFS
    assert measure(np.zeros(0, "float32"), 24000).loudness is None
    assert measure(np.full(24000, np.nan, "float32"), 24000).loudness is None


def test_copies_of_an_item_are_equally_loud_and_not_clipped() -> None:
    waves = {"a": noise(1.0, 24000, 0.01), "b": noise(1.0, 16000, 0.2), "short": noise(0.3, 24000, 0.05)}
    rates = {"a": 24000, "b": 16000, "short": 24000}
    copies = equally_loud({name: (wav, rates[name]) for name, wav in waves.items()}, -20.0)
    after = {name: measure(copy.wav, copy.rate) for name, copy in copies.items()}
    assert [after[k].loudness for k in waves] == pytest.approx([-20.0] * 3, abs=0.05)
    assert all(level.peak <= PEAK + 0.01 for level in after.values())


def test_sharp_peaks_lower_the_whole_item() -> None:
    gains = matching_gains({"a": Level(-30.0, -12.0), "b": Level(-30.0, -20.0)}, -15.0)
    assert gains == {"a": 11.0, "b": 11.0}  # a reaches -1 dB
    # one click must not silence the others: the item gets at most 12 dB quieter, and the clip stays behind
    gains = matching_gains({"a": Level(-50.0, -2.0), "b": Level(-20.0, -10.0)}, -20.0)
    assert gains == {"a": 1.0, "b": -12.0}


def test_silence_and_near_silence_are_not_raised_to_noise() -> None:
    gains = matching_gains({"a": Level(None, -100.0), "b": Level(-69.0, -66.0)}, -20.0)
    assert gains == {"a": 0.0, "b": 40.0}


@pytest.mark.parametrize(("form", "kind"), [("flac", "FLAC"), ("mp3", "MP3")])
@pytest.mark.parametrize("rate", [16000, 24000, 37500])
def test_copies_keep_length_and_pitch(tmp_path: Path, form: str, kind: str, rate: int) -> None:
    path = write_copy(tmp_path / "clip", tone(0.5, rate, 1000.0, 0.5), rate, form)
    assert path.suffix == f".{form}" and soundfile.info(path).format == kind
    wav, own = read_mono(path)
    assert len(wav) / own == pytest.approx(0.5, abs=0.06)  # MP3 has whole frames
    middle = wav[len(wav) // 4 : len(wav) * 3 // 4]
    assert np.abs(np.fft.rfft(middle)).argmax() * own / len(middle) == pytest.approx(1000.0, abs=10.0)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), 16000)
    for name, words in (("a.wav", "cannot be read"), ("b.wav", "holds no sample")):
        with pytest.raises(ValueError, match=words):
            read_mono(tmp_path / name)


def test_spectrograms_share_one_scale() -> None:
    scale = Scale(seconds=2.0, frequency=8000.0)
    rows, columns = {}, {}
    for rate in (16000, 24000):
        level = spectrogram(tone(1.0, rate, amplitude=0.01), rate, scale)
        assert level.shape == (HEIGHT, WIDTH)
        rows[rate] = HEIGHT - 1 - int(np.nan_to_num(level, nan=-200)[:, WIDTH // 4].argmax())
        columns[rate] = int(np.isfinite(level[0]).sum())
    assert abs(rows[16000] - rows[24000]) <= 1
    mel = 2595 * np.log10(1 + np.array([1000.0, 8000.0]) / 700)
    assert abs(rows[16000] - HEIGHT * (1 - mel[0] / mel[1])) <= 2  # row 0 of a picture is the highest frequency
    assert columns[16000] == columns[24000] == WIDTH // 2  # beyond the clip's end: nothing


def test_colours_are_levels_below_the_loudest_point_of_the_item(tmp_path: Path) -> None:
    scale = Scale(seconds=1.0, frequency=8000.0)
    levels = {a: spectrogram(tone(0.5, 16000, amplitude=a), 16000, scale) for a in (0.001, 0.01, 0.1)}
    highest = max(float(np.nanmax(level)) for level in levels.values())
    brightest = {}
    for amplitude, level in levels.items():
        save_picture(picture(level, highest), tmp_path / "a.webp")
        pixels = np.asarray(Image.open(tmp_path / "a.webp").convert("RGBA")).astype(int)
        brightest[amplitude] = pixels[:, : WIDTH // 4, :3].sum(-1).max()
        assert pixels[0, 0, 3] == 255 and pixels[0, -1, 3] == 0
    assert brightest[0.001] < brightest[0.01] < brightest[0.1]
    assert np.asarray(picture(np.full((HEIGHT, WIDTH), highest - RANGE - 5), highest))[..., :3].max() < 20


def test_one_runaway_clip_does_not_shrink_the_others() -> None:
    assert common_scale([2.0, 2.2, 2.4, 20.0], [16000, 24000]) == Scale(seconds=6.9, frequency=12000.0)
    assert common_scale([2.0, 2.41], [16000]) == Scale(seconds=2.45, frequency=8000.0)
