"""The codec without queries: what sets it apart. What it promises as the query-based one does: test_streaming.py."""

from pathlib import Path

import pytest
import torch
from tiny_models import STRIDED, tiny_codec

from codec.load import load


def test_it_has_neither_queries_nor_transformers() -> None:
    codec = tiny_codec(**STRIDED)
    kinds = {type(module).__name__ for module in codec.modules()}
    assert not kinds & {"LocalTransformer", "LocalAttention", "WindowPool", "WindowSpread"}
    assert not [name for name, _ in codec.named_parameters() if name in ("query", "mask")]


def test_every_parameter_learns() -> None:
    codec = tiny_codec(**STRIDED).train()
    out = codec(torch.randn(2, 6 * codec.samples_per_frame))
    (out.synthesis.wav.square().mean() + out.quantized.commitment).backward()
    silent = [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["unpatchify.pitch.weight", "unpatchify.pitch.bias"]  # those learn by the pitch loss alone


def test_its_window_is_built_in(tmp_path: Path) -> None:
    codec = tiny_codec(**STRIDED, window=4)
    assert codec.samples_per_frame == 4 * 320 and codec.bitrate == pytest.approx(24000 / 1280 * 15)
    with pytest.raises(ValueError, match="its window is 4 and cannot be 6; give tokenizer.window=4"):
        codec.set_window(6)
    codec.save_pretrained(tmp_path)
    loaded = load(tmp_path, window=4)
    assert loaded.fingerprint == codec.fingerprint
    wav = torch.randn(1, 3 * 6 * 320)
    assert torch.equal(loaded.encode(wav).codes, codec.encode(wav).codes)
