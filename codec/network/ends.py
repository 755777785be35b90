"""Patchify and unpatchify of a codec's configuration: waveform → frames and back."""

from __future__ import annotations

from torch import nn

from codec.network.architecture import ALMTokenizerConfig
from codec.network.convolutions import ConvPatchify, ConvUnpatchify, check_ratios
from codec.network.patchify import STFTPatchify, STFTUnpatchify
from codec.network.pitch import PitchInput
from codec.network.waveform_frames import Patchify


def build_ends(config: ALMTokenizerConfig, dim_in: int, dim_out: int) -> tuple[Patchify, nn.Module]:
    """Patchify to frames of ``dim_in`` and unpatchify from frames of ``dim_out``, as ``config.patchify`` says; a codec
    that hears by experts (codec/network/experts.py) has the output of ``stft``.
    """
    c = config
    if c.patchify != "conv":
        head = (c.sample_rate, c.excitation, c.pitch_low, c.pitch_high, c.tonal)
        pitch = None
        if c.pitch_input:
            pitch = PitchInput(dim_in, c.hop, c.sample_rate, c.pitch_low, c.pitch_high, c.stft_causal)
        return (
            STFTPatchify(dim_in, c.hop, tuple(c.analysis_ffts), c.stft_causal, pitch),
            STFTUnpatchify(dim_out, c.hop, c.synthesis_fft, *head),
        )
    ratios = tuple(c.conv_ratios)
    check_ratios(ratios, c.hop)
    shape = (c.conv_filters, ratios, c.conv_causal)
    return ConvPatchify(dim_in, *shape), ConvUnpatchify(dim_out, *shape)
