"""What the adapters of published tokenizers share: batches, lengths, levels and the fingerprint.

A baseline runs its model on ONE CLIP AT A TIME, unpadded. Most published models have no padding mask, so padding
changes the codes near a clip's end (non-causal convolutions, bidirectional LSTMs, unmasked attention, group norms over
time), and even where it should not, another batch size changes the order of summation and flips near-ties in deep
codebooks. One clip at a time gives every clip the same codes alone and in any batch, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from codec.interface import AudioTokenizer, Codes, HasLatents, TokenizerError


class BaselineTokenizer(nn.Module, AudioTokenizer):
    """A published model as an AudioTokenizer; subclasses give ``encode_clip``, ``decode_clip`` and the constants.

    Args:
        model: the network; moved to the tokenizer's device, never trained.
        sample_rate: Hz.
        samples_per_frame: samples of audio per token frame.
        codebook_sizes: one entry per level in use.
        causal: see AudioTokenizer.
        settings: what changes the codes and is not in the weights (the fingerprint covers it); JSON values.
    """

    def __init__(
        self,
        model: nn.Module,
        sample_rate: int,
        samples_per_frame: int,
        codebook_sizes: tuple[int, ...],
        causal: bool,
        settings: dict[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.sample_rate = sample_rate
        self.codebook_sizes = codebook_sizes
        self.causal = causal
        self._samples_per_frame = samples_per_frame
        self._settings = settings or {}

    @abstractmethod
    def encode_clip(self, wav: Tensor) -> Tensor:
        """``wav [1, samples]`` (at least one sample, any length) → codes ``[1, levels, ceil(samples / frame)]``."""

    @abstractmethod
    def decode_clip(self, codes: Tensor) -> Tensor:
        """``codes [1, at most levels, frames]`` → ``wav [1, about frames * samples_per_frame]``."""

    @property
    def samples_per_frame(self) -> int:
        return self._samples_per_frame

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    @property
    def fingerprint(self) -> str:
        facts = {
            "name": self.name,
            "sample_rate": self.sample_rate,
            "samples_per_frame": self.samples_per_frame,
            "codebook_sizes": list(self.codebook_sizes),
            **self._settings,
        }
        # A set of tensors, without their names: transformers renames modules between versions.
        tensors = []
        for value in self.model.state_dict().values():
            value = value.detach().float() if value.is_floating_point() else value
            content = hashlib.sha256(value.cpu().contiguous().numpy().tobytes()).hexdigest()
            tensors.append(f"{tuple(value.shape)} {content}")
        return hashlib.sha256("\n".join([json.dumps(facts, sort_keys=True), *sorted(tensors)]).encode()).hexdigest()

    @torch.inference_mode()
    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:  # type: ignore[override]
        samples = lengths.cpu()
        frames = torch.div(samples + self.samples_per_frame - 1, self.samples_per_frame, rounding_mode="floor")
        codes = torch.zeros(len(wav), self.levels, int(frames.max()), dtype=torch.long)
        for row, (n_samples, n_frames) in enumerate(zip(samples.tolist(), frames.tolist(), strict=True)):
            clip = self.encode_clip(wav[row : row + 1, :n_samples].to(self.device))
            if clip.shape != (1, self.levels, n_frames):
                raise RuntimeError(
                    f"{self.name} gave codes {tuple(clip.shape)} for {n_samples} samples instead of "
                    f"{(1, self.levels, n_frames)}: the adapter does not fit this checkpoint."
                )
            codes[row, :, :n_frames] = clip[0].cpu()
        return Codes(codes, frames, samples)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        values, frames = codes.codes, codes.lengths.cpu()
        samples = frames * self.samples_per_frame if codes.samples is None else codes.samples.cpu()
        wav = torch.zeros(len(values), int(samples.max()), device=self.device)
        for row, (n_samples, n_frames) in enumerate(zip(samples.tolist(), frames.tolist(), strict=True)):
            clip = self.decode_clip(values[row : row + 1, :, :n_frames].to(self.device))[0, :n_samples]
            wav[row, : len(clip)] = clip.float()
        return wav


class LatentBaseline(BaselineTokenizer, HasLatents):
    """A published model whose latents are at hand: its codes are those of its latents, its sound that of vectors."""

    def encode_clip(self, wav: Tensor) -> Tensor:
        return self.quantise(self.latents_of_clip(wav)).T[None]

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.sound_of_latents(self.vectors(codes[0].T))


def encode_levels(layers: Iterable[nn.Module], latents: Tensor) -> Tensor:
    """Codes ``[frames, levels]`` of ``latents [frames, d]`` by transformers' residual ``layers``, one after another."""
    residual, codes = latents.T[None], []
    for layer in layers:
        codes.append(layer.encode(residual))  # type: ignore[operator]
        residual = residual - layer.decode(codes[-1])  # type: ignore[operator]
    return torch.cat(codes).T if codes else latents.new_zeros(len(latents), 0, dtype=torch.long)


def check_levels(name: str, levels: int, available: int, least: int = 1) -> None:
    """Refuse a level count that the checkpoint does not have."""
    if not least <= levels <= available:
        raise TokenizerError(
            f"{name}: tokenizer.levels={levels} is outside {least}…{available}, the checkpoint's levels."
        )
