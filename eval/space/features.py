"""What a recording is looked at by: frames of a tokenizer's space, of its codes, and of their controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from codec.audio.mel import mel_filters
from codec.interface import AudioTokenizer, HasLatents
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


def latents(tokenizer: HasLatents, waves: Mapping[str, Wave], folder: Path | None) -> dict[str, Frames]:
    """``z [frames, d]`` of each wave at the tokenizer's rate, dealt out to the processes; kept in ``folder``."""
    found, cache = {}, EmbeddingCache(folder, "latents", tokenizer.fingerprint)
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


def middle(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle half of frames or samples; at least one."""
    return frames[len(frames) // 4 : max(len(frames) // 4 + 1, 3 * len(frames) // 4)]


def level(wav: Wave) -> float:
    """dB of the mean square."""
    return float(10 * np.log10(np.square(wav.astype(np.float64)).mean() + 1e-10))


def duration_and_level(wav: Wave, rate: int) -> Frames:
    """``[1, 2]``: what should tell nothing. A probe that reads a label off it has found how the corpus was made."""
    return np.array([[len(wav) / rate, level(wav)]], dtype=np.float32)


def name_of_levels(levels: int) -> str:
    """The row of the first ``levels`` levels."""
    return "levels-1" if levels == 1 else f"levels-1-{levels}"


@torch.inference_mode()
def codes_of(tokenizer: HasLatents, z: Frames) -> NDArray[np.int64]:
    """The nearest codes ``[frames, levels]`` of ``z [frames, d]``."""
    return tokenizer.quantise(torch.from_numpy(z).to(tokenizer.device)).cpu().numpy()


@torch.inference_mode()
def of_codes(tokenizer: AudioTokenizer, codes: NDArray[np.int64], levels: int) -> Frames:
    """``[frames, d]`` of codes ``[frames, levels]``: what the first ``levels`` stand for; for a tokenizer that does not
    show its latents, one column per code of each level.
    """
    if isinstance(tokenizer, HasLatents):
        return tokenizer.vectors(torch.from_numpy(codes[:, :levels].copy()).to(tokenizer.device)).float().cpu().numpy()
    sizes = tokenizer.codebook_sizes[:levels]
    return np.concatenate([np.eye(n, dtype=np.float32)[codes[:, level]] for level, n in enumerate(sizes)], axis=1)
