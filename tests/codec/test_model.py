"""The codec's promises: lengths, batch invariance, dependency of window k on token k, windows at run time, saving."""

import math
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_codec
from transformers import AutoConfig, AutoModel

from codec.interface import Codes
from codec.load import load
from codec.model import ALMTokenizer


def test_the_default_rate_is_that_of_the_paper() -> None:
    codec = ALMTokenizer(ALMTokenizer.config_class())
    assert codec.frame_rate == 12.5
    assert codec.bitrate == 412.5
    assert codec.levels == 3


@pytest.mark.parametrize("window", range(2, 11))
@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 24000 + 17])
def test_output_is_as_long_as_the_input(window: int, samples: int) -> None:
    codec = tiny_codec()
    codec.set_window(window)
    codes = codec.encode(torch.randn(1, samples) * 0.1)
    assert int(codes.lengths) == -(-samples // (320 * window))
    wav = codec.decode(codes)
    assert wav.shape == (1, samples)
    assert torch.isfinite(wav).all()


CONV = dict(patchify="conv", conv_filters=2, window_basis=0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"encoder_block_causal": True, "decoder_block_causal": True}, CONV, {**CONV, "conv_causal": True}],
    ids=["default", "causal", "convolutions", "causal convolutions"],
)
def test_a_clip_in_a_padded_batch_equals_the_clip_alone(changes: dict) -> None:
    codec = tiny_codec(**changes)
    lengths = torch.tensor([30_000, 11_111, 1_920 * 9])
    wav = torch.randn(3, 30_000) * 0.1  # what lies beyond a clip's length must not matter
    batch = codec.encode(wav, lengths)
    decoded = codec.decode(batch)
    assert len(batch.codes.unique()) > 8
    for i, length in enumerate(lengths.tolist()):
        alone = codec.encode(wav[i : i + 1, :length])
        assert torch.equal(alone.codes[0], batch.codes[i, :, : int(batch.lengths[i])])
        # rounding in the predicted pitch moves the steep flanks of the pulses a little
        torch.testing.assert_close(codec.decode(alone)[0], decoded[i, :length], atol=3e-4, rtol=1e-3)
        assert (decoded[i, length:] == 0).all()


