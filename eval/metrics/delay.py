"""The delay of a codec: how much later its output is than its input, and how it is taken out.

Ten milliseconds take STOI from 1 to 0.89, and SI-SDR, SNR, mel and STFT distances compare sample by sample too, so a
constant delay would be judged as distortion. It is a property of the codec: one value for all clips, measured as the
most frequent place of the peak of the cross-correlation, and believed only where most clips agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

LONGEST = 0.1  # s, in either direction
VOTERS = 5  # clips at least: one or two find a delay in anything
AGREE = 0.5  # more than this share of them must find the same delay
ALIKE = 0.2  # least correlation, at the delay, of a clip that is counted; phases of a codec's own making correlate less
NEAR = 0.0005  # s: places this close are the same


@dataclass(frozen=True)
class Delay:
    """How late the output is. ``agreement``: share of clips; ``reason``: why it is taken, or taken as none."""

    seconds: float
    samples: int
    agreement: float
    reason: str


def clip_delay(reference: NDArray[np.float32], output: NDArray[np.float32], rate: int) -> int | None:
    """Samples by which ``output [samples]`` is later; None for silence and where nothing in it is like the reference.

    The cross-correlation is normalised by the energy only, so it finds the shift with the smallest difference.
    """
    length = min(len(reference), len(output))
    first, second = (np.asarray(wav[:length], dtype=np.float64) for wav in (reference, output))
    if not length or not np.any(first) or not np.any(second):
        return None
    size = scipy.fft.next_fast_len(2 * length, real=True)
    correlation = scipy.fft.irfft(scipy.fft.rfft(second, size) * np.conj(scipy.fft.rfft(first, size)), size)
    reach = min(int(LONGEST * rate), length - 1)
    near = np.concatenate([correlation[-reach:] if reach else correlation[:0], correlation[: reach + 1]])
    energy = float(np.sqrt(first @ first * (second @ second)))
    return int(near.argmax()) - reach if near.max() >= ALIKE * energy else None


def find_delay(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], rate: int) -> Delay:
    """The delay of the outputs of ``(reference, output)`` pairs at ``rate``."""
    found = [delay for pair in pairs if (delay := clip_delay(*pair, rate)) is not None]
    if len(found) < VOTERS:
        return Delay(0.0, 0, 0.0, f"{len(found)} clips are like their reference, {VOTERS} are needed: taken as none")
    places, counts = np.unique(found, return_counts=True)
    best = int(places[counts.argmax()])
    agreement = float(np.mean(np.abs(np.array(found) - best) <= max(1, NEAR * rate)))
    if agreement <= AGREE:
        return Delay(0.0, 0, agreement, "the clips do not agree on a delay: taken as none")
    return Delay(best / rate, best, agreement, f"{100 * agreement:.0f} % of the clips agree")


def undelayed(
    reference: NDArray[np.float32], output: NDArray[np.float32], seconds: float, rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both clips ``[samples]`` without what the other lacks when ``output`` comes ``seconds`` earlier."""
    shift = round(seconds * rate)
    if shift > 0:
        return reference[: len(reference) - shift], output[shift:]
    return (reference[-shift:], output[: len(output) + shift]) if shift < 0 else (reference, output)
