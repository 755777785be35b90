"""The paired metrics beyond the known answers and the table of bad input."""

import math

import numpy as np
import pytest

from eval.harness.audio import CannotScore
from eval.known_answers import speechlike
from eval.metrics.clip_metric import ClipMetric
from eval.metrics.signal import PESQ, mel_distance, si_sdr, stoi

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
