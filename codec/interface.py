"""AudioTokenizer: the one contract that every tokenizer meets, ours and the baselines.

A tokenizer turns a waveform into integer codes ``[batch, levels, frames]`` and codes into a waveform of the same
length. Whatever happens inside, three promises hold and are tested for each tokenizer:

* batch invariance: a clip gives the same codes alone and inside a padded batch;
* length: decoding returns exactly as many samples as were encoded;
* determinism: inference mode, no sampling, no dropout.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass
class Codes:
    """The tokens of a batch of clips.

    Attributes:
        codes: ``[batch, levels, frames]`` int64, zero beyond each clip's frames.
        lengths: ``[batch]`` int64, valid frames per clip.
        samples: ``[batch]`` int64, samples of the encoded clips; None for codes that a model generated, which decode
            to ``lengths * samples_per_frame`` samples.
    """

    codes: Tensor
    lengths: Tensor
    samples: Tensor | None = None

    def __post_init__(self) -> None:
        if self.codes.ndim != 3:
            raise ValueError(f"codes must be [batch, levels, frames], got shape {tuple(self.codes.shape)}.")
        if self.lengths.shape != self.codes.shape[:1]:
            raise ValueError(f"lengths must be [batch] = {self.codes.shape[0]}, got {tuple(self.lengths.shape)}.")

    def __len__(self) -> int:
        return self.codes.shape[0]

    def clip(self, index: int) -> Tensor:
        """``[frames, levels]``: the valid codes of one clip, frame by frame, as token shards store them."""
        return self.codes[index, :, : int(self.lengths[index])].T

    @classmethod
    def from_clips(cls, clips: list[Tensor]) -> Codes:
        """Pad clips ``[frames, levels]`` to a batch."""
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.long)
        batch = torch.zeros(len(clips), clips[0].shape[1], int(lengths.max()), dtype=torch.long)
        for i, clip in enumerate(clips):
            batch[i, :, : len(clip)] = clip.T
        return cls(batch, lengths)


class AudioTokenizer(ABC):
    """Waveform ⇄ codes."""

    name: str
    sample_rate: int  # Hz
    codebook_sizes: tuple[int, ...]  # one entry per level
    causal: bool  # True when no sample depends on later samples (beyond one frame)

    @property
    @abstractmethod
    def samples_per_frame(self) -> int:
        """Samples of audio per token frame."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over configuration and weights: equal fingerprints mean equal codes."""

    @abstractmethod
    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        """Encode ``wav [batch, samples]`` (float32 at ``sample_rate``, in −1…1); ``lengths [batch]`` in samples."""

    @abstractmethod
    def decode(self, codes: Codes) -> Tensor:
        """Decode to ``wav [batch, samples]``; samples beyond a clip's length are zero."""

    @property
    def levels(self) -> int:
        """Codebook levels per frame."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Token frames per second (Hz)."""
        return self.sample_rate / self.samples_per_frame

    @property
    def bitrate(self) -> float:
        """Bits per second: frame rate times the sum of log2(codebook size)."""
        return self.frame_rate * sum(math.log2(size) for size in self.codebook_sizes)

    def describe(self) -> dict[str, object]:
        """What a shard index, a vocabulary or a result records about the tokenizer."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "levels": self.levels,
            "codebook_sizes": list(self.codebook_sizes),
            "samples_per_frame": self.samples_per_frame,
            "bitrate": self.bitrate,
            "causal": self.causal,
        }


class TokenizerError(RuntimeError):
    """A tokenizer that cannot be loaded, with the cure."""


def load(
    path: str | Path, device: str | torch.device = "cpu", window: int | None = None, levels: int | None = None
) -> AudioTokenizer:
    """Load a saved ALMTokenizer.

    Args:
        path: folder that codec/train.py or save_pretrained wrote, or the hub id of such a one.
        window: frames per query (2…10) to use instead of the checkpoint's default.
        levels: so many of the checkpoint's levels, from the first; None: all.

    Raises:
        TokenizerError: the folder is missing, is no ALMTokenizer checkpoint, or is damaged.
        ValueError: the codec cannot have that window, or has fewer levels.
    """
    from codec.model import ALMTokenizer  # late: these files need this module
    from codec.pretrained import FILES, find_folder, holds_weights, load_whole

    folder = find_folder(str(path), FILES)
    if folder is None or not (folder / "config.json").is_file() or not holds_weights(folder):
        raise TokenizerError(
            f"no codec checkpoint at '{path}': train one with `accelerate launch codec/train.py codec=mini`, "
            "or give tokenizer.path=FOLDER (or the hub id of one)."
        )
    model = load_whole(ALMTokenizer, folder, exact=True)
    if window is not None:
        model.set_window(window)
    if levels is not None:
        model.set_levels(levels)
    return model.to(device).eval()
