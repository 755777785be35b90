"""What one training pass computes, in each stage of the paper's recipe (section 3).

* no stage: everything at once, from scratch (our default at small scale).
* stage 1: patchify → unpatchify, an auto-encoder without quantiser, with the MAE objective: frames that mean something.
* stage 2: patchify frozen, stage 1's ends taken over; queries, quantiser, decoder and unpatchify learn the codec.

The paper does not say whether unpatchify keeps learning in stage 2 ("everything except patchify" is the reading of its
digests): it does here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from codec.model import ALMTokenizer
from codec.network.code_space import coding_rate_loss
from codec.network.patchify import Synthesis, spectrum
from codec.network.quantizer import Quantized
from codec.network.tones import tone_loss
from codec.objectives.auxiliary import LevelPredictor, MaskedAutoencoder, draw_mask
from codec.objectives.hearing import WordPredictor


@dataclass
class Pass:
    """One training pass: ``wav [batch, samples]``, pitch ``[batch, frames]`` or None, the losses that do not go through
    the waveform, unweighted, and what the quantiser made (None in stage 1)."""

    wav: Tensor
    frequency: Tensor | None
    inner: dict[str, Tensor]
    quantized: Quantized | None = None


class StagedCodec(nn.Module):
    """The codec with the throw-away networks of its stage; only ``codec`` is exported.

    Args:
        cfg: the configuration of ``codec/train.py`` (``stage``, ``mae``, ``ar``, ``loss``).
        heard_dim: width of a listener's hidden states, for the loss ``words``.
    """

    def __init__(self, codec: ALMTokenizer, cfg: DictConfig, heard_dim: int = 0) -> None:
        super().__init__()
        c, self.stage = codec.config, cfg.stage
        self.codec = codec
        self.mae_cfg, self.spread = cfg.mae, bool(cfg.loss.spread)
        self.mae = self.ar = self.bridge = self.words = None
        if cfg.loss.mae and self.stage != 2:  # a frozen patchify has nothing to learn from it
            mae = cfg.mae
            self.mae = MaskedAutoencoder(c.encoder_dim, mae.encoder_layers, mae.decoder_layers, c.head_dim, c.span)
        if cfg.loss.ar and self.stage != 1:
            ar = cfg.ar
            self.ar = LevelPredictor(
                c.code_dim, len(c.codebook_sizes), ar.width, ar.layers, c.head_dim, ar.over_time, ar.span
            )
        if cfg.loss.words and self.stage != 1:
            self.words = WordPredictor(c.decoder_dim, heard_dim)
        if self.stage == 1:
            if c.encoder_dim != c.decoder_dim:
                self.bridge = nn.Linear(c.encoder_dim, c.decoder_dim)
            codec.requires_grad_(False)
            codec.patchify.requires_grad_(True)
            codec.unpatchify.requires_grad_(True)
        elif self.stage == 2:
            codec.patchify.requires_grad_(False)

    def objectives(self) -> dict[str, Tensor]:
        """The state of the throw-away networks, for exact resume."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("codec.")}

    def forward(
        self,
        wav: Tensor,
        window: int,
        levels: int | None,
        bypass: bool,
        noise_offset: int,
        mask_share: float = 0.0,
        mask_generator: torch.Generator | None = None,
        first: int = 0,
        unquantised: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> Pass:
        """``wav [batch, windows * w * hop]``; the other arguments as :meth:`ALMTokenizer.forward`.

        Args:
            mask_share, mask_generator: for the MAE objective, drawn per step.
            first: clips of the global batch before these.
            heard: ``[batch, frames, dim]`` what a listener makes of ``wav``, for the loss ``words``.
        """
        inner: dict[str, Tensor] = {}
        quantized = None
        if self.stage == 1:
            frames = self.codec.patchify(wav)
            made = self.synthesise(frames, noise_offset)
        else:
            out = self.codec(wav, window, levels, bypass, noise_offset, unquantised)
            made, quantized = out.synthesis, out.quantized
            inner["commitment"] = quantized.commitment
            if self.spread:
                inner["spread"] = coding_rate_loss(quantized.inputs)
            if self.words is not None and heard is not None:
                inner["words"] = self.words(quantized.latents, heard)
            if quantized.prior is not None:
                inner["prior"] = quantized.prior
            if self.ar is not None:
                weight = 0.0 if bypass else 1.0  # nothing to predict while the quantiser is left out
                inner["ar"] = self.ar(quantized.inputs, quantized.per_level) * weight
        if self.mae is not None and mask_generator is not None:
            frames = frames if self.stage == 1 else self.codec.patchify(wav)
            mask = draw_mask(len(wav), frames.shape[1], mask_share, self.mae_cfg.mask_run, mask_generator, first)
            inner["mae"] = self.mae(frames, mask.to(frames.device))
        if made.tone_offset is not None:
            hop, size = self.codec.config.hop, self.codec.config.synthesis_fft
            inner["tones"] = tone_loss(made.tone_offset, spectrum(wav, size, hop), hop, size)
        return Pass(made.wav, made.frequency, inner, quantized)

    def synthesise(self, frames: Tensor, noise_offset: int = 0) -> Synthesis:
        """Stage 1's way back: ``frames [batch, n, encoder_dim]`` → ``wav [batch, n * hop]`` and what it was made of."""
        return self.codec.unpatchify(frames if self.bridge is None else self.bridge(frames), noise_offset)

    @torch.no_grad()
    def reconstruct(self, wav: Tensor) -> Tensor:
        """``wav [batch, samples]`` through stage 1's auto-encoder, without queries and codes; on the wav's device."""
        samples, hop = wav.shape[1], self.codec.config.hop
        padded = nn.functional.pad(wav, (0, -samples % hop)).to(self.codec.device)
        return self.synthesise(self.codec.patchify(padded)).wav[:, :samples].to(wav.device)
