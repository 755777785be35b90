"""Every program loads models of transformers in one way: no code unasked, pinned revisions, no hostile sizes."""

from __future__ import annotations

import copy
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from json_files import read_json
from omegaconf import OmegaConf
from tiny_llama import LLAMA
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    HubertConfig,
    HubertModel,
    LlamaConfig,
    LlamaForCausalLM,
    dynamic_module_utils,
)

from codec.interface import TokenizerError
from codec.load import load_codec
from codec.model import ALMTokenizer, ALMTokenizerConfig
from codec.network.audio_encoders import load_encoder
from codec.objectives.hearing import Listener
from eval.comparison.budget import flops_per_position
from eval.harness.networks import NetworkError, describe_network, load_network, load_part
from lm.model import ModelError, load_weights
from lm.sequences.text_tokenizer import TextTokenizerError, load_text_tokenizer
from training import pretrained
from training.config import REPOSITORY, ConfigError, compose
from training.pretrained import OwnCode, PretrainedError, check_finite, load_model, pinned

CPU = torch.device("cpu")
SMALL = {"vocab_size": 50, **LLAMA}
CODE = """
import pathlib
pathlib.Path({ran!r}).touch()
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
class OwnConfig(PretrainedConfig):
    model_type = "own"
class OwnModel(PreTrainedModel):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizer):
    pass
"""


def flops(path: Path) -> float:
    lm = OmegaConf.merge(compose("lm_train", ["lm=qwen-0.5b"]).lm, {"pretrained": str(path)})
    return flops_per_position(lm, (8, 8), 64)


# what → (how it loads, what it raises)
LOADERS: dict[str, tuple[Callable[[Path], Any], type[BaseException]]] = {
    "language model": (lambda path: load_weights(path), ModelError),
    "text tokenizer": (lambda path: load_text_tokenizer(path), TextTokenizerError),
    "encoder of the prior": (lambda path: load_encoder(str(path), 0, CPU), ConfigError),
    "listener of a training": (lambda path: Listener(str(path), 1, 16_000), ConfigError),
    "network of an evaluation": (lambda path: load_network(AutoModel, str(path), what="ssl"), NetworkError),
    "its extractor": (lambda path: load_part(AutoFeatureExtractor, str(path), "ssl"), NetworkError),
    "its tokenizer": (lambda path: load_part(AutoTokenizer, str(path), "clap"), NetworkError),
    "budget of a comparison": (flops, ConfigError),
    "codec": (lambda path: load_codec(path), TokenizerError),
}


def own_code(folder: Path) -> Path:
    """A model with code of its own; the file that the code would make."""
    folder.mkdir()
    ran = folder.parent / "ran"
    (folder / "own.py").write_text(CODE.format(ran=str(ran)))
    places = {"AutoConfig": "own.OwnConfig"}
    places |= {name: "own.OwnModel" for name in ("AutoModel", "AutoModelForCausalLM")}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": places}))
    tokenizer = {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}, "tokenizer_class": "OwnTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    extractor = {"auto_map": {"AutoFeatureExtractor": "own.OwnConfig"}, "feature_extractor_type": "OwnConfig"}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    (folder / "model.safetensors").write_bytes(b"")
    return ran


def told(error: pytest.ExceptionInfo[BaseException], capsys: pytest.CaptureFixture) -> str:
    """The one sentence of a refusal."""
    said = capsys.readouterr().err.removeprefix("error: ") if isinstance(error.value, SystemExit) else str(error.value)
    (line,) = [line for line in said.strip().splitlines() if "it/s]" not in line]
    return line


