"""What the codec learns from: one pass through it, and the losses of that pass.

A loss is a method of :class:`WaveformLosses` or :class:`OtherLosses`, named as its weight in configs/codec_train.yaml:
write one there and give it a weight, and it takes part. The distances that they measure stand below.

The paper does not state weights or resolutions: all are keys. On a CPU these transforms cost more than the network, so
each step draws a few resolutions (without bias: all are drawn equally often).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from codec.audio.mel import mel_filters
from codec.model import ALMTokenizer
from codec.network.code_space import coding_rate_loss
from codec.network.experts import ExpertPatchify
from codec.network.patchify import Synthesis, spectrum, tone_offsets
from codec.network.pitch import pitches, voicing
from codec.network.quantizer import Quantized
from codec.objectives.auxiliary import ExpertPredictor, LevelPredictor, MaskedAutoencoder, draw_mask
from codec.objectives.flow import FlowDraw, flow_losses
from codec.objectives.hearing import Listener, hearing_loss

if TYPE_CHECKING:
    from codec.objectives.adversarial import Adversary


@dataclass(frozen=True)
class Resolution:
    """One analysis: window length in samples (hop a quarter of it) and number of mel bands."""

    fft_size: int
    bands: int

    @property
    def hop(self) -> int:
        return self.fft_size // 4


@dataclass
class Pass:
    """One training pass.

    Attributes:
        wav: ``[batch, samples]`` the output; its losses see a leaf where their gradients are balanced.
        quantized: None in stage 1, which has no codes, and in stage 3, whose codes stay.
        bypass: the quantiser was left out.
        frames, mask: ``[batch, frames, dim]`` and the frames that are masked, for the MAE objective.
        phones: ``[batch, frames, dim]``, what the phone experts heard.
    """

    wav: Tensor
    synthesis: Synthesis
    quantized: Quantized | None = None
    bypass: bool = False
    frames: Tensor | None = None
    mask: Tensor | None = None
    phones: Tensor | None = None
    flow: dict[str, Tensor] | None = None
    """losses of stage 3 by name, which makes no waveform"""


class StagedCodec(nn.Module):
    """The codec with the throw-away networks of its stage (paper section 3); only ``codec`` is exported.

    * no stage: everything at once, from scratch (our default at small scale).
    * stage 1: patchify → unpatchify without quantiser, with the MAE objective: frames that mean something.
    * stage 2: patchify frozen, stage 1's ends taken over; queries, quantiser, decoder and unpatchify learn the codec.
    * stage 3 (ours, after ALMTokenizer2): a flow decoder for the codes of a trained codec, of which nothing else moves.

    The paper does not say whether unpatchify keeps learning in stage 2 ("everything except patchify" is the reading of
    its digests): it does here.

    Args:
        cfg: the configuration of ``codec/train.py`` (``stage``, ``mae``, ``ar``, ``loss``).
    """

    def __init__(self, codec: ALMTokenizer, cfg: DictConfig) -> None:
        super().__init__()
        c, self.stage = codec.config, cfg.stage
        self.codec = codec
        self.mae = self.ar = self.bridge = self.expert = None
        if cfg.loss.mae and self.stage in (None, 1):  # a frozen patchify has nothing to learn from it
            mae = cfg.mae
            self.mae = MaskedAutoencoder(c.encoder_dim, mae.encoder_layers, mae.decoder_layers, c.head_dim, c.span)
        if cfg.loss.ar and self.stage in (None, 2):
            self.ar = LevelPredictor(c.code_dim, len(c.codebook_sizes), cfg.ar.width, cfg.ar.layers, c.head_dim)
        if cfg.loss.expert and self.stage in (None, 2):
            phones = codec.patchify.phones if isinstance(codec.patchify, ExpertPatchify) else 0
            if not phones:
                raise ValueError(
                    "loss.expert needs patchify=experts with one of role phone, whose features it predicts."
                )
            self.expert = ExpertPredictor(c.decoder_dim, phones)
        if self.stage == 1:
            if c.encoder_dim != c.decoder_dim:
                self.bridge = nn.Linear(c.encoder_dim, c.decoder_dim)
            codec.requires_grad_(False)
            codec.patchify.requires_grad_(True)
            codec.unpatchify.requires_grad_(True)
        elif self.stage == 2:
            codec.patchify.requires_grad_(False)
        elif self.stage == 3 and codec.flow is not None:
            codec.requires_grad_(False)
            codec.flow.requires_grad_(True)
            codec.flow.target.requires_grad_(False)

    def objectives(self) -> dict[str, Tensor]:
        """The state of the throw-away networks, for exact resume."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("codec.")}

    def forward(
        self,
        wav: Tensor,
        window: int,
        levels: int | None = None,
        bypass: bool = False,
        noise_offset: int = 0,
        unquantised: Tensor | None = None,
        masking: tuple[float, torch.Generator] | None = None,
        first: int = 0,
        flow: FlowDraw | None = None,
    ) -> Pass:
        """``wav [batch, windows * w * hop]``; the other arguments as :meth:`ALMTokenizer.forward`.

        Args:
            masking: share of masked frames and the generator of their places, for the MAE objective.
            first: clips of the global batch before these.
            flow: what stage 3 draws.
        """
        if flow is not None:
            nothing = wav[:, :0]
            return Pass(nothing, Synthesis(nothing), flow=flow_losses(self.codec, wav, window, levels, flow))
        if self.stage == 1:
            frames = self.codec.patchify(wav)
            synthesis = self.synthesise(frames, noise_offset)
            made = Pass(synthesis.wav, synthesis, frames=frames)
        else:
            out = self.codec(wav, window, levels, bypass, noise_offset, unquantised)
            made = Pass(out.synthesis.wav, out.synthesis, out.quantized, bypass)
            if self.expert is not None:
                made.phones = self.codec.patchify.heard[..., : self.codec.patchify.phones]
        if self.mae is not None and masking is not None:
            made.frames = made.frames if self.stage == 1 else self.codec.patchify(wav)
            mask = draw_mask(len(wav), made.frames.shape[1], *masking, first)  # type: ignore[union-attr]
            made.mask = mask.to(wav.device)
        return made

    def synthesise(self, frames: Tensor, noise_offset: int = 0) -> Synthesis:
        """Stage 1's way back: ``frames [batch, n, encoder_dim]`` → ``wav [batch, n * hop]`` and what it was made of."""
        return self.codec.unpatchify(frames if self.bridge is None else self.bridge(frames), noise_offset)

    @torch.no_grad()
    def reconstruct(self, wav: Tensor) -> Tensor:
        """``wav [batch, samples]`` through stage 1's auto-encoder, without queries and codes; on the wav's device."""
        samples, hop = wav.shape[1], self.codec.config.hop
        padded = nn.functional.pad(wav, (0, -samples % hop)).to(self.codec.device)
        return self.synthesise(self.codec.patchify(padded)).wav[:, :samples].to(wav.device)


