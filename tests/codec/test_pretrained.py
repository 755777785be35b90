"""Loading a codec: whole or refused in one sentence, whatever was done to its folder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_codec

import codec.pretrained
from codec.audio_encoders import load_encoder
from codec.interface import TokenizerError, load
from training.config import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_codec().save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    weights = {**load_file(file), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in weights.items() if value is not None}, file, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


DAMAGES = {
    "half of the file": (truncate, "the weights in"),
    "a weight is missing": (
        lambda f: edit_weights(f, decoder__norm__weight=None),
        "has no values",
    ),
    "a layer too many": (lambda f: edit_config(f, encoder_layers=3), "has no values for"),
    "a layer too few": (lambda f: edit_config(f, encoder_layers=1), "lacks (encoder.blocks.1"),
    "another size": (lambda f: edit_weights(f, query=torch.zeros(17)), "the weights in"),
    "another model": (lambda f: edit_config(f, model_type="mimi"), "holds model type 'mimi' and not 'almtokenizer'"),
    "no JSON": (lambda f: (f / "config.json").write_text('{"model_type"'), "config.json cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no codec checkpoint at"),
    "no config": (lambda f: (f / "config.json").unlink(), "no codec checkpoint at"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture, damage: str) -> None:
    harm, reason = DAMAGES[damage]
    harm(folder)
    with pytest.raises(TokenizerError) as refused:
        load(folder)
    assert reason in str(refused.value) and str(folder) in str(refused.value)
    assert "MISSING" not in capsys.readouterr().err, "the table of transformers adds nothing"


def test_a_codec_that_cannot_be_is_refused(folder: Path) -> None:
    edit_config(folder, window=11)
    with pytest.raises(ValueError, match="window=11 is outside"):
        load(folder)


def test_an_encoder_of_the_prior_is_loaded_with_the_same_care(folder: Path, capsys: pytest.CaptureFixture) -> None:
    truncate(folder)
    with pytest.raises(ConfigError):
        load_encoder(str(folder), 0, torch.device("cpu"))
    assert "the weights in" in capsys.readouterr().err


def test_a_hub_id_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        if repository != "people/codec":
            raise OSError("out of reach")
        return str(folder)

    monkeypatch.setattr(codec.pretrained.huggingface_hub, "snapshot_download", download)
    assert load("people/codec").fingerprint == load(folder).fingerprint
    assert asked == [("people/codec", ["config.json", "*.safetensors", "*.safetensors.index.json"])]
    with pytest.raises(TokenizerError, match="no codec checkpoint at 'people/other'"):
        load("people/other")
    with pytest.raises(TokenizerError, match="no codec checkpoint at 'runs/other/final'"):
        load("runs/other/final")
    assert len(asked) == 2, "a path is not looked for on the hub"
