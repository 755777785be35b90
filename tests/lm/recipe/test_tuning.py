"""LoRA and new rows: what learns, what stands still, and that the merged model is stock."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from programs import records, train_lm
from tiny_llama import LLAMA
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lm.generation.frames import generate
from lm.model import ModelError, build_lm, load_lm, parameter_groups, save_lm
from lm.network.objective import Objective
from lm.recipe.tuning import add_lora, freeze_all_but_new_rows, merged
from lm.sequences.packing import pack_rows
from lm.sequences.vocabulary import AudioVocabulary
from training.config import compose

TUNING = OmegaConf.create(
    {
        "method": "lora",
        "rank": 8,
        "alpha": 16,
        "dropout": 0.0,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "warmup_new_rows": 0,
    }
)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request, vocabulary, text_tokenizer, tmp_path):
    """A folder with a text model."""
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary.text_size, **LLAMA}
    config = LlamaConfig(**sizes, tie_word_embeddings=request.param, initializer_range=0.1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text")
    text_tokenizer.save_pretrained(tmp_path / "text")
    return tmp_path / "text", request.param


def extended(folder, vocabulary, init="normal", vectors=None):
    cfg = OmegaConf.create({"pretrained": str(folder), "init_rows": init, "config": {}})
    return build_lm(cfg, vocabulary, seed=0, code_vectors=vectors)


def memorise(model, vocabulary, steps=60):
    """Loss of three clips of random codes after ``steps``, in shares of ln V over all rows."""
    random = torch.Generator().manual_seed(1)
    codes = [torch.randint(0, 8, (4, 3), generator=random).numpy() for _ in range(3)]
    start, end = vocabulary.control_id("<audio>"), vocabulary.control_id("</audio>")
    documents = []
    for number, clip in enumerate(codes):
        ids = torch.tensor([number, start, *vocabulary.codes_to_ids(clip).flatten(), end]).numpy()
        documents.append((ids, torch.arange(len(ids)).numpy() > 1))
    packed = pack_rows([documents], 48, vocabulary.control_id("<pad>"))
    batch = packed.tensors()
    objective = Objective(model, vocabulary).train()
    optimiser = torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.02)
    for _ in range(steps):
        loss = objective(*batch)
        optimiser.zero_grad()
        (loss.total / loss.count.sum()).backward()
        optimiser.step()
    return float(loss.loss.sum() / loss.count.sum()) / float(torch.tensor(vocabulary.size).log())


@pytest.mark.slow
def test_new_rows_of_both_tables_learn_and_text_rows_do_not(base, vocabulary):
    folder, tied = base
    model = extended(folder, vocabulary)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = add_lora(model, TUNING, vocabulary)
    assert memorise(adapted.base_model.model, vocabulary) < 0.5
    stock = merged(adapted)
    size = vocabulary.text_size
    for table, name in (
        (stock.get_input_embeddings(), "model.embed_tokens.weight"),
        (stock.get_output_embeddings(), "lm_head.weight"),
    ):
        assert torch.equal(table.weight[:size], before[name][:size])
        changed = (table.weight[size : vocabulary.used] != before[name][size : vocabulary.used]).any(1)
        assert changed[vocabulary.block(0).start - size : vocabulary.block(0).start - size + 8].any()
        assert changed.any()
    assert (stock.get_input_embeddings().weight is stock.get_output_embeddings().weight) == tied
    assert stock.config.tie_word_embeddings == tied


@pytest.mark.slow
def test_the_merged_model_is_stock_and_says_the_same(base, vocabulary, text_tokenizer, prompts, tmp_path):
    folder, _ = base
    adapted = add_lora(extended(folder, vocabulary), TUNING, vocabulary)
    memorise(adapted.base_model.model, vocabulary, steps=5)
    adapted.eval()
    save_lm(tmp_path / "merged", merged(adapted), vocabulary, text_tokenizer)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert type(stock) is LlamaForCausalLM
    ids = torch.randint(0, vocabulary.used, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    mine, _, _ = load_lm(tmp_path / "merged")
    first, second = (generate(m, vocabulary, prompts[:1], 6)[0].codes for m in (mine, adapted.base_model.model))
    assert first.tolist() == second.tolist()


def run(folder, overrides, monkeypatch, steps=(8,)):
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for last in steps:
        train_lm(*overrides, "trainer.schedule=constant", "trainer.lr=1e-2", f"trainer.max_steps={last}")
    return {line["step"]: line["loss"] for line in records(folder / "runs/tiny") if "loss" in line}


@pytest.mark.slow
@pytest.mark.parametrize("base", [False], indirect=True)
def test_lora_is_trained_continued_and_merged_by_the_same_command(base, overrides, tmp_path, monkeypatch):
    options = [*overrides, f"lm.pretrained={base[0]}", "tuning.method=lora", "tuning.rank=4"]
    whole = run(tmp_path / "whole", options, monkeypatch)
    parts = run(tmp_path / "parts", options, monkeypatch, steps=(5, 8))
    assert whole == parts and whole[8] < whole[1]
    first, second = (load_lm(tmp_path / name / "runs/tiny/final")[0] for name in ("whole", "parts"))
    assert type(first) is LlamaForCausalLM
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["new_rows", "full"])
def test_the_warm_up_moves_new_rows_alone(base, method, overrides):
    options = [*overrides, f"lm.pretrained={base[0]}", f"tuning.method={method}", "tuning.warmup_new_rows=6"]
    final = train_lm(*options, "trainer.max_steps=6")
    model, vocabulary, _ = load_lm(final)
    text = AutoModelForCausalLM.from_pretrained(base[0]).state_dict()
    moved = 0
    for name, value in model.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(value[: vocabulary.text_size], text[name][: vocabulary.text_size])
            moved += 1
        else:
            assert torch.equal(value, text[name]), name
    assert moved
    started = build_lm(compose("lm_train", options).lm, vocabulary, 0)
    block = slice(vocabulary.block(0).start, vocabulary.block(0).stop)
    for table in ("get_input_embeddings", "get_output_embeddings"):
        assert not torch.equal(getattr(model, table)().weight[block], getattr(started, table)().weight[block])


def test_codebook_rows_keep_the_geometry_of_the_codes(base, vocabulary):
    vectors = [torch.randn(size, 8, generator=torch.Generator().manual_seed(k)) for k, size in enumerate((16, 12, 8))]
    model = extended(base[0], vocabulary, "codebook", vectors)
    table = model.get_input_embeddings().weight.detach()
    text = table[: vocabulary.text_size]
    for level in range(3):
        block = vocabulary.block(level)
        rows = table[block.start : block.stop]
        assert 0.5 < rows.pow(2).mean().sqrt() / text.pow(2).mean().sqrt() < 2
        upper = torch.triu_indices(len(rows), len(rows), 1)
        ours, theirs = (torch.cdist(a, a)[upper[0], upper[1]] for a in (rows, vectors[level]))
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.7
    with pytest.raises(ModelError, match="code vectors"):
        extended(base[0], vocabulary, "codebook")


def test_only_presets_that_exist_and_tunings_that_work_are_accepted(overrides, refusal):
    for options, words in (
        (["tuning.method=lora"], "needs trained weights"),
        (["tuning.method=half"], "unknown"),
        (["tuning.method=lora", "init=x", "trainer.optimiser=muon"], "adamw"),
    ):
        assert words in refusal(train_lm, *overrides, *options)


FROM_SCRATCH = ("muon", 2e-3, 256, 8, False)
EXTENDED = ("adamw", 5e-5, 2048, 32, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "millions", "recipe"),
    [
        (["lm=micro"], (1, 2), FROM_SCRATCH),
        (["lm=nano"], (3, 6), FROM_SCRATCH),
        (["lm=small"], (85, 125), ("muon", 6e-4, 1024, 64, False)),
        (["lm=llama-3.2-1b"], None, EXTENDED),
        (["lm=qwen-0.5b"], None, EXTENDED),
        (["tuning=lora", "lm=qwen-0.5b"], None, ("adamw", 3e-4, 2048, 32, True)),
        (["tuning=lora"], (3, 6), ("adamw", 3e-4, 256, 8, False)),
        (["lm=qwen-0.5b", "trainer.lr=1e-3"], None, ("adamw", 1e-3, 2048, 32, True)),  # what is typed goes first
    ],
)
def test_a_backbone_and_a_tuning_bring_their_recipe(chosen, millions, recipe):
    cfg, defaults = compose("lm_train", chosen), compose("lm_train", [])
    keys = ("optimiser", "lr", "row_length", "batch_rows", "gradient_checkpointing")
    assert tuple(cfg.trainer[key] for key in keys) == recipe
    assert all(set(cfg[group]) == set(defaults[group]) for group in ("lm", "trainer", "tuning"))
    assert (cfg.lm.pretrained is None) == (millions is not None)
    if millions:
        with torch.device("meta"):
            model = build_lm(cfg.lm, AudioVocabulary(cfg.lm.text_tokenizer.vocab_size, (2048,) * 3, {}), 0)
        assert millions[0] < sum(p.numel() for p in model.parameters()) / 1e6 < millions[1]


def test_new_rows_warm_up_under_lora_too(base, vocabulary):
    """Before, every gradient was dropped: nothing moved in these steps."""
    torch.manual_seed(0)
    model = extended(base[0], vocabulary)
    adapted = add_lora(model, TUNING, vocabulary).base_model.model
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    optimiser = torch.optim.AdamW(parameter_groups(adapted, 0.1), lr=0.1)
    ids = torch.randint(vocabulary.text_size, vocabulary.used, (1, 12))
    Objective(adapted, vocabulary)(ids, torch.arange(12)[None], ids.roll(-1)).total.backward()
    freeze_all_but_new_rows(adapted, vocabulary.text_size)
    optimiser.step()
    moved = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and all("trainable_tokens" in name for name in moved)


@pytest.mark.parametrize("targets", [["q_proj", "c_attn"], ["lm_head"], ["proj"], []])
def test_targets_that_are_not_there_are_refused(base, vocabulary, targets):
    """peft itself leaves out those it does not find as long as it finds one."""
    cfg = OmegaConf.merge(TUNING, {"targets": targets})
    with pytest.raises(ModelError, match=r"LlamaForCausalLM has no linear layer .*; choose from down_proj, gate_proj"):
        add_lora(extended(base[0], vocabulary), cfg, vocabulary)
