"""What a training cannot begin with is refused in one sentence before any data are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import records, train_lm
from transformers import AutoConfig, AutoModelForCausalLM

from lm.model import ModelError
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.train import train
from training.config import ConfigError, compose

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 500}


@pytest.fixture(scope="module")
def models(tmp_path_factory, text_tokenizer) -> Path:
    """Text models: gpt2 with a text tokenizer, and bare, the same without."""
    folder = tmp_path_factory.mktemp("models")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **GPT))
    for name in ("gpt2", "bare"):
        model.save_pretrained(folder / name)
    text_tokenizer.save_pretrained(folder / "gpt2")
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        (["lm.pretrained={}/absent"], ModelError, "there is no folder '{}/absent'"),
        (["lm.pretrained={}/bare"], TextTokenizerError, "no text tokenizer: '{}/bare'"),
        (["lm.pretrained={}/gpt2"], ConfigError, "trainer.row_length=96 is more than the 64 positions of {}/gpt2."),
        (
            ["lm.pretrained={}/gpt2", "trainer.row_length=64", "tuning.method=lora"],
            ModelError,
            "has no linear layer q_proj or k_proj or v_proj or o_proj or gate_proj or up_proj or down_proj; choose "
            "from c_attn, c_fc, c_proj.",
        ),
        (["init={}/absent"], ModelError, "no language model at '{}/absent'"),
        (["lm.config.max_position_embeddings=64"], ConfigError, "positions of lm.config.max_position_embeddings."),
        (["lm.config.hidden_size=0"], ModelError, "no LLaMA can be made of lm.config="),
        (["lm.config.hidden_size=-8"], ModelError, "no LLaMA can be made of lm.config="),
        (["lm.config.num_attention_heads=0"], ModelError, "no LLaMA can be made of lm.config="),
        (["lm.config.num_attention_heads=3"], ModelError, "no LLaMA can be made of lm.config="),
        (["lm.config.num_hidden_layers=100000"], ModelError, "num_hidden_layers=100000"),
        (
            ["lm.variant=depth", "lm.depth.num_attention_heads=0"],
            ModelError,
            "no LLaMA can be made of lm.depth=",
        ),
    ],
)
def test_it_is_refused_before_any_work(models, overrides, monkeypatch, tmp_path, capsys, changes, kind, reason):
    monkeypatch.setattr("lm.train.find_token_rows", lambda *_: pytest.fail("data were read"))
    changes = [change.replace("{}", str(models)) for change in changes]
    cfg = compose("lm_train", [*overrides, *changes])
    with pytest.raises(kind) as error:
        train(cfg)
    said = capsys.readouterr().err if kind is ConfigError else str(error.value)
    assert reason.replace("{}", str(models)) in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("checkpoints"))


@pytest.mark.slow
def test_gpt2_is_extended_and_trained(models, overrides):
    """A model of another family, by adapters on its own layers, which are told nothing of the optimiser."""
    options = [option for option in overrides if "optimiser" not in option]
    lora = [f"lm.pretrained={models}/gpt2", "trainer.row_length=64", "tuning=lora", "tuning.targets=[c_attn]"]
    curves = {}
    for kept in ("false", "true"):
        more = ["trainer.max_steps=3", "tuning.warmup_new_rows=1", f"trainer.gradient_checkpointing={kept}"]
        final = train_lm(*options, *lora, *more, f"name=checkpointing-{kept}")
        assert (final / "model.safetensors").is_file()
        curves[kept] = [line["grad_norm"] for line in records(final.parent) if "grad_norm" in line]
    assert curves["true"] == pytest.approx(curves["false"], rel=1e-4), "frozen layers pass gradients on, either way"