@dataclass
class Losses:
    """The losses of one pass, unweighted. Each method is one; None where it does not apply.

    Args:
        source: ``[batch, samples]`` what went in.
        weights: of the losses, by name.
        resolutions: of the spectral losses.
        judged: the part of a crop that the discriminators judge; None: none yet.
    """

    made: Pass
    source: Tensor
    staged: StagedCodec
    accelerator: Accelerator
    weights: DictConfig
    resolutions: list[Resolution]
    adversary: Adversary | None = None
    judged: slice | None = None
    listener: Listener | None = None

    def all(self) -> dict[str, Tensor]:
        """By name, in the order of the methods."""
        values = {
            name: getattr(self, name)() for name, it in vars(type(self)).items() if callable(it) and name[0] != "_"
        }
        return {name: value for name, value in values.items() if value is not None}


class WaveformLosses(Losses):
    """What goes through the waveform: the balancer gives each a share of the gradient there."""

    @cached_property
    def _distances(self) -> dict[str, Tensor]:
        rate, found = self.staged.codec.config.sample_rate, dict[str, Tensor]()
        for resolution in self.resolutions:
            for name, value in spectral_losses(self.made.wav, self.source, rate, resolution).items():
                found[name] = found.get(name, 0) + value / len(self.resolutions)
        return found

    @cached_property
    def _judgement(self) -> dict[str, Tensor]:
        if self.adversary is None or self.judged is None:
            return {}
        return self.adversary.losses(self.made.wav, self.source, self.judged)

    def mel(self) -> Tensor:
        """L1 of log-mel magnitudes."""
        return self._distances["mel"]

    def convergence(self) -> Tensor:
        """Spectral convergence."""
        return self._distances["convergence"]

    def hearing(self) -> Tensor | None:
        """What a listener hears in the output against the source."""
        if self.listener is None:
            return None
        with self.accelerator.autocast():
            with torch.no_grad():
                target = self.listener(self.source)
            return hearing_loss(self.listener(self.made.wav), target)

    def adversarial(self) -> Tensor | None:
        """Against the discriminators."""
        return self._judgement.get("adversarial")

    def features(self) -> Tensor | None:
        """Relative feature matching."""
        return self._judgement.get("features")


