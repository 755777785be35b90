"""The first architecture stays what it was: shipped checkpoints, their numbers and their fingerprint."""

import hashlib

import pytest
import torch
from tiny_models import tiny_codec

from codec.model import LATER_KEYS, ALMTokenizer, ALMTokenizerConfig


def filled() -> ALMTokenizer:
    """A tiny codec with weights that are the same on every machine."""
    codec = tiny_codec()
    with torch.no_grad():
        for value in codec.state_dict().values():
            value.copy_(((torch.arange(value.numel()) * 7919 % 257 - 128) / 1024).view(value.shape))
    return codec


def test_forward_pass_gives_the_recorded_numbers() -> None:
    codec = filled()
    wav = (torch.arange(2 * 320 * 12).view(2, -1) * 7919 % 101 - 50) / 500
    out = codec(wav, 6)
    expected = [1.7303280, -0.0624029, -0.2881513, 0.3153635, 0.7437534, -0.8368560]
    assert out.wav[0, ::500][:6].tolist() == pytest.approx(expected, abs=1e-4)
    assert out.wav.double().abs().sum().item() == pytest.approx(7198.6074, rel=1e-4)
    assert out.quantized.codes.flatten().tolist() == [28, 28, 15, 15, 9, 9] * 2
    assert out.quantized.commitment.item() == pytest.approx(0.00603248, rel=1e-4)


def test_parameters_have_the_recorded_names() -> None:
    names = "\n".join(sorted(ALMTokenizer(ALMTokenizerConfig()).state_dict()))
    assert (
        hashlib.sha256(names.encode()).hexdigest() == "439f051d40ad4ed788ee8a3ed6a3e0e9aee32f878359755882828dcdf5001db0"
    )


def test_later_keys_at_their_defaults_leave_the_fingerprint_alone() -> None:
    codec = filled()
    digest = hashlib.sha256()
    ignored = {"transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures", *LATER_KEYS}
    known = ALMTokenizerConfig().__dict__
    config = {k: v for k, v in codec.config.to_dict().items() if k in known and k not in ignored}
    digest.update(repr(sorted((k, str(v)) for k, v in config.items())).encode())
    for key, value in sorted(codec.state_dict().items()):
        if not key.endswith((".counts", ".sums")):
            digest.update(key.encode())
            digest.update(value.contiguous().numpy().tobytes())
    assert codec.fingerprint == digest.hexdigest()
    assert set(LATER_KEYS) <= set(known)
    codec.config.conv_causal = True
    assert codec.fingerprint != digest.hexdigest()