@pytest.mark.parametrize("what", LOADERS)
def test_code_of_a_model_is_never_run_unasked(what, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    ran = own_code(tmp_path / "own")
    load_it, kind = LOADERS[what]
    with pytest.raises(kind) as error:
        load_it(tmp_path / "own")
    said = told(error, capsys)
    assert "own" in said and "please pass" not in said.lower() and "[y/N]" not in said
    if what not in ("listener of a training", "codec"):  # these take one kind of model only
        assert "brings Python code of its own, which is not run unasked" in said
    assert not ran.exists()


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize("place", ["/no/such/folder", "runs/no/such", "../elsewhere"])
def test_what_is_not_there_is_one_sentence(what, place, capsys):
    load_it, kind = LOADERS[what]
    with pytest.raises(kind) as error:
        load_it(Path(place))
    assert place in told(error, capsys)


def save_llama(folder: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(folder)


def save_hubert(folder: Path) -> None:
    sizes = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    HubertModel(HubertConfig(**config, **sizes)).save_pretrained(folder)


def save_codec(folder: Path) -> None:
    sizes = {"encoder_dim": 16, "decoder_dim": 16, "encoder_layers": 1, "decoder_layers": 1, "head_dim": 8}
    ALMTokenizer(ALMTokenizerConfig(**sizes, code_dim=4, codebook_sizes=(8, 8))).save_pretrained(folder)


HOSTILE: dict[str, list[Any]] = {
    "num_hidden_layers": [100_000, 10**30, "many", 1.5, -3, None, [2]],
    "hidden_size": [10**7, 10**12, "big", -4, True, float("nan")],
    "vocab_size": [10**8, "x"],
    "num_labels": [10**7],
    "num_attention_heads": [0, -1],
    "num_key_value_heads": [0],
}
HOSTILE_CODEC: dict[str, list[Any]] = {
    "encoder_layers": [100_000, "many", 1.5, -3, None],
    "decoder_dim": [10**7, 999_936, "big", True, float("nan")],
    "codebook_sizes": [[10**9], [8, "x"], 5, [8] * 100_000],
    "synthesis_fft": [10**9],
    "codebook_decay": ["much", float("inf")],
    "hop": [10**9, 0],
}
CASES = [("llama", key, value) for key, values in HOSTILE.items() for value in values]
CASES.append(("llama", "num_hidden_layers", 1))  # half of the model
CASES += [("hubert", key, value) for key, values in HOSTILE.items() for value in values if key != "vocab_size"]
for name in ("codec", "encoder of the prior"):
    CASES += [(name, key, value) for key, values in HOSTILE_CODEC.items() for value in values]
CASES.remove(("encoder of the prior", "decoder_dim", 999_936))  # it makes no decoder, and takes no memory for one
SAVED = {
    "llama": (save_llama, load_weights, ModelError),
    "hubert": (save_hubert, lambda path: load_network(AutoModel, str(path), what="ssl"), NetworkError),
    "codec": (save_codec, *LOADERS["codec"]),
    "encoder of the prior": (save_codec, *LOADERS["encoder of the prior"]),
}


@pytest.fixture(scope="module", params=SAVED)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    SAVED[request.param][0](folder)
    return request.param, folder, read_json(folder / "config.json")


@pytest.mark.slow
def test_sizes_that_no_model_has_are_refused_before_memory_is_taken(saved, capsys):
    name, folder, good = saved
    _, load_it, kind = SAVED[name]
    load_it(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for other, key, value in CASES:
        if other == name:
            (folder / "config.json").write_text(json.dumps({**good, key: value}))
            with pytest.raises(kind) as error:
                load_it(folder)
            said = told(error, capsys)
            assert len(said) < 600, (key, value, said)
            assert "random" not in said, (key, value, said)  # it was built
    (folder / "config.json").write_text(json.dumps(good))
    load_it(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\u0000"])
def test_a_damaged_description_is_one_sentence(saved, text, capsys):
    name, folder, good = saved
    (folder / "config.json").write_text(text)
    with pytest.raises(SAVED[name][2]) as error:
        SAVED[name][1](folder)
    assert str(folder) in told(error, capsys)
    (folder / "config.json").write_text(json.dumps(good))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the model acme/words; what was asked of it."""
    save_llama(tmp_path / "copy")
    asked: list[tuple[str, str | None]] = []

    def cached_file(name: str, file: str, revision: str | None = None) -> str:
        asked.append((name, revision))
        if not (tmp_path / "copy" / file).is_file():
            raise OSError(f"{name} has no file {file}")
        return str(tmp_path / "copy" / file)

    real = AutoModelForCausalLM.from_pretrained.__func__
    config = pretrained.AutoConfig.from_pretrained

    def load_config(name: str, revision: str | None = None, **options: Any) -> Any:
        found = config(tmp_path / "copy", **options)
        if not isinstance(found, tuple):  # ours, not transformers' own
            asked.append((name, revision))
            found._commit_hash = "c" * 40
        return found

    def load_weights_(cls: Any, name: str, revision: str | None = None, **options: Any) -> Any:
        asked.append((name, revision))
        return real(cls, tmp_path / "copy", **options)

    monkeypatch.setattr(pretrained, "cached_file", cached_file)
    monkeypatch.setattr(pretrained.AutoConfig, "from_pretrained", load_config)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", classmethod(load_weights_))
    return asked


def test_a_revision_is_pinned_and_recorded(hub):
    model, _ = load_model(AutoModelForCausalLM, "acme/words@v1.2")
    assert hub and set(hub) == {("acme/words", "v1.2")}
    assert model.revision == "c" * 40
    record = describe_network("acme/words@v1.2", model)
    assert (record["id"], record["revision"]) == ("acme/words", "c" * 40)
    hub.clear()
    load_model(AutoModelForCausalLM, "acme/words")
    assert set(hub) == {("acme/words", None)}


@pytest.mark.parametrize("path", ["acme/words", "acme/words@main", f"acme/words@{'a' * 39}"])
def test_trusted_code_of_the_hub_is_pinned_to_a_commit(hub, path):
    with pytest.raises(PretrainedError, match="pin the commit that you have read, as acme/words@COMMIT"):
        load_model(AutoModelForCausalLM, path, trusted=True)
    assert not hub  # nothing was fetched
    load_model(AutoModelForCausalLM, f"acme/words@{'a' * 40}", trusted=True)


def test_trusted_code_of_another_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    own_code(tmp_path / "own")
    said = read_json(tmp_path / "own/config.json")
    said["auto_map"]["AutoModelForCausalLM"] = "other/place--own.OwnModel"
    (tmp_path / "own/config.json").write_text(json.dumps(said))
    with pytest.raises(PretrainedError, match="runs code of another repository"):
        load_model(AutoModelForCausalLM, tmp_path / "own", trusted=True)


def test_what_is_a_folder_and_what_is_pinned(tmp_path):
    (tmp_path / "a@b").mkdir()
    assert pinned(tmp_path / "a@b") == (str(tmp_path / "a@b"), None)
    assert pinned("acme/words@v1") == ("acme/words", "v1") and pinned("gpt2") == ("gpt2", None)
    for wrong in ("acme/words@", "@v1", "a/b/c", "/a", "~/x"):
        with pytest.raises(PretrainedError):
            pinned(wrong)
    assert issubclass(OwnCode, PretrainedError)


def test_nothing_else_loads_a_model_of_transformers():
    """Another way would ask, run or trust what this one does not."""
    # the second is the codec's own method of that name, the third says it in the words of a card
    here = {"training/pretrained.py", "codec/model.py", "lm/hub.py"}
    files = [
        f for top in ("codec", "eval", "lm", "scripts", "tasks", "training") for f in (REPOSITORY / top).rglob("*.py")
    ]
    found = {f.relative_to(REPOSITORY).as_posix() for f in files if ".from_pretrained(" in f.read_text("utf-8")}
    assert found <= here


def test_nobody_takes_weights_that_are_not_finite():
    """Those of judges and baselines; a training's own checkpoints have a checksum, the corpus classifier has a hash."""
    files = [f for top in ("codec/baselines", "eval") for f in (REPOSITORY / top).rglob("*.py")]
    texts = {f.name: f.read_text("utf-8") for f in files if ".load_state_dict(" in f.read_text("utf-8")}
    assert {name for name, text in texts.items() if "check_finite(" not in text} == {"corpus_classifier.py"}
    shape = torch.nn.BatchNorm1d(3)
    check_finite(shape, "here")
    for part in ("weight", "running_mean"):
        spoilt = copy.deepcopy(shape)
        getattr(spoilt, part).data[1] = float("inf")
        with pytest.raises(
            PretrainedError, match=f"'here' cannot be used: {part} holds values that are NaN or infinite"
        ):
            check_finite(spoilt, "here")