class OtherLosses(Losses):
    """What does not go through the waveform, and keeps plain weights."""

    def commitment(self) -> Tensor | None:
        """Latents to their codes, summed over levels."""
        return None if self.made.quantized is None else self.made.quantized.commitment

    def spread(self) -> Tensor | None:
        """Against a code space that shrinks to few axes."""
        if self.made.quantized is None or not self.weights.spread:
            return None
        return coding_rate_loss(self.made.quantized.inputs)

    def prior(self) -> Tensor | None:
        """Mapped semantic centres to their latents."""
        return None if self.made.quantized is None else self.made.quantized.prior

    def ar(self) -> Tensor | None:
        """Deeper levels predicted from shallower ones."""
        if self.staged.ar is None or self.made.quantized is None:
            return None
        with self.accelerator.autocast():
            loss = self.staged.ar(self.made.quantized.inputs, self.made.quantized.per_level)
        return loss * (0.0 if self.made.bypass else 1.0)  # nothing to predict while the quantiser is left out

    def expert(self) -> Tensor | None:
        """What the phone experts heard, predicted from the quantised latents."""
        if self.staged.expert is None or self.made.quantized is None or self.made.phones is None:
            return None
        with self.accelerator.autocast():
            return self.staged.expert(self.made.quantized.latents, self.made.phones)

    def mae(self) -> Tensor | None:
        """Masked frames predicted from the others."""
        if self.staged.mae is None or self.made.mask is None:
            return None
        with self.accelerator.autocast():
            return self.staged.mae(self.made.frames, self.made.mask)

    def tones(self) -> Tensor | None:
        """Frequencies of the tones."""
        offset, c = self.made.synthesis.tone_offset, self.staged.codec.config
        if offset is None:
            return None
        return tone_loss(offset, spectrum(self.source, c.synthesis_fft, c.hop), c.hop, c.synthesis_fft)

    @cached_property
    def _pitches(self) -> list[tuple[Tensor, Tensor]]:
        """Pitch and periodicity of the source up to the pulses' highest; for `unpitched`, two octaves above it, too."""
        c = self.staged.codec.config
        highs = [c.pitch_high, 4 * c.pitch_high] if self.weights.unpitched else [c.pitch_high]
        with torch.no_grad():
            return pitches(self.source, c.sample_rate, c.hop, c.pitch_low, highs)

    def pitch(self) -> Tensor | None:
        """Octaves of pitch error in voiced frames."""
        frequency = self.made.synthesis.frequency
        return None if frequency is None else pitch_loss(frequency, *self._pitches[0], self.accelerator.reduce)

    def unpitched(self) -> Tensor | None:
        """What tones and direct spectrum add to frames whose pitch pulses can say, and drown it with."""
        share = self.made.synthesis.unpitched
        if share is None or not self.weights.unpitched:
            return None
        # of a bird or a whistle the pulses say a fraction of the pitch, and the tones say it
        (frequency, periodicity), (higher, _) = self._pitches
        within = (frequency / higher).log2().abs() < 0.1
        voiced = within * voicing(periodicity)
        return (share * voiced).sum() / self.accelerator.reduce(voiced.sum(), reduction="mean").clamp(min=1.0)

    def pitch_axis(self) -> Tensor | None:
        """The same of what the last axis of the code space says, before it is quantised."""
        if self.made.quantized is None or not self.weights.pitch_axis:
            return None
        # Left to the other losses, the axis would begin below the error of its codes, where they say nothing of it, and
        # stay there.
        c, octaves = self.staged.codec.config, self.made.quantized.projected[..., -1] / self.weights.pitch_scale
        frequency = (c.pitch_low * c.pitch_high) ** 0.5 * 2.0**octaves
        frames = frequency.repeat_interleave(self.source.shape[1] // c.hop // frequency.shape[1], dim=1)
        return pitch_loss(frames, *self._pitches[0], self.accelerator.reduce)


# ---- distances -----------------------------------------------------------------------------------------------------
@lru_cache(maxsize=32)
def loss_filters(sample_rate: int, fft_size: int, bands: int, device: torch.device) -> Tensor:
    """Triangular mel filters (Slaney scale), each of sum 1 ``[fft_size / 2 + 1, bands]``; a low band that is narrower
    than a bin, and would be empty, is the nearest bin.
    """
    filters = mel_filters(sample_rate, fft_size, bands, area=False).T.copy()
    centres = np.linspace(0.0, hertz_to_mel(sample_rate / 2, "slaney"), bands + 2)[1:-1]
    nearest = np.round(np.asarray(mel_to_hertz(centres, "slaney")) * fft_size / sample_rate).astype(int)
    empty = np.flatnonzero(filters.sum(0) == 0)
    filters[nearest[empty], empty] = 1.0
    return torch.tensor(filters / filters.sum(0), device=device)


def spectral_losses(output: Tensor, target: Tensor, sample_rate: int, resolution: Resolution) -> dict[str, Tensor]:
    """Distances of ``output [batch, samples]`` to ``target`` at one resolution.

    Returns:
        ``mel``: mean |log mel(output) − log mel(target)| (natural log of magnitudes, floor 1e-3);
        ``convergence``: ‖|X̂| − |X|‖ / max(‖|X|‖, 1) per clip (Arık et al., 2018), averaged over clips: a silent one
        counts by its error alone.
    """
    hop = resolution.hop
    usable = output.shape[1] // hop * hop
    x, y = (spectrum(t[:, :usable], resolution.fft_size, hop).abs() for t in (output, target))
    filters = loss_filters(sample_rate, resolution.fft_size, resolution.bands, output.device)
    log_x, log_y = (torch.log(t @ filters + 1e-3) for t in (x, y))
    # vector_norm: the root of a sum of squares has no gradient at zero, where the output is the target
    error, scale = (torch.linalg.vector_norm(t, dim=(1, 2)) for t in (x - y, y))
    convergence = error / scale.clamp(min=1.0)
    return {"mel": F.l1_loss(log_x, log_y), "convergence": convergence.mean()}


def pitch_loss(
    frequency: Tensor,
    target: Tensor,
    periodicity: Tensor,
    reduce: Callable[[Tensor, str], Tensor] = lambda count, reduction: count,
) -> Tensor:
    """Mean |octaves| between predicted and measured pitch over periodic frames (periodicity above 0.6).

    Args:
        frequency: predicted, ``[batch, frames]`` in Hz.
        target, periodicity: measured, likewise (:func:`codec.network.pitch.pitch`).
        reduce: over all processes, as that of accelerate.
    """
    voiced = (periodicity > 0.6).float()
    error = (torch.log2(frequency) - torch.log2(target)).abs()
    # over the voiced frames of all processes: a mean of means would weigh frames of noisy batches more
    return (error * voiced).sum() / reduce(voiced.sum(), "mean").clamp(min=1.0)


def tone_loss(offset: Tensor, target: Tensor, hop: int, fft_size: int) -> Tensor:
    """Mean |bins| between predicted and measured instantaneous frequency, weighted by magnitude, mean over clips.

    Args:
        offset: predicted, ``[batch, frames, bins]``.
        target: spectra of the source, complex ``[batch, frames, bins]``, windows of ``fft_size`` every ``hop``.
    """
    with torch.no_grad():
        measured = tone_offsets(target, hop, fft_size)
        weight = (target[:, 1:] * target[:, :-1].conj()).abs().sqrt()
    error = ((offset[:, 1:] - measured).abs() * weight).sum((1, 2))
    return (error / weight.sum((1, 2)).clamp(min=1e-3)).mean()
