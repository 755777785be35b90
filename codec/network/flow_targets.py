"""What a flow decoder samples: a target, measured on audio and rendered to audio without a network.

At 412 bit/s no phase is coded, so a target should have none: a small network would have to invent it. ``partials`` and
``gains`` are ours; ``latent`` is of ALMTokenizer2's kind, without the tanh and the rounding of its SQ-codec.

========== ===================================================== ===================================================
target     numbers per frame                                     rendered
========== ===================================================== ===================================================
partials   log-magnitude and frequency offset of each bin: 962   tones whose phase is the sum of their frequency
gains      log-magnitude of each bin: 481                        today's output, its spectrum brought to it by gains
latent     frames of an auto-encoder (codec/train.py stage=1)    its unpatchify
========== ===================================================== ===================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.patchify import Synthesis, overlap_add, spectrum, tone_offsets, tone_spectra

QUIET = 0.05  # least weight of a frequency offset: in quiet bins it is arbitrary, and not heard


class Target(nn.Module, ABC):
    """What stands between the flow and the waveform.

    Attributes:
        dim: numbers per frame.
        reach: frames before and after its own that a frame of the waveform depends on.
    """

    dim: int
    reach: tuple[int, int]

    @abstractmethod
    def measure(self, wav: Tensor) -> Tensor:
        """``wav [batch, frames * hop]`` → ``[batch, frames, dim]``."""

    def weight(self, expected: Tensor) -> Tensor:
        """How much each number counts, by what is ``expected [batch, frames, dim]`` of it: not by what is true, or the
        velocity that is learnt would be biased (E[w u] / E[w] is not E[u]).
        """
        return torch.ones_like(expected)

    @abstractmethod
    def render(self, values: Tensor, frames: Tensor, unpatchify: nn.Module, **how: Any) -> Synthesis:
        """``values [batch, frames, dim]`` → ``wav [batch, frames * hop]``.

        Args:
            frames: ``[batch, frames, decoder_dim]``, which the codec's own ``unpatchify`` makes sound of.
            how: ``noise_offset``, ``valid``, ``pulse_start``, ``tone_start`` of
                :class:`codec.network.patchify.STFTUnpatchify`.
        """


class Gains(Target):
    """Log-magnitudes of the output spectrum's bins; phase and what is between the bins stay today's."""

    def __init__(self, hop: int, fft_size: int, unpatchify: nn.Module) -> None:
        super().__init__()
        self.hop, self.fft_size, self.reach = hop, fft_size, unpatchify.reach  # type: ignore[assignment]
        self.dim = fft_size // 2 + 1

    def measure(self, wav: Tensor) -> Tensor:
        return torch.log(spectrum(wav, self.fft_size, self.hop).abs() + 1e-4)

    def render(self, values: Tensor, frames: Tensor, unpatchify: nn.Module, **how: Any) -> Synthesis:
        return unpatchify(frames, level=values, **how)


class Partials(Target):
    """Log-magnitude of each bin and how far the frequency in it lies from its centre (in bins): GANSynth's
    representation (Engel et al., 2019), rendered with phases that lock to peaks.
    """

    def __init__(self, hop: int, fft_size: int) -> None:
        super().__init__()
        self.hop, self.fft_size, self.bins = hop, fft_size, fft_size // 2 + 1
        self.dim = 2 * self.bins
        around = fft_size - hop
        self.reach = -(-(around - around // 2) // hop), -(-(around // 2) // hop)

    def measure(self, wav: Tensor) -> Tensor:
        spectra = spectrum(wav, self.fft_size, self.hop)
        # the first frame has none before it to measure from
        offset = F.pad(tone_offsets(spectra, self.hop, self.fft_size), (0, 0, 1, 0))
        return torch.cat((torch.log(spectra.abs() + 1e-4), offset), dim=-1)

    def weight(self, expected: Tensor) -> Tensor:
        """1 for magnitudes; offsets by the root of the expected magnitude, relative to the frame's loudest bin."""
        level = expected[..., : self.bins]
        relative = ((level - level.amax(-1, keepdim=True)) / 2).exp().clamp(min=QUIET)
        return torch.cat((torch.ones_like(level), relative), dim=-1)

    def render(self, values: Tensor, frames: Tensor, unpatchify: nn.Module, **how: Any) -> Synthesis:
        level, offset = values.float().chunk(2, dim=-1)
        most = self.fft_size / (2 * self.hop)  # further away, a frame's advance is ambiguous
        offset = offset.clamp(-most, most)
        spectra, running = tone_spectra(level, offset, self.hop, self.fft_size, how.get("tone_start"))
        return Synthesis(overlap_add(spectra, self.fft_size, self.hop, how.get("valid")), None, offset, running)


class Latent(Target):
    """Frames of an auto-encoder, which is kept beside the flow.

    Args:
        ends: its patchify and unpatchify (:func:`codec.network.ends.build_ends`).
        dim: width of its frames.
    """

    def __init__(self, ends: tuple[nn.Module, nn.Module], dim: int) -> None:
        super().__init__()
        self.patchify, self.unpatchify = ends
        self.dim, self.reach = dim, self.unpatchify.reach  # type: ignore[assignment]

    def measure(self, wav: Tensor) -> Tensor:
        return self.patchify(wav)

    def render(self, values: Tensor, frames: Tensor, unpatchify: nn.Module, **how: Any) -> Synthesis:
        return self.unpatchify(values, **how)
