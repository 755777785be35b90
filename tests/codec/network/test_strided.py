"""The codec without queries: what it promises as the query-based one does, and what it cannot."""

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_codec

from codec.interface import Codes
from codec.load import load
from codec.model import ALMTokenizer
from codec.network.streaming import decode_long, encode_long

CAUSAL = dict(encoder_block_causal=True, decoder_block_causal=True, stft_causal=True, excitation=False)
FRAME = 320 * 6


def strided(seed: int = 0, **changes: object) -> ALMTokenizer:
    """Five units each way, so that every dilation occurs and one occurs twice."""
    sizes = {"encoder_layers": 4, "decoder_layers": 4, "bottleneck": "strided"}
    return tiny_codec(seed, **{**sizes, **changes})


def sound(windows: int, rows: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randn(rows, windows * FRAME, generator=generator)
    return wav * torch.rand(1, windows, generator=generator).repeat_interleave(FRAME, dim=1)


def agreement(codec: ALMTokenizer, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two waveforms differ by rounding only; pulses are steep, so their flanks move where pitch is rounded."""
    below = 10 * torch.log10(b.square().sum() / (a - b).square().sum().clamp(min=1e-20))
    return float(below) > (50 if codec.config.excitation else 100)


def test_it_has_neither_queries_nor_transformers() -> None:
    kinds = {type(module).__name__ for module in strided().modules()}
    assert not kinds & {"LocalTransformer", "LocalAttention", "WindowPool", "WindowSpread"}
    assert not [name for name, _ in strided().named_parameters() if name in ("query", "mask")]


def test_every_parameter_learns() -> None:
    codec = strided().train()
    out = codec(sound(6, rows=2))
    (out.synthesis.wav.square().mean() + out.quantized.commitment).backward()
    silent = [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["unpatchify.pitch.weight", "unpatchify.pitch.bias"]  # those learn by the pitch loss alone


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {**CAUSAL, "window": 4}])
def test_long_clips_in_pieces_are_as_in_one_pass(changes: dict[str, object]) -> None:
    codec = strided(**changes)
    wav = sound(900)
    codec.one_pass_seconds = 1e9
    whole = codec.encode(wav)
    assert torch.equal(encode_long(codec, wav), whole.codes)  # 72 s in pieces of 30 s
    assert agreement(codec, decode_long(codec, whole.codes), codec.decode(whole))
    codec.one_pass_seconds = 10.0
    assert torch.equal(codec.encode(wav).codes, whole.codes)


@pytest.mark.parametrize("changes", [{}, CAUSAL])
def test_a_stream_is_as_one_pass(changes: dict[str, object]) -> None:
    codec = strided(**changes)
    wav = sound(60)
    state, codes = None, []
    for start in range(0, wav.shape[1], 5000):
        part, state = codec.encode_stream(wav[:, start : start + 5000], state, start + 5000 >= wav.shape[1])
        codes.append(part)
    whole = codec.encode(wav)
    assert torch.equal(torch.cat(codes, dim=2), whole.codes)
    stream, pieces = None, []
    for start in range(0, 60, 7):
        piece, stream = codec.decode_stream(whole.codes[:, :, start : start + 7], stream, start + 7 >= 60)
        pieces.append(piece)
    assert agreement(codec, torch.cat(pieces, dim=1), codec.decode(whole))


@pytest.mark.parametrize(("changes", "latency"), [({}, None), (CAUSAL, 80.0)])
def test_nothing_depends_on_more_than_the_latency_says(changes: dict[str, object], latency: float | None) -> None:
    codec = strided(**changes)
    assert codec.causal == (latency is not None)
    if latency is not None:
        assert codec.stream_latency.encode == latency
    wav, cut = sound(60), 40
    changed = torch.cat((wav[:, : cut * FRAME], sound(20, seed=1)), dim=1)
    ahead = round(codec.stream_latency.encode / 80) - 1  # windows
    first, second = codec.encode(wav).codes, codec.encode(changed).codes
    assert torch.equal(first[:, :, : cut - ahead], second[:, :, : cut - ahead])
    assert not torch.equal(first, second)


def test_its_window_is_built_in(tmp_path: Path) -> None:
    codec = strided(window=4)
    assert codec.samples_per_frame == 4 * 320 and codec.bitrate == pytest.approx(24000 / 1280 * 15)
    with pytest.raises(ValueError, match="its window is 4 and cannot be 6; give tokenizer.window=4"):
        codec.set_window(6)
    codec.save_pretrained(tmp_path)
    loaded = load(tmp_path, window=4)
    assert loaded.fingerprint == codec.fingerprint
    wav = sound(3)
    assert torch.equal(loaded.encode(wav).codes, codec.encode(wav).codes)


def test_an_unknown_bottleneck_is_refused() -> None:
    with pytest.raises(ValueError, match="bottleneck=holes is unknown; choose one of queries, strided"):
        tiny_codec(bottleneck="holes")


def test_generated_codes_decode() -> None:
    codec = strided()
    assert codec.decode(Codes(torch.ones(2, 3, 5, dtype=torch.long), torch.tensor([5, 2]))).shape == (2, 5 * FRAME)
