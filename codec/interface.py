"""AudioTokenizer: the one contract that every tokenizer meets, ours and the baselines.

A tokenizer turns a waveform into integer codes ``[batch, levels, frames]`` and codes into a waveform of the same
length. Whatever happens inside, three promises hold and are tested for each tokenizer:

* batch invariance: a clip gives the same codes alone and inside a padded batch;
* length: decoding returns exactly as many samples as were encoded;
* determinism: inference mode, no dropout, nothing random but what positions and an option decide.

What goes in is checked here, before any tokenizer sees it: a subclass' ``encode`` and ``decode`` are wrapped when its
class is made. They are given sound arguments only (:func:`checked_encode`, :func:`checked_decode`), and clips without
samples or frames are answered without them.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codec.audio.files import LOUDEST
from codec.errors import TokenizerError as TokenizerError

PEAK = 2 * LOUDEST  # what is read of a file passes, also where a resampler overshoots; 16-bit integers as floats do not


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
        for name, value in vars(self).items():
            if value is not None or name != "samples":
                check_tensor(value, name)
        if self.codes.ndim != 3:
            raise ValueError(f"codes must be [batch, levels, frames], got shape {tuple(self.codes.shape)}.")
        if self.lengths.shape != self.codes.shape[:1]:
            raise ValueError(f"lengths must be [batch] = {self.codes.shape[0]}, got {tuple(self.lengths.shape)}.")
        if self.samples is not None and self.samples.shape != self.lengths.shape:
            raise ValueError(f"samples must be [batch] = {self.codes.shape[0]}, got {tuple(self.samples.shape)}.")

    def __len__(self) -> int:
        return self.codes.shape[0]

    def clip(self, index: int) -> Tensor:
        """``[frames, levels]``: the valid codes of one clip, frame by frame, as token shards store them."""
        return self.codes[index, :, : int(self.lengths[index])].T

    @classmethod
    def from_clips(cls, clips: list[Tensor]) -> Codes:
        """Pad clips ``[frames, levels]`` to a batch; a clip may have no frames.

        Raises:
            ValueError: no clips, or others than of whole numbers and as many levels.
        """
        for clip in clips:
            check_tensor(clip, "each clip")
            check_whole(clip)
        if any(clip.ndim != 2 for clip in clips) or len({clip.shape[1] for clip in clips}) != 1:
            shapes = [tuple(clip.shape) for clip in clips]
            raise ValueError(f"clips must be [frames, levels] of one number of levels, got {shapes}.")
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.long)
        batch = torch.zeros(len(clips), clips[0].shape[1], int(lengths.max()), dtype=torch.long)
        for i, clip in enumerate(clips):
            batch[i, :, : len(clip)] = clip.T
        return cls(batch, lengths)


class AudioTokenizer(ABC):
    """Waveform ⇄ codes.

    Attributes:
        name: of the kind of tokenizer.
        sample_rate: Hz.
        codebook_sizes: one entry per level.
        causal: whether it can run live: a frame's codes depend on no sample after the frame (the first frames apart,
            where a clip's start is padded by reflection), and its sound on no frame after the next one.
    """

    name: str
    sample_rate: int
    codebook_sizes: tuple[int, ...]
    causal: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, checked in (("encode", checked_encode), ("decode", checked_decode)):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    @property
    def device(self) -> torch.device:
        """Where it computes, and wants what it is given."""
        return torch.device("cpu")

    @property
    @abstractmethod
    def samples_per_frame(self) -> int:
        """Samples of audio per token frame."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over configuration and weights: equal fingerprints mean equal codes."""

    @property
    def decoder_fingerprint(self) -> str:
        """SHA-256 (hex) likewise: equal ones mean equal sound from equal codes."""
        return self.fingerprint

    @abstractmethod
    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        """Encode ``wav [batch, samples]`` (at ``sample_rate``, in −1…1); ``lengths [batch]`` in samples.

        A subclass is given float32 that is finite and zero beyond each clip's end, lengths (int64, on the device of
        ``wav``), and clips of at least one sample.

        Raises:
            ValueError: not such a waveform.
        """

    @abstractmethod
    def decode(self, codes: Codes) -> Tensor:
        """Decode to ``wav [batch, samples]``; samples beyond a clip's length are zero.

        A subclass is given codes that are zero beyond each clip's end, and clips of at least one frame.

        Raises:
            ValueError: not codes of this tokenizer.
        """

    def check_wav(self, wav: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``wav [batch, samples]`` as float32, zero beyond ``lengths [batch]``, and these (None: all samples)."""
        check_tensor(wav, "wav")
        if wav.ndim != 2:
            raise ValueError(f"wav must be [batch, samples], got shape {tuple(wav.shape)}.")
        if not wav.is_floating_point():
            raise ValueError(f"wav must be floating-point in -1…1, got {wav.dtype}: divide 16-bit samples by 32768.")
        batch, samples = wav.shape
        if lengths is None:
            lengths = torch.full((batch,), samples, device=wav.device)
        lengths = whole_numbers(lengths, "lengths", batch).to(wav.device)
        if bool(((lengths < 0) | (lengths > samples)).any()):
            raise ValueError(f"lengths {lengths.tolist()} do not fit wav of shape {tuple(wav.shape)}.")
        wav = wav.float()
        if bool((lengths < samples).any()):
            wav = torch.where(torch.arange(samples, device=wav.device) < lengths[:, None], wav, 0.0)
        peaks = wav.abs().amax(1) if samples else wav.new_zeros(batch)  # of NaN is NaN
        for number in (~(peaks <= PEAK)).nonzero()[:, 0].tolist():
            peak = float(peaks[number])
            if not math.isfinite(peak):
                raise ValueError(f"clip {number} of wav holds samples that are NaN or infinite.")
            raise ValueError(
                f"clip {number} of wav reaches {peak:g} where full scale is 1: divide 16-bit samples by 32768."
            )
        return wav, lengths

    def check_codes(self, codes: Tensor) -> None:
        """Refuse ``codes [batch, levels, frames]`` that this tokenizer cannot have made; fewer levels are legal."""
        check_whole(codes)
        sizes = torch.tensor(self.codebook_sizes, device=codes.device)[: codes.shape[1], None]
        if not 1 <= codes.shape[1] <= self.levels or bool(((codes < 0) | (codes >= sizes)).any()):
            raise ValueError(f"codes {tuple(codes.shape)} do not fit {self.levels} levels of {self.codebook_sizes}.")

    def use_float32(self) -> None:
        """Bring weights that are kept in another precision to float32: distances in bf16 pick wrong codes."""
        if isinstance(self, nn.Module) and any(
            p.is_floating_point() and p.dtype != torch.float32 for p in self.parameters()
        ):
            with torch.inference_mode(False):  # or the weights could not be trained any more
                self.float()

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


def check_tensor(value: object, name: str) -> None:
    """Refuse what is no tensor, an array for one."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}: torch.as_tensor makes one.")


