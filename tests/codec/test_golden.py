"""The first architecture stays what it was: shipped checkpoints, their numbers and their fingerprint."""

import hashlib

import pytest
import torch
from tiny_models import tiny_codec

from codec.model import ALMTokenizer
from codec.network.architecture import LATER_KEYS, ALMTokenizerConfig


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
    assert out.synthesis.wav[0, ::500][:6].tolist() == pytest.approx(expected, abs=1e-4)
    assert out.synthesis.wav.double().abs().sum().item() == pytest.approx(7198.6074, rel=1e-4)
    assert out.quantized.codes.flatten().tolist() == [28, 28, 15, 15, 9, 9] * 2
    assert out.quantized.commitment.item() == pytest.approx(0.00603248, rel=1e-4)


def test_parameters_have_the_recorded_names() -> None:
    names = "\n".join(sorted(ALMTokenizer(ALMTokenizerConfig()).state_dict()))
    assert (
        hashlib.sha256(names.encode()).hexdigest() == "439f051d40ad4ed788ee8a3ed6a3e0e9aee32f878359755882828dcdf5001db0"
    )


FIRST_KEYS = (
    "sample_rate hop window encoder_dim encoder_layers decoder_dim decoder_layers head_dim ffn span "
    "encoder_block_causal decoder_block_causal decoder_query_first window_basis code_dim codebook_sizes "
    "codebook_decay dead_code_share analysis_ffts synthesis_fft excitation pitch_low pitch_high"
).split()


def test_the_fingerprint_is_of_the_first_keys_and_the_weights() -> None:
    """Later keys at their defaults, and whatever transformers keeps in a configuration, leave it alone."""
    codec = filled()
    digest = hashlib.sha256()
    digest.update(repr(sorted((key, str(getattr(codec.config, key))) for key in FIRST_KEYS)).encode())
    for key, value in sorted(codec.state_dict().items()):
        if not key.endswith((".counts", ".sums")):
            digest.update(key.encode())
            digest.update(value.contiguous().numpy().tobytes())
    assert codec.fingerprint == digest.hexdigest()
    codec.config.id2label = {0: "another version of transformers"}
    assert codec.fingerprint == digest.hexdigest()
    assert set(LATER_KEYS) <= set(ALMTokenizerConfig().__dict__)
    codec.config.conv_causal = True
    assert codec.fingerprint != digest.hexdigest()
