"""Metrics that compare a degraded clip with its reference, sample by sample or band by band.

All functions take ``(reference, degraded, sample_rate)`` with float32 ``[samples]`` of equal length and rate,
and raise ``CannotScore`` where a published implementation would give a default or a nonsense value. Argument
order is reference first everywhere (swapping it changes PESQ and STOI).
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from codec.audio.mel import mel_filters
from eval.harness.audio import CannotScore, Wave, check_wave, pieces, resample
from eval.harness.worker_pool import WorkerPool

LONGEST_PESQ = 30.0  # s; the C code overruns a table of 50 utterances on longer audio and takes the process with it
STFT_WINDOWS = (2048, 512)
MEL_BANDS = (150, 80)
CLAMP = 1e-5


def check_heard(reference: Wave, degraded: Wave) -> None:
    """Refuse silence, which nothing can be compared with. Raises CannotScore."""
    for wav, name in ((reference, "silent reference"), (degraded, "silent degraded clip")):
        if not np.any(wav):
            raise CannotScore(name)


def check_pair(reference: Wave, degraded: Wave, rate: int, shortest: float = 0.0) -> None:
    """Refuse pairs that cannot be compared.

    Raises:
        CannotScore: empty, not finite, too short, or "lengths differ".
    """
    check_wave(reference, rate, shortest)
    check_wave(degraded, rate, shortest)
    if len(reference) != len(degraded):
        raise CannotScore("lengths differ")


def stoi(reference: Wave, degraded: Wave, sample_rate: int, extended: bool = False) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), or its extended form (Jensen & Taal 2016);
    pystoi.

    Raises:
        CannotScore: among others when less than 0.4 s of speech remains after its silence removal, where
            pystoi would return 1e-5 with a warning.
    """
    check_pair(reference, degraded, sample_rate, 0.4)
    if not np.any(reference):
        raise CannotScore("silent reference")
    import pystoi

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, degraded, sample_rate, extended=extended))
        except RuntimeWarning:
            raise CannotScore("less than 0.4 s of speech after silence removal") from None


