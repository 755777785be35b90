"""Loading a codec: whole or refused in one sentence, whatever was done to its folder."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from json_files import read_json
from safetensors.torch import load_file, save_file
from tiny_models import tiny_codec

import codec.pretrained
from codec.interface import TokenizerError
from codec.load import load, load_codec, load_tokenizer
from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig
from codec.network.audio_encoders import load_encoder
from codec.network.quantizer import Codebook
from codec.untrained import untrained_codec
from training.config import ConfigError, compose


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_codec().save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


def edit_config(folder: Path, **changes: object) -> None:
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    weights = {**load_file(file), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in weights.items() if value is not None}, file, metadata={"format": "pt"})


def spoil(folder: Path, part: str, value: float) -> None:
    """Put ``value`` into the first tensor whose name has ``part``."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, tensor in weights.items() if part in name and tensor.is_floating_point())
    weights[name].view(-1)[0] = value
    edit_weights(folder, **{name: weights[name]})


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
    "NaN in a weight": (lambda f: spoil(f, "decoder.norm", math.nan), "decoder.norm.weight holds values that"),
    "infinity in a codebook": (lambda f: spoil(f, "quantizer", -math.inf), "holds values that are NaN or infinite"),
    "another size": (lambda f: edit_weights(f, query=torch.zeros(17)), "the weights in"),
    "another model": (lambda f: edit_config(f, model_type="mimi"), "holds model type 'mimi' and not 'almtokenizer'"),
    "no JSON": (lambda f: (f / "config.json").write_text('{"model_type"'), "config.json cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no codec checkpoint at"),
    "no config": (lambda f: (f / "config.json").unlink(), "no codec checkpoint at"),
}


PROGRAMS = ["encode", "reconstruct", "lm_train", "lm_generate"]
PROGRAMS += [f"eval_{name}" for name in ("asr", "captioning", "likelihood", "reconstruction", "semantics", "tts")]
PROGRAMS += ["eval_text_to_audio"]


@pytest.fixture(scope="module")
def without_codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage 1 leaves, and any training that ends before trainer.quantize_from."""
    folder = tmp_path_factory.mktemp("stage-1") / "final"
    ALMTokenizer(ALMTokenizerConfig(**tiny_codec().config.to_diff_dict())).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_codec_whose_codebooks_never_began_is_no_tokenizer(
    without_codes: Path, program: str, capsys: pytest.CaptureFixture
) -> None:
    cfg = compose(program, [f"tokenizer.path={without_codes}"])
    with pytest.raises(ConfigError):
        load_tokenizer(cfg.tokenizer, "cpu")
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"the codebooks of '{without_codes}' are random" in said and f"stage=2 init={without_codes}" in said


def test_codecs_with_codes_and_those_that_only_listen_are_loaded(without_codes: Path, tmp_path: Path) -> None:
    """A codec of random weights on purpose has its codes; one level of three that never began is one too many."""
    untrained_codec(tiny_codec().config, 0).save_pretrained(tmp_path / "untrained")
    assert load(tmp_path / "untrained").quantizer.begun  # type: ignore[attr-defined]
    assert not load_codec(without_codes).quantizer.begun, "as init= of a training, or for its latents"
    assert load_encoder(str(without_codes), 1, torch.device("cpu")).features(torch.zeros(24_000)).isfinite().all()
    part = tiny_codec()
    fresh = Codebook(32, 4, 0.99, 0.1)
    part.quantizer.books[2] = fresh
    part.save_pretrained(tmp_path / "part")
    with pytest.raises(TokenizerError, match="are random"):
        load(tmp_path / "part")


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
    with pytest.raises(TokenizerError, match="window=11 is outside"):
        load(folder)


def test_an_encoder_of_the_prior_is_loaded_with_the_same_care(folder: Path, refusal: Callable[..., str]) -> None:
    truncate(folder)
    assert "the weights in" in refusal(load_encoder, str(folder), 0, torch.device("cpu"))


def test_a_hub_id_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, allow_patterns: list[str], revision: str | None) -> str:
        asked.append((repository, allow_patterns, revision))
        if repository != "people/codec":
            raise OSError("out of reach")
        return str(folder)

    monkeypatch.setattr(codec.pretrained.huggingface_hub, "snapshot_download", download)
    assert load("people/codec").fingerprint == load(folder).fingerprint
    assert load("people/codec@v1").fingerprint == load(folder).fingerprint
    files = ["config.json", "*.safetensors", "*.safetensors.index.json"]
    assert asked == [("people/codec", files, None), ("people/codec", files, "v1")]
    with pytest.raises(TokenizerError, match="no codec checkpoint at 'people/other'"):
        load("people/other")
    with pytest.raises(TokenizerError, match="no codec checkpoint at 'runs/other/final'"):
        load("runs/other/final")
    assert len(asked) == 3, "a path is not looked for on the hub"
