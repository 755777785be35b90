"""Convolutional ends: shapes, batch invariance, causality, saving."""

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_codec

from codec.load import load
from codec.network.convolutions import ConvPatchify, ConvUnpatchify

CONV = dict(patchify="conv", conv_filters=2, window_basis=0)


@pytest.mark.parametrize("changes", [CONV, {**CONV, "conv_causal": True}])
def test_a_clip_in_a_padded_batch_equals_the_clip_alone(changes: dict, tmp_path: Path) -> None:
    codec = tiny_codec(**changes)
    lengths = torch.tensor([20_000, 7_777, 1_920 * 4])
    wav = torch.randn(3, 20_000) * 0.1
    batch = codec.encode(wav, lengths)
    decoded = codec.decode(batch)
    assert len(batch.codes.unique()) > 4
    for i, length in enumerate(lengths.tolist()):
        alone = codec.encode(wav[i : i + 1, :length])
        assert torch.equal(alone.codes[0], batch.codes[i, :, : int(batch.lengths[i])])
        torch.testing.assert_close(codec.decode(alone)[0], decoded[i, :length], atol=1e-5, rtol=1e-4)
    codec.save_pretrained(tmp_path / "codec")
    loaded = load(tmp_path / "codec")
    assert loaded.fingerprint == codec.fingerprint
    assert torch.equal(loaded.encode(wav, lengths).codes, batch.codes)


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
    with pytest.raises(ValueError, match="unknown; choose one of"):
        tiny_codec(patchify="wavelet")