def check_whole(codes: Tensor) -> None:
    """Refuse codes that are no whole numbers: probabilities, logits, a mask."""
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"codes must be whole numbers, got {codes.dtype}.")


def whole_numbers(values: Tensor, name: str, batch: int) -> Tensor:
    """``values [batch]`` as int64; refuses another shape or kind of numbers."""
    values = torch.as_tensor(values)
    if values.shape != (batch,) or values.is_floating_point() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be [batch] = {batch} whole numbers, got {values.dtype} {tuple(values.shape)}.")
    return values.long()


def without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` in the precision of its weights, whatever its caller computes in: a sound has one code."""

    @functools.wraps(function)
    def run(self: AudioTokenizer, *given: Any, **named: Any) -> Any:
        with torch.autocast(self.device.type, enabled=False):
            return function(self, *given, **named)

    return run


def checked_encode(encode: Callable[..., Codes]) -> Callable[..., Codes]:
    """``encode`` of a tokenizer behind the checks that all tokenizers share."""

    @functools.wraps(encode)
    @without_autocast
    def checked(self: AudioTokenizer, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        wav, lengths = self.check_wav(wav, lengths)
        self.use_float32()
        heard = lengths > 0
        if bool(heard.all()) and len(wav):
            return encode(self, wav, lengths)
        result = Codes(torch.zeros(len(wav), self.levels, 0, dtype=torch.long), lengths.cpu() * 0, lengths.cpu())
        if not heard.any():
            return result
        found, heard = encode(self, wav[heard], lengths[heard]), heard.cpu()
        result.codes = found.codes.new_zeros(len(wav), *found.codes.shape[1:])
        result.codes[heard.to(found.codes.device)] = found.codes
        result.lengths[heard] = found.lengths.cpu()
        return result

    return checked


def checked_decode(decode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``decode`` of a tokenizer behind the checks that all tokenizers share."""

    @functools.wraps(decode)
    @without_autocast
    def checked(self: AudioTokenizer, codes: Codes) -> Tensor:
        if not isinstance(codes, Codes):
            raise ValueError(f"decode takes Codes, got {type(codes).__name__}: Codes.from_clips makes them.")
        batch, _, frames = codes.codes.shape
        lengths = whole_numbers(codes.lengths, "lengths", batch)
        if bool(((lengths < 0) | (lengths > frames)).any()):
            raise ValueError(f"lengths {lengths.tolist()} do not fit codes of shape {tuple(codes.codes.shape)}.")
        samples = codes.samples if codes.samples is None else whole_numbers(codes.samples, "samples", batch)
        if samples is not None:
            most = lengths.to(samples.device) * self.samples_per_frame
            if bool(((samples < 0) | (samples > most)).any()):
                raise ValueError(f"samples {samples.tolist()} are more than the codes' frames hold, {most.tolist()}.")
        values = codes.codes
        if bool((lengths < frames).any()):
            inside = torch.arange(frames, device=values.device) < lengths.to(values.device)[:, None]
            values = torch.where(inside[:, None], values, 0)
        self.check_codes(values)
        self.use_float32()
        said = lengths > 0
        if bool(said.all()) and batch:
            return decode(self, Codes(values.long(), lengths, samples))
        if not said.any():
            return torch.zeros(batch, 0, device=self.device)
        samples = samples if samples is None else samples[said.to(samples.device)]
        found = decode(self, Codes(values.long()[said.to(values.device)], lengths[said], samples))
        wav = found.new_zeros(batch, found.shape[1])
        wav[said.to(found.device)] = found
        return wav

    return checked


class HasLatents(AudioTokenizer):
    """A tokenizer that shows the space it quantises: vectors ``z [frames, d]`` that one can look at, move and hear.

    A frame's vector is what the quantiser is given, and a code's vector is what stands for it there, so that their
    difference is what quantising costs and nothing else. A subclass gives the four steps, of one clip each.
    """

    @abstractmethod
    def latents_of_clip(self, wav: Tensor) -> Tensor:
        """``wav [1, samples]``, sound and at least one sample → ``z [frames, d]``, before the quantiser."""

    @abstractmethod
    def quantise(self, z: Tensor) -> Tensor:
        """The codes ``[frames, levels]`` nearest to ``z [frames, d]``, level by level."""

    @abstractmethod
    def vectors(self, codes: Tensor) -> Tensor:
        """``z [frames, d]`` that ``codes [frames, at most levels]`` stand for; fewer levels are a coarser vector."""

    @abstractmethod
    def sound_of_latents(self, z: Tensor) -> Tensor:
        """``z [frames, d]``, at least one frame → ``wav [1, about frames * samples_per_frame]``."""

    @without_autocast
    @torch.inference_mode()
    def to_latents(self, wav: Tensor) -> Tensor:
        """``wav [1, samples]`` (as for ``encode``; in one pass, however long) → ``z [frames, d]``, not quantised.

        Raises:
            ValueError: not such a waveform, or none or several clips.
        """
        wav, lengths = self.check_wav(wav)
        if len(wav) != 1 or not int(lengths[0]):
            raise ValueError(f"latents are of one clip of at least one sample, got wav {tuple(wav.shape)}.")
        self.use_float32()
        return self.latents_of_clip(wav.to(self.device)).float()

    @without_autocast
    @torch.inference_mode()
    def from_latents(self, z: Tensor, requantise: bool) -> Tensor:
        """``z [frames, d]`` → ``wav [1, frames * samples_per_frame]``.

        Args:
            requantise: hear the nearest codes' vectors, which is what a language model can express; else ``z`` itself,
                which a decoder that was trained on codes alone has never seen.

        Raises:
            ValueError: not finite vectors ``[frames, d]``, or none.
        """
        check_tensor(z, "latents")
        if z.ndim != 2 or not len(z) or not bool(torch.isfinite(z).all()):
            raise ValueError(f"latents must be finite vectors [frames, d] of at least one frame, got {tuple(z.shape)}.")
        self.use_float32()
        z = z.float().to(self.device)
        wav = self.sound_of_latents(self.vectors(self.quantise(z)) if requantise else z)
        samples = len(z) * self.samples_per_frame
        return torch.nn.functional.pad(wav, (0, max(0, samples - wav.shape[1])))[:, :samples].float()
