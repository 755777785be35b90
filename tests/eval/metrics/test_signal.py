"""The paired metrics beyond the known answers and the table of bad input."""

import math

import numpy as np
import pytest

from eval.harness.audio import CannotScore
from eval.known_answers import speechlike
from eval.metrics.clip_metric import ClipMetric
from eval.metrics.signal import PESQ, mel_distance, si_sdr, stoi
from eval.metrics.texture import contrast_ratio, deviation_ratio, tonality

RATE = 16_000


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return speechlike()


def test_si_sdr_does_not_depend_on_the_level(clip: np.ndarray) -> None:
    noisy = clip + np.float32(0.01) * np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    assert si_sdr(clip, noisy) == pytest.approx(si_sdr(clip, 0.1 * noisy), abs=1e-3)
    assert math.isfinite(si_sdr(clip, clip)) and si_sdr(clip, clip) > 100


def test_distances_of_a_clip_to_itself_are_zero(clip: np.ndarray) -> None:
    assert mel_distance(clip, clip, RATE) == 0.0
    assert mel_distance(clip, 0.5 * clip, RATE) > 0.1


def test_what_is_smoothed_is_found_out_and_where() -> None:
    """Noise under a comb that sounds by turns, beside it with the turns or the comb smoothed away by half."""
    rng, bins, frames = np.random.default_rng(0), np.arange(513), np.arange(64)
    comb, turns = np.where(bins // 32 % 2, -1.0, 0.0)[:, None], np.where(frames // 8 % 2, -1.0, 0.0)

    def noise(spectrum: np.ndarray) -> np.ndarray:
        shaped = 10 ** spectrum.repeat(1024 // 512, axis=1) * np.fft.rfft(rng.standard_normal((128, 1024)), axis=1).T
        return np.fft.irfft(shaped.T, axis=1).astype(np.float32).ravel()

    whole, in_time, in_frequency = (noise(a * comb + b * turns) for a, b in ((1, 1), (1, 0.5), (0.5, 1)))
    assert deviation_ratio(whole, in_time, RATE) < 0.7 < 0.9 < deviation_ratio(whole, in_frequency, RATE) < 1.1
    assert contrast_ratio(whole, in_frequency, RATE) < 0.8 < 0.9 < contrast_ratio(whole, in_time, RATE) < 1.1


def test_a_tone_that_flutters_is_none() -> None:
    time = np.arange(2 * RATE) / RATE
    steady = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    wide = np.sin(2 * np.pi * (1000 * time + 40 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)  # ± 750 Hz
    assert tonality(wide, steady, RATE) > 0.98 and tonality(steady, wide, RATE) < 0.3


@pytest.mark.slow  # librosa compiles when it is imported
def test_mel_filters_equal_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    from codec.audio.mel import mel_filters

    for rate, window, bands in ((16_000, 321, 120), (24_000, 2048, 150), (24_000, 512, 80)):
        theirs = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands)
        np.testing.assert_allclose(mel_filters(rate, window, bands), theirs, atol=1e-7)


def test_stoi(clip: np.ndarray) -> None:
    assert stoi(clip, 0.1 * clip, RATE) == pytest.approx(1.0, abs=1e-4)
    noise = np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    scores = [stoi(clip, clip + level * noise, RATE) for level in (0.01, 0.05, 0.2)]
    assert scores == sorted(scores, reverse=True)
    assert stoi(clip, clip + 0.05 * noise, RATE, extended=True) < scores[1]


def test_stoi_gives_a_reason_instead_of_1e_minus_5() -> None:
    almost_silent = np.zeros(RATE, np.float32)
    almost_silent[8000:9000] = speechlike()[1500:2500]
    with pytest.raises(CannotScore, match="after silence removal"):
        stoi(almost_silent, almost_silent, RATE)


def test_clip_metric_counts_failures(clip: np.ndarray) -> None:
    metric = ClipMetric(stoi)
    metric.update([clip, clip], [clip, clip[:-1]], sample_rate=RATE)
    assert float(metric.compute()) == pytest.approx(1.0, abs=1e-6)
    assert int(metric.failed) == 1 and metric.reasons == {"lengths differ": 1}
    metric.reset()
    assert int(metric.failed) == 0 and not metric.reasons


def test_pesq_without_the_package(monkeypatch: pytest.MonkeyPatch, clip: np.ndarray) -> None:
    monkeypatch.setattr(PESQ, "is_installed", staticmethod(lambda: False))
    with pytest.raises(CannotScore, match="pesq is not installed"):
        PESQ("wb")(clip, clip, RATE)


@pytest.mark.slow
def test_pesq_of_a_long_clip_is_taken_in_pieces(clip: np.ndarray) -> None:
    pytest.importorskip("pesq")
    score, long = PESQ("wb"), np.tile(clip, 15)  # 45 s: two pieces
    try:
        assert score(long, long, RATE) == pytest.approx(4.6438885, abs=1e-4)
    finally:
        score.close()
