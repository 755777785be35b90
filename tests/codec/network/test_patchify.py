"""Convolutional ends: causality, and ratios that fit the hop."""

import pytest
import torch
from tiny_models import tiny_codec

from codec.network.convolutions import ConvPatchify, ConvUnpatchify


def test_causal_convolutions_do_not_look_ahead() -> None:
    torch.manual_seed(0)
    patchify, unpatchify = (kind(8, 2, (2, 4, 5, 8), True) for kind in (ConvPatchify, ConvUnpatchify))
    wav = torch.randn(1, 320 * 10)
    changed = wav.clone()
    changed[:, 320 * 6 :] += 1
    a, b = patchify(wav), patchify(changed)
    assert torch.equal(a[:, :6], b[:, :6]) and (a - b)[:, 6].abs().max() > 1e-4
    x, y = unpatchify(a).wav, unpatchify(b).wav
    assert x.shape == wav.shape
    assert torch.equal(x[:, : 320 * 6], y[:, : 320 * 6]) and (x - y)[:, 320 * 6 :].abs().max() > 1e-6


def test_convolutions_look_both_ways_without_causality() -> None:
    torch.manual_seed(0)
    patchify = ConvPatchify(8, 2, (2, 4, 5, 8), False)
    wav = torch.randn(1, 320 * 10)
    changed = wav.clone()
    changed[:, 320 * 6 :] += 1
    assert (patchify(wav) - patchify(changed))[:, 5].abs().max() > 1e-4


def test_ratios_must_multiply_to_the_hop() -> None:
    with pytest.raises(ValueError, match="conv_ratios"):
        tiny_codec(patchify="conv", conv_ratios=(2, 4, 5))