@pytest.mark.parametrize("query_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_window_k_depends_on_token_k(query_first: bool, causal: bool) -> None:
    """The flaw of plain causal attention with masks before their query: window k never sees token k."""
    codec = tiny_codec(decoder_query_first=query_first, decoder_block_causal=causal)
    codes = torch.randint(32, (1, 3, 8), generator=torch.Generator().manual_seed(1))
    samples = codec.samples_per_frame
    reference = codec.decode(Codes(codes, torch.tensor([8])))
    for k in range(8):
        changed = codes.clone()
        changed[0, 0, k] = (changed[0, 0, k] + 7) % 32
        difference = (codec.decode(Codes(changed, torch.tensor([8]))) - reference).abs()[0].view(8, samples).amax(1)
        assert difference[k] > 1e-4, f"window {k} ignores its token"
        if causal and k > 1:  # the overlapping synthesis windows reach one frame back, pitch phase only forward
            assert difference[: k - 1].max() < 1e-5


def test_reach_is_local() -> None:
    """Quality must not depend on clip length: a distant change leaves a window's codes alone."""
    codec = tiny_codec()
    windows = 40
    wav = torch.randn(1, codec.samples_per_frame * windows) * 0.1
    changed = wav.clone()
    changed[:, codec.samples_per_frame * 30 :] *= 0.1
    a, b = (codec.encode_latents(x, 6) for x in (wav, changed))
    reach = 2 * 12 // 7 + 2  # layers × span tokens, in windows, and the analysis frame
    torch.testing.assert_close(a[:, : 30 - reach], b[:, : 30 - reach], atol=1e-6, rtol=1e-5)
    assert (a - b)[0, 30:].abs().max() > 1e-4


@pytest.mark.parametrize("changes", [{}, CONV], ids=["default", "convolutions"])
def test_save_and_load(changes: dict, tmp_path: Path) -> None:
    codec = tiny_codec(**changes)
    codec.save_pretrained(tmp_path / "codec")
    assert (tmp_path / "codec" / "model.safetensors").is_file()
    loaded = load(tmp_path / "codec")
    wav = torch.randn(2, 9_000) * 0.1
    assert torch.equal(loaded.encode(wav).codes, codec.encode(wav).codes)
    assert loaded.fingerprint == codec.fingerprint
    assert load(tmp_path / "codec", window=4).fingerprint != codec.fingerprint
    with torch.no_grad():
        loaded.quantizer.books[0].embed += 1e-3
    assert loaded.fingerprint != codec.fingerprint


def test_weights_in_bf16_and_in_several_files_are_read_by_the_registered_class(tmp_path: Path) -> None:
    codec = tiny_codec()
    codec.to(torch.bfloat16).save_pretrained(tmp_path / "codec", max_shard_size="20KB")
    assert len(list((tmp_path / "codec").glob("model-*.safetensors"))) > 1
    found = AutoModel.from_pretrained(tmp_path / "codec")
    assert type(found) is ALMTokenizer and type(AutoConfig.from_pretrained(tmp_path / "codec")) is type(codec.config)
    loaded = load(tmp_path / "codec")
    wav = torch.randn(2, 9_000) * 0.1
    codes = loaded.encode(wav)
    assert torch.equal(found.eval().encode(wav).codes, codes.codes)
    assert torch.equal(codec.float().encode(wav).codes, codes.codes), "computed in float32"
    assert loaded.decode(codes).dtype == torch.float32


def test_the_first_levels_are_a_codec_of_their_own(tmp_path: Path) -> None:
    codec = tiny_codec()
    codec.save_pretrained(tmp_path / "codec")
    two = load(tmp_path / "codec", levels=2)
    wav = torch.randn(2, 9_000) * 0.1
    codes, first = codec.encode(wav), two.encode(wav)
    assert torch.equal(first.codes, codes.codes[:, :2])
    assert two.levels == 2 and two.bitrate == pytest.approx(codec.bitrate * 2 / 3)
    assert two.fingerprint != codec.fingerprint
    shorter = codec.decode(Codes(codes.codes[:, :2], codes.lengths, codes.samples))
    torch.testing.assert_close(two.decode(first), shorter)
    assert (shorter - codec.decode(codes)).abs().max() > 1e-4, "the third level says something"
    assert isinstance(two, ALMTokenizer)
    two.save_pretrained(tmp_path / "two")
    assert load(tmp_path / "two").fingerprint == two.fingerprint
    for levels in (0, 4):
        with pytest.raises(ValueError, match=f"levels={levels}: this codec has levels 1 to 3"):
            load(tmp_path / "codec", levels=levels)


def test_codes_from_clips_round_trip() -> None:
    clips = [torch.randint(32, (n, 3)) for n in (4, 1, 7)]
    batch = Codes.from_clips(clips)
    assert batch.codes.shape == (3, 3, 7)
    for i, clip in enumerate(clips):
        assert torch.equal(batch.clip(i), clip)


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (torch.full((4, 3), 0.7), "codes must be whole numbers, got torch.float32"),
        (torch.full((4, 3), math.nan), "codes must be whole numbers, got torch.float32"),
        (torch.ones(4, 3, dtype=torch.bool), "codes must be whole numbers, got torch.bool"),
        (torch.ones(4, dtype=torch.long), r"clips must be \[frames, levels\] of one number of levels, got .*\(4,\)"),
        (torch.ones(4, 2, dtype=torch.long), r"of one number of levels, got \[\(2, 3\), \(4, 2\)\]"),
        (torch.ones(4, 1, dtype=torch.long), r"of one number of levels, got \[\(2, 3\), \(4, 1\)\]"),
    ],
)
def test_what_is_no_clip_of_codes_joins_no_batch(clip: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Codes.from_clips([torch.zeros(2, 3, dtype=torch.long), clip])


@pytest.mark.parametrize("levels", [1, 8])
def test_one_and_eight_levels(levels: int) -> None:
    codec = tiny_codec(codebook_sizes=(32,) * levels)
    wav = torch.randn(2, 320 * 6 * 30) * torch.linspace(0, 1, 320 * 6 * 30)
    codes = codec.encode(wav)
    assert codes.codes.shape == (2, levels, 30) and codec.bitrate == 12.5 * 5 * levels
    assert all(len(codes.codes[:, level].unique()) > 4 for level in range(levels))
    reference = codec.decode(codes)
    assert reference.shape == wav.shape and torch.isfinite(reference).all()
    for level in range(levels):
        other = codes.codes.clone()
        other[:, level] = (other[:, level] + 1) % 32
        assert not torch.equal(codec.decode(Codes(other, codes.lengths, codes.samples)), reference), f"level {level}"


def test_codes_are_checked_level_by_level() -> None:
    """An index beyond a small second codebook is another code's, or the end of the process on a GPU."""
    codec = tiny_codec(codebook_sizes=(32, 8))
    assert codec.decode(Codes(torch.tensor([[[31, 0], [7, 0]]]), torch.tensor([2]))).shape == (1, 2 * 1_920)
    for bad in ([7, 31], [32, 0], [0, -1], [0, 0, 0], []):
        with pytest.raises(ValueError, match="do not fit 2 levels"):
            codec.decode(Codes(torch.tensor(bad, dtype=torch.long).view(1, len(bad), 1), torch.tensor([1])))


def test_using_the_codec_changes_nothing_in_it() -> None:
    """Also in training mode: codebooks move in training steps only, and nothing is drawn."""
    codec = tiny_codec(excitation=True, tonal=True).train()
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    wav = torch.randn(1, 9_600) * 0.1
    first = codec.encode(wav)
    sound = codec.decode(first)
    torch.manual_seed(1)
    second = codec.encode(wav)
    assert torch.equal(first.codes, second.codes) and torch.equal(sound, codec.decode(second))
    assert all(torch.equal(before[key], value) for key, value in codec.state_dict().items())
