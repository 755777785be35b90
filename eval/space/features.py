"""Where recordings lie: one vector each, the mean over the steady part, for a tokenizer's rows and their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from codec.audio.mel import mel_filters
from codec.interface import HasLatents
from eval.harness.audio import Wave, audio_hash
from eval.harness.processes import gather, share
from eval.harness.score_cache import EmbeddingCache
from eval.space.recordings import Recording
from training.progress import progress

WINDOW, HOP, BANDS = 1024, 240, 64
FLOOR = 1e-5
Frames = NDArray[np.float32]


def steady_frames(recording: Recording, frames: int, samples: int, rate: int) -> slice:
    """Which of ``frames`` that cover ``samples`` are of the steady part; at least one."""
    seconds = samples / rate
    start, end = recording.steady or (seconds / 4, 3 * seconds / 4)
    per_second = frames / max(seconds, 1e-9)
    first = min(int(start * per_second + 0.5), frames - 1)
    return slice(first, max(first + 1, min(frames, int(end * per_second + 0.5))))


def latents(tokenizer: HasLatents, waves: Mapping[str, Wave], cache: EmbeddingCache) -> dict[str, Frames]:
    """``z [frames, d]`` of each wave at the tokenizer's rate, dealt out to the processes; kept in ``cache``."""
    found = {}
    for name, wav in progress(share(list(waves.items())), desc="latents"):
        key = audio_hash(wav, tokenizer.sample_rate)
        z = cache.get(key)
        if z is None:
            z = tokenizer.to_latents(torch.from_numpy(wav)[None]).cpu().numpy()
            cache.put(key, z)
        found[name] = z
    found = gather(found, "latents")
    return {name: found[name] for name in waves}


def log_mel(wav: Wave, rate: int) -> Frames:
    """``[frames, 64]`` log-mel spectrum, 10 ms apart at 24 kHz."""
    padded = np.pad(wav, (WINDOW // 2, WINDOW // 2 + HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    magnitude = np.abs(np.fft.rfft(windows, axis=1)).astype(np.float32)
    return np.log(np.maximum(magnitude @ mel_filters(rate, WINDOW, BANDS).T, FLOOR))


def duration_and_level(wav: Wave, rate: int) -> Frames:
    """``[1, 2]``: what should tell nothing. A probe that reads a label off it has found how the corpus was made."""
    return np.array([[len(wav) / rate, 10 * np.log10(float(np.square(wav).mean()) + 1e-10)]], dtype=np.float32)


def pooled(
    recordings: Sequence[Recording], frames: Mapping[str, Frames], waves: Mapping[str, Wave], rate: int
) -> NDArray[np.float64]:
    """``[recordings, d]``: the mean over each one's steady part."""
    rows = []
    for recording in recordings:
        own = frames[recording.id]
        rows.append(own[steady_frames(recording, len(own), len(waves[recording.id]), rate)].mean(0))
    return np.stack(rows).astype(np.float64)


def quantised(tokenizer: HasLatents, z: Mapping[str, Frames], levels: int) -> dict[str, Frames]:
    """What the first ``levels`` codes of ``z`` stand for."""
    found = {}
    with torch.inference_mode():
        for name, own in z.items():
            codes = tokenizer.quantise(torch.from_numpy(own).to(tokenizer.device))
            found[name] = tokenizer.vectors(codes[:, :levels]).float().cpu().numpy()
    return found
