"""Centres of a semantic prior are checked before a training begins: missing, broken, of another shape, not wanted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from codec.semantics.centres import read_centres
from training.config import ConfigError, compose

PRIOR = ["codec.semantic_dim=6", "codec.codebook_sizes=[16,16]", "codec.code_dim=4"]


def read(*overrides: str) -> dict[str, torch.Tensor] | None:
    return read_centres(compose("codec_train", ["codec=mini", *overrides]))


@pytest.fixture
def fitted(tmp_path: Path) -> str:
    tensors = {"centres": torch.randn(16, 6), "weight": torch.randn(4, 6), "bias": torch.randn(4)}
    save_file(tensors, tmp_path / "centres.safetensors")
    return f"semantic_centres={tmp_path / 'centres.safetensors'}"


def test_centres_come_with_their_map(fitted: str) -> None:
    found = read(*PRIOR, fitted)
    assert found is not None and {key: list(value.shape) for key, value in found.items()} == {
        "centres": [16, 6],
        "weight": [4, 6],
        "bias": [4],
    }


@pytest.mark.parametrize(
    "overrides", [["codec.semantic_dim=0"], [*PRIOR, "stage=1"], [*PRIOR, "init=a-codec-with-its-own-prior"]]
)
def test_none_are_needed(overrides: list[str]) -> None:
    assert read(*overrides) is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (PRIOR, "codec.semantic_dim=6 wants centres"),
        ([*PRIOR, "stage=2", "init=stage-one"], "codec.semantic_dim=6 wants centres"),
        ([*PRIOR, "semantic_centres=nowhere.safetensors"], "there is no such file"),
        (["codec.semantic_dim=0", "codec.codebook_sizes=[16,16]", "FITTED"], "the codec wants 16 of 0"),
        ([*PRIOR, "codec.codebook_sizes=[32,16]", "FITTED"], "has 16 centres of 6 dimensions, the codec wants 32 of 6"),
        ([*PRIOR, "codec.code_dim=8", "FITTED"], "has a map to 4 dimensions, the codec's codes have 8"),
    ],
)
def test_what_cannot_be_is_refused(
    overrides: list[str], sentence: str, fitted: str, refusal: Callable[..., str]
) -> None:
    assert sentence in refusal(read, *(fitted if override == "FITTED" else override for override in overrides))


def test_broken_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half, other = tmp_path / "half.safetensors", tmp_path / "other.safetensors"
    save_file({"weights": torch.zeros(2)}, other)
    half.write_bytes(other.read_bytes()[:-4])
    for path, sentence in ((half, "is not a whole safetensors file"), (other, "holds no centres")):
        with pytest.raises(ConfigError):
            read(*PRIOR, f"semantic_centres={path}")
        message = capsys.readouterr().err
        assert str(path) in message and sentence in message
