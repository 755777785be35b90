"""Clips through a tokenizer and back, in batches of clips of like length, which are dealt out to the processes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from codec.interface import AudioTokenizer, Codes
from eval.harness.audio import Wave
from eval.harness.processes import gather, share
from training.progress import progress

BATCH = 8
K = TypeVar("K", bound=Hashable)


def batches(clips: Mapping[K, Any], desc: str) -> Iterator[list[K]]:
    """The names of the clips that this process codes, the shortest first."""
    order = sorted((name for name in clips if len(clips[name])), key=lambda name: len(clips[name]))
    parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    yield from progress(share(parts), desc=f"{desc}, {len(order)} clips")


def _encoded(tokenizer: AudioTokenizer, waves: Mapping[K, Wave], desc: str) -> Iterator[tuple[list[K], Codes]]:
    """Names of the clips of each batch, and their codes."""
    device = tokenizer.device
    for chosen in batches(waves, desc):
        parts = [torch.from_numpy(waves[name]) for name in chosen]
        lengths = torch.tensor([len(part) for part in parts])
        yield chosen, tokenizer.encode(pad_sequence(parts, batch_first=True).to(device), lengths.to(device))


def encode_clips(tokenizer: AudioTokenizer, waves: Mapping[K, Wave]) -> dict[K, NDArray[Any]]:
    """Codes ``[frames, levels]`` of clips ``[samples]`` at the tokenizer's rate, the shortest first."""
    found = {
        name: codes.clip(number).cpu().numpy()
        for chosen, codes in _encoded(tokenizer, waves, "encoding")
        for number, name in enumerate(chosen)
    }
    found = gather(found, "encoding")
    return {name: found[name] for name in sorted(waves, key=lambda name: len(waves[name]))}


def decode_clips(tokenizer: AudioTokenizer, clips: Sequence[NDArray[Any]]) -> list[Wave | None]:
    """Waveforms ``[samples]`` of codes ``[frames, levels]``; None for a clip without frames."""
    device = tokenizer.device
    waves: dict[int, Wave] = {}
    for chosen in batches(dict(enumerate(clips)), "decoding"):
        codes = Codes.from_clips([torch.from_numpy(clips[i]) for i in chosen])
        out = tokenizer.decode(Codes(codes.codes.to(device), codes.lengths.to(device))).float().cpu().numpy()
        waves |= {
            i: wav[: len(clips[i]) * tokenizer.samples_per_frame].copy() for wav, i in zip(out, chosen, strict=True)
        }
    waves = gather(waves, "decoding")
    return [waves.get(i) for i in range(len(clips))]


def resynthesise(tokenizer: AudioTokenizer, waves: Mapping[K, Wave]) -> dict[K, tuple[Wave, NDArray[Any]]]:
    """Clips ``[samples]`` at the tokenizer's rate through the codec, and their codes ``[frames, levels]``."""
    found: dict[K, tuple[Wave, NDArray[Any]]] = {}
    for chosen, codes in _encoded(tokenizer, waves, "resynthesis"):
        out = tokenizer.decode(codes).float().cpu().numpy()
        for number, name in enumerate(chosen):
            found[name] = out[number, : len(waves[name])].copy(), codes.clip(number).cpu().numpy()
    found = gather(found, "resynthesis")
    return {name: found[name] for name in waves}
