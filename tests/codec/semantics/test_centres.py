"""Centres of a semantic prior are checked before a training begins: missing, broken, of another shape, not wanted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.semantics.centres import read_centres
from training.config import compose

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
        (["codec.semantic_dim=0", "codec.codebook_sizes=[16,16]", "FITTED"], "centres are [16, 6] and not [16, 0]"),
        ([*PRIOR, "codec.codebook_sizes=[32,16]", "FITTED"], "centres are [16, 6] and not [32, 6]"),
        ([*PRIOR, "codec.code_dim=8", "FITTED"], "weight are [4, 6] and not [8, 6]"),
    ],
)
def test_what_cannot_be_is_refused(
    overrides: list[str], sentence: str, fitted: str, refusal: Callable[..., str]
) -> None:
    assert sentence in refusal(read, *(fitted if override == "FITTED" else override for override in overrides))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"centres": torch.zeros(16)}, "centres are [16] and not [16, 6]"),
        ({"weight": torch.zeros(4, 5)}, "weight are [4, 5] and not [4, 6]"),
        ({"bias": torch.zeros(5)}, "bias are [5] and not [4]"),
        ({"bias": None}, "has a weight and no bias"),
        ({"weight": None}, "has a bias and no weight"),
        ({"centres": None}, "holds no centres"),
        ({"centres": torch.full((16, 6), torch.nan)}, "centres hold values that are NaN or infinite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: dict, sentence: str, fitted: str, refusal: Callable[..., str]
) -> None:
    path = Path(fitted.partition("=")[2])
    save_file({key: value for key, value in (load_file(path) | change).items() if value is not None}, path)
    assert sentence in refusal(read, *PRIOR, fitted)


def test_half_a_file_is_refused(fitted: str, refusal: Callable[..., str]) -> None:
    path = Path(fitted.partition("=")[2])
    path.write_bytes(path.read_bytes()[:-4])
    said = refusal(read, *PRIOR, fitted)
    assert str(path) in said and "is not a whole safetensors file" in said
