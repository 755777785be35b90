"""The saved model is a stock one; extension keeps text rows; mixed-up folders are refused."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_llama import LLAMA
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm.model import ModelError, build_lm, load_lm, parameter_groups, save_lm
from lm.sequences.vocabulary import FILE_NAME, AudioVocabulary, VocabularyError


@pytest.fixture
def folder(model, vocabulary, text_tokenizer, tmp_path):
    save_lm(tmp_path / "lm", model, vocabulary, text_tokenizer)
    return tmp_path / "lm"


def test_stock_transformers_reload_gives_equal_logits(model, vocabulary, text_tokenizer, folder):
    ids = torch.randint(0, vocabulary.used, (2, 20))
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(stock) is LlamaForCausalLM
    assert stock.config.vocab_size == vocabulary.size == len(stock.get_input_embeddings().weight)
    loaded, described, _ = load_lm(folder)
    assert described == vocabulary and not loaded.training
    with torch.no_grad():
        assert torch.equal(stock(ids).logits, model.eval()(ids).logits)
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    again = AutoTokenizer.from_pretrained(folder)
    assert (
        again("anna found", add_special_tokens=False)["input_ids"]
        == (text_tokenizer("anna found", add_special_tokens=False)["input_ids"])
    )


def test_the_same_seed_builds_the_same_model(vocabulary, tiny_lm_config):
    first, second = (build_lm(tiny_lm_config, vocabulary, seed=5) for _ in range(2))
    assert torch.equal(first.get_input_embeddings().weight, second.get_input_embeddings().weight)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("init", ["normal", "mean"])
def test_extension_keeps_text_rows_and_gives_new_rows_their_size(tmp_path, vocabulary, tied, init):
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary.text_size + 7,  # rows beyond the tokenizer, as many checkpoints have
            **LLAMA,
            tie_word_embeddings=tied,
            initializer_range=0.3,
        )
    )
    base.save_pretrained(tmp_path)
    cfg = OmegaConf.create({"pretrained": str(tmp_path), "init_rows": init, "config": {}})
    extended = build_lm(cfg, vocabulary, seed=0)
    size = vocabulary.text_size
    for table, old in (
        (extended.get_input_embeddings().weight, base.get_input_embeddings().weight),
        (extended.get_output_embeddings().weight, base.get_output_embeddings().weight),
    ):
        assert len(table) == vocabulary.size
        assert torch.equal(table[:size], old[:size])
        new = table[size : vocabulary.used].detach()
        ratio = new.pow(2).mean().sqrt() / old[:size].detach().pow(2).mean().sqrt()
        assert 0.4 < ratio < 2
        unit = torch.nn.functional.normalize(new, dim=1)
        cosine = (unit @ unit.T).fill_diagonal_(0)
        assert cosine.mean() < 0.5 and cosine.max() < 0.99  # not born as one point
    assert (extended.get_input_embeddings().weight is extended.get_output_embeddings().weight) == tied


def test_no_decay_on_embeddings_and_norms(model):
    decayed, kept = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("proj" in names[id(p)] for p in decayed["params"])
    assert all("norm" in names[id(p)] or "embed" in names[id(p)] for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_a_folder_of_two_trainings_is_refused(folder, vocabulary):
    AudioVocabulary(vocabulary.text_size, (300, 300), vocabulary.tokenizer).save(folder)
    with pytest.raises(VocabularyError, match="two different trainings"):
        load_lm(folder)


def test_missing_truncated_and_foreign_folders_are_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="no language model"):
        load_lm(tmp_path / "nothing")
    run = tmp_path / "run"
    (run / "final").mkdir(parents=True)
    (run / "final/config.json").write_text("{}")
    with pytest.raises(ModelError, match="is the folder of a run: its model is in '.*run/final'"):
        load_lm(run)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="the weights in .* cannot be loaded"):
        load_lm(folder)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / FILE_NAME).unlink()
    with pytest.raises(VocabularyError, match=FILE_NAME):
        load_lm(bare)


def test_weights_that_are_missing_are_not_drawn_at_random(folder, tmp_path, vocabulary, tiny_lm_config, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no values for 1 weights of LlamaForCausalLM \(model.layers.0.mlp.up"):
        load_lm(copy)
    assert "MISSING" not in capsys.readouterr().err
    with pytest.raises(ModelError, match="has no values for 1 weights"):
        build_lm(OmegaConf.create({"pretrained": str(copy), "init_rows": "normal"}), vocabulary, seed=0)


def test_the_export_ends_where_audio_and_texts_end(vocabulary, text_tokenizer, tmp_path, tiny_lm_config):
    """Serving elsewhere reads these numbers: the text model's own would never come, or come as a code."""
    for pattern, end in (("flat", "</audio>"), ("delay", "<pad>")):  # delayed levels follow </audio>
        of_pattern = dataclasses.replace(vocabulary, pattern=pattern)
        save_lm(tmp_path / pattern, build_lm(tiny_lm_config, of_pattern, 0), of_pattern, text_tokenizer)
        stock = AutoModelForCausalLM.from_pretrained(tmp_path / pattern)
        ends = [vocabulary.control_id(end), vocabulary.control_id("</text>")]
        assert stock.config.eos_token_id == ends[0] and stock.generation_config.eos_token_id == ends
        assert stock.config.bos_token_id is None
        assert stock.config.pad_token_id == vocabulary.control_id("<pad>")
        assert stock.config.vocab_size == vocabulary.size == len(stock.get_input_embeddings().weight)
        assert load_lm(tmp_path / pattern)[1].pattern == pattern