def si_sdr(reference: Wave, degraded: Wave, sample_rate: int = 0) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), no mean removal.

    Of little meaning for decoders that generate: report it, do not rank by it.
    """
    check_pair(reference, degraded, 1)
    check_heard(reference, degraded)
    target, estimate = reference.astype(np.float64), degraded.astype(np.float64)
    projection = (estimate @ target / (target @ target)) * target
    noise = estimate - projection
    # identical signals leave rounding noise only; the floor caps the score near 150 dB instead of infinity
    floor = 1e-15 * float(projection @ projection)
    return 10.0 * math.log10(float(projection @ projection) / max(float(noise @ noise), floor))


def snr(reference: Wave, degraded: Wave, sample_rate: int = 0) -> float:
    """Signal-to-noise ratio in dB of the difference of the two clips."""
    check_pair(reference, degraded, 1)
    target, noise = reference.astype(np.float64), (reference.astype(np.float64) - degraded.astype(np.float64))
    if not np.any(target):
        raise CannotScore("silent reference")
    return 10.0 * math.log10(float(target @ target) / max(float(noise @ noise), 1e-15 * float(target @ target)))


def magnitudes(wav: Wave, window: int) -> torch.Tensor:
    """``[bins, frames]`` of a Hann STFT with hop window / 4, reflect padding (audiotools)."""
    signal = torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))
    spectrum = torch.stft(signal, window, window // 4, window=torch.hann_window(window), return_complex=True)
    return spectrum.abs()


def _distance(pair: Sequence[torch.Tensor], clamp: float) -> tuple[float, float]:
    """L1 of the magnitudes and L1 of log10(magnitude ** 2) of two spectrograms."""
    logarithms = [torch.log10(part.clamp(min=clamp).square()) for part in pair]
    return float((pair[0] - pair[1]).abs().mean()), float((logarithms[0] - logarithms[1]).abs().mean())


def _check_windows(reference: Wave, degraded: Wave, rate: int) -> None:
    """`check_pair`, and at least what reflect padding of the longest window needs."""
    check_pair(reference, degraded, rate)
    if len(reference) <= STFT_WINDOWS[0] // 2:
        raise CannotScore(f"shorter than {STFT_WINDOWS[0] // 2 + 1} samples")


def stft_distance(
    reference: Wave, degraded: Wave, sample_rate: int, clamp: float = CLAMP, parts: str = "both"
) -> float:
    """Multi-scale STFT distance in the definition of descript-audiotools: windows 2048 and 512, hop window /
    4, L1 of magnitudes plus L1 of log10(magnitude²) clamped at 1e-5, summed over windows; at the clips' own
    rate.

    Args:
        parts: ``both``, or ``log`` for the logarithmic part alone.
    """
    _check_windows(reference, degraded, sample_rate)
    total = 0.0
    for window in STFT_WINDOWS:
        linear, logarithm = _distance([magnitudes(wav, window) for wav in (reference, degraded)], clamp)
        total += logarithm if parts == "log" else linear + logarithm
    return total


def mel_distance(reference: Wave, degraded: Wave, sample_rate: int) -> float:
    """Mel distance in the definition of descript-audiotools: as ``stft_distance`` on 150 and 80 mel bands."""
    _check_windows(reference, degraded, sample_rate)
    total = 0.0
    for window, bands in zip(STFT_WINDOWS, MEL_BANDS, strict=True):
        filters = torch.from_numpy(mel_filters(sample_rate, window, bands))
        total += sum(_distance([filters @ magnitudes(wav, window) for wav in (reference, degraded)], CLAMP))
    return total


class PESQ:
    """Perceptual evaluation of speech quality (ITU-T P.862.2 wide band at 16 kHz, P.862.1 narrow band at 8
    kHz).

    The C code runs in a worker process: where it dies, that clip is a failure and the run goes on. Clips
    longer than 30 s are scored in equal pieces of at most 30 s and averaged.

    Args:
        mode: ``wb`` or ``nb``.
    """

    def __init__(self, mode: str, processes: int = 1, timeout: float = 60.0) -> None:
        self.mode = mode
        self.rate = {"wb": 16_000, "nb": 8_000}[mode]
        self.pool = WorkerPool("eval.metrics.pesq_worker", {}, processes, timeout)

    @staticmethod
    def is_installed() -> bool:
        """Whether the optional package ``pesq`` (it needs a C compiler) is there."""
        return importlib.util.find_spec("pesq") is not None

    def __call__(self, reference: Wave, degraded: Wave, sample_rate: int) -> float:
        """The score of one pair.

        Raises:
            CannotScore: "pesq is not installed", "silent reference", "silent degraded clip", "worker died"
                ...
        """
        if not self.is_installed():
            raise CannotScore("not computed: pesq is not installed")
        check_pair(reference, degraded, sample_rate, 0.25)
        check_heard(reference, degraded)
        pairs = [resample(wav, sample_rate, self.rate) for wav in (reference, degraded)]
        jobs = [
            ({"mode": self.mode, "rate": self.rate}, np.concatenate(pair).astype("<f4").tobytes())
            for pair in zip(*(pieces(wav, self.rate, LONGEST_PESQ) for wav in pairs), strict=True)
        ]
        answers = self.pool.map(jobs)
        for answer in answers:
            if "failure" in answer:
                raise CannotScore(answer["failure"])
        return float(np.mean([answer["score"] for answer in answers]))

    def close(self) -> None:
        """End the worker."""
        self.pool.close()


PAIRED: dict[str, Callable[..., float]] = {
    "stoi": stoi,
    "estoi": partial(stoi, extended=True),
    "si-sdr": si_sdr,
    "mel-distance": mel_distance,
    "stft-distance": stft_distance,
}
"""The score of a pair by name, for `ClipMetric`; PESQ needs its worker and is added by who uses it."""
