"""Known answers of the paired metrics, and a reason instead of a number where there is none."""

import math

import numpy as np
import pytest

from eval.harness.failures import CannotScore
from eval.metrics.signal import PAIRED, PESQ, mel_distance, paired_metric, si_sdr, snr, stft_distance, stoi
from tests.eval.speechlike import speechlike

RATE = 16_000


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return speechlike()


def test_si_sdr_and_snr() -> None:
    target, estimate = np.array([3, -0.5, 2, 7], np.float32), np.array([2.5, 0, 2, 8], np.float32)
    assert si_sdr(target, estimate) == pytest.approx(18.4030, abs=1e-4)
    assert snr(target, estimate) == pytest.approx(16.1805, abs=1e-4)
    # removing the mean first gives what is called SI-SNR
    assert si_sdr(target - target.mean(), estimate - estimate.mean()) == pytest.approx(15.0918, abs=1e-4)


def test_si_sdr_does_not_depend_on_the_level(clip: np.ndarray) -> None:
    noisy = clip + np.float32(0.01) * np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    assert si_sdr(clip, noisy) == pytest.approx(si_sdr(clip, 0.1 * noisy), abs=1e-3)
    assert math.isfinite(si_sdr(clip, clip)) and si_sdr(clip, clip) > 100


@pytest.mark.parametrize(("gain", "expected"), [(0.5, 1.20412), (0.1, 4.0)])
def test_log_stft_distance_of_a_gain(gain: float, expected: float) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    found = stft_distance(noise, gain * noise, RATE, clamp=1e-12, parts="log")
    assert found == pytest.approx(expected, abs=1e-4)


def test_distances_of_a_clip_to_itself_are_zero(clip: np.ndarray) -> None:
    assert stft_distance(clip, clip, RATE) == 0.0 and mel_distance(clip, clip, RATE) == 0.0
    assert mel_distance(clip, 0.5 * clip, RATE) > 0.1


def test_mel_filters_equal_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    from eval.harness.mel import slaney_filters

    for rate, window, bands in ((16_000, 321, 120), (24_000, 2048, 150), (24_000, 512, 80)):
        theirs = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands)
        np.testing.assert_allclose(slaney_filters(rate, window, bands), theirs, atol=1e-7)


def test_stoi(clip: np.ndarray) -> None:
    assert stoi(clip, clip, RATE) == pytest.approx(1.0, abs=1e-6)
    assert stoi(clip, 0.1 * clip, RATE) == pytest.approx(1.0, abs=1e-4)
    noise = np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    scores = [stoi(clip, clip + level * noise, RATE) for level in (0.01, 0.05, 0.2)]
    assert scores == sorted(scores, reverse=True)
    assert stoi(clip, clip + 0.05 * noise, RATE, extended=True) < scores[1]


@pytest.mark.parametrize("name", list(PAIRED))
def test_bad_pairs_have_reasons(name: str, clip: np.ndarray) -> None:
    score = PAIRED[name]
    broken = clip.copy()
    broken[100] = np.nan
    for degraded, reason in (
        (clip[:-1], "lengths differ"),
        (broken, "NaN or infinite samples"),
        (clip[:0], "no audio"),
    ):
        with pytest.raises(CannotScore, match=reason):
            score(clip, degraded, RATE)


def test_stoi_gives_a_reason_instead_of_1e_minus_5() -> None:
    almost_silent = np.zeros(RATE, np.float32)
    almost_silent[8000:9000] = speechlike()[1500:2500]
    with pytest.raises(CannotScore, match="after silence removal"):
        stoi(almost_silent, almost_silent, RATE)
    with pytest.raises(CannotScore, match="silent reference"):
        stoi(np.zeros(RATE, np.float32), speechlike(1.0), RATE)
    with pytest.raises(CannotScore, match="shorter than 0.4 s"):
        stoi(speechlike(0.1), speechlike(0.1), RATE)


def test_clip_metric_counts_failures(clip: np.ndarray) -> None:
    metric = paired_metric("stoi")
    metric.update([clip, clip], [clip, clip[:-1]], sample_rate=RATE)
    assert float(metric.compute()) == pytest.approx(1.0, abs=1e-6)
    assert int(metric.failed) == 1 and metric.reasons == {"lengths differ": 1}
    metric.reset()
    assert int(metric.failed) == 0 and not metric.reasons


def test_pesq_without_the_package(monkeypatch: pytest.MonkeyPatch, clip: np.ndarray) -> None:
    monkeypatch.setattr(PESQ, "is_installed", staticmethod(lambda: False))
    with pytest.raises(CannotScore, match="pesq is not installed"):
        PESQ("wb")(clip, clip, RATE)


@pytest.mark.parametrize(("mode", "perfect"), [("wb", 4.6438885), ("nb", 4.5486383)])
def test_pesq(mode: str, perfect: float, clip: np.ndarray) -> None:
    pytest.importorskip("pesq")
    score = PESQ(mode)
    try:
        assert score(clip, clip, RATE) == pytest.approx(perfect, abs=1e-4)
        long = np.tile(clip, 15)  # 45 s: two pieces
        assert score(long, long, RATE) == pytest.approx(perfect, abs=1e-4)
        silence = np.zeros_like(clip)
        for pair, reason in (
            ((clip, silence), "silent degraded clip"),
            ((silence, clip), "silent reference"),
            ((clip[:2000], clip[:2000]), "shorter than 0.25 s"),
        ):
            with pytest.raises(CannotScore, match=reason):
                score(*pair, RATE)
    finally:
        score.close()
