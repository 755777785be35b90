"""Worker process of DNSMOS (see eval/harness/worker_pool.py): float32 samples at 16 kHz in, four scores out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.audio.mel import mel_filters
from eval.harness.worker_pool import Answer, Handler, serve

RATE = 16_000
WINDOW = int(9.01 * RATE)  # samples
# DNSMOS' remapping of the P.835 network's raw outputs to the MOS scale, highest power first.
SIG, BAK, OVRL = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


def log_mel(wav: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[frames, 120]`` input of the P.808 network: n_fft 321, hop 160, dB below the loudest, (dB + 40) / 40."""
    size, hop = 321, 160
    padded = np.pad(wav, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mel = np.maximum(power @ mel_filters(RATE, size, 120).T, 1e-10)
    decibel = 10.0 * np.log10(mel) - 10.0 * np.log10(mel.max())
    return ((np.maximum(decibel, decibel.max() - 80.0) + 40.0) / 40.0).astype(np.float32)


def windows(wav: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The 9.01 s windows, hop 1 s, that DNSMOS averages over; shorter clips are doubled until they are long
    enough.
    """
    while len(wav) < WINDOW:
        wav = np.append(wav, wav)
    count = int(len(wav) // RATE - 9.01) + 1
    starts = [index * RATE for index in range(count)]
    return [wav[start : start + WINDOW] for start in starts if start + WINDOW <= len(wav)]


def start(settings: dict[str, Any]) -> Handler:
    """``settings``: paths of the two networks, ``p835`` and ``p808``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # several workers share the cores
    networks = {
        name: onnxruntime.InferenceSession(settings[name], options, providers=["CPUExecutionProvider"])
        for name in ("p835", "p808")
    }

    def handle(header: dict[str, Any], payload: bytes) -> Answer:
        scores = []
        for part in windows(np.frombuffer(payload, "<f4")):
            p808 = networks["p808"].run(None, {"input_1": log_mel(part[:-160])[None]})[0][0][0]
            raw = networks["p835"].run(None, {"input_1": part[None]})[0][0]
            mapped = [np.polyval(curve, value) for curve, value in zip((SIG, BAK, OVRL), raw, strict=True)]
            scores.append([float(p808), *map(float, mapped)])
        means = np.mean(scores, axis=0)
        return dict(zip(("p808", "sig", "bak", "ovrl"), map(float, means), strict=True))

    return handle


if __name__ == "__main__":
    serve(start)
