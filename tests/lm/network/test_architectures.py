"""Loss and generation are the model's own, whatever it does to its logits, or the model is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_llama import LLAMA
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from lm.generation.decoding import Engine
from lm.generation.frames import generate
from lm.generation.sampling import Sampling
from lm.generation.writing import write
from lm.model import ModelError, build_lm, load_lm, save_lm
from lm.network.attention import NAME, set_attention
from lm.network.head import Head, HeadForm, head_form
from lm.network.objective import Objective, linear_cross_entropy
from lm.sequences.document_set import render_documents
from lm.sequences.packing import IGNORE, pack_rows
from lm.sequences.vocabulary import AudioVocabulary
from tasks.tts import TTS

SMALL = {**LLAMA, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": 0.3, "pad_token_id": 0}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
# model type → what it needs besides, and the form of its head
GOOD: dict[str, tuple[dict[str, Any], HeadForm]] = {
    "llama": ({"tie_word_embeddings": True}, HeadForm()),
    "qwen2": ({}, HeadForm()),
    "qwen3": ({}, HeadForm()),
    "mistral": ({"sliding_window": 8}, HeadForm()),
    "smollm3": ({}, HeadForm()),
    "olmo2": ({}, HeadForm()),
    "phi3": ({}, HeadForm()),
    "granite": ({"logits_scaling": 8.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}, HeadForm(1 / 8)),
    "cohere": ({"logit_scale": 0.0625}, HeadForm(0.0625)),
    "gemma2": ({"final_logit_softcapping": 5.0, "sliding_window": 8}, HeadForm(cap=5.0)),
    "gemma3_text": ({"sliding_window": 8}, HeadForm()),
    "nanochat": ({}, HeadForm(cap=15.0)),
    "phi": ({}, HeadForm()),
    "gptj": ({**GPT, "rotary_dim": 8}, HeadForm()),
    "gpt_neox": ({}, HeadForm()),
    "gpt2": (GPT, HeadForm()),
    "persimmon": ({}, HeadForm()),
    "mixtral": ({}, HeadForm()),
}
REFUSED = {
    "bloom": ({"n_layer": 2, "n_head": 2}, "packed documents read each other"),
    "mamba": ({"state_size": 4}, "packed documents read each other"),
    "recurrent_gemma": ({}, "packed documents read each other"),
    "opt": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, "packed documents read each other"),
    "bert": ({"is_decoder": True}, "packed documents read each other"),
    "llama": ({"rms_norm_eps": -9.0}, "values that are not finite: its weights are damaged"),
}


def made(kind: str, options: dict[str, Any], rows: int) -> Any:
    """A random model with lively weights, biases included."""
    torch.manual_seed(0)
    small = {
        key: value
        for key, value in SMALL.items()
        if not options.keys() & GPT.keys() or key not in ("head_dim", "max_position_embeddings")
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=rows, **{**small, **options})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model


@pytest.fixture
def packed(rows, text_tokenizer, vocabulary):
    """Ids, positions and targets of two rows with two documents each."""
    documents = render_documents(rows[:4], TTS(), vocabulary, text_tokenizer, 96)
    found = pack_rows([[documents[0], documents[1]], [documents[2], documents[3]]], 96, vocabulary.control_id("<pad>"))
    return found.tensors()


def own_losses(model: Any, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Losses by ``model(...).logits`` of each document by itself, in the order of the targets."""
    losses = []
    for row in range(len(ids)):
        starts = [*(positions[row] == 0).nonzero()[:, 0].tolist(), ids.shape[1]]
        for start, stop in zip(starts, starts[1:], strict=False):
            logits = model(input_ids=ids[row : row + 1, start:stop], use_cache=False).logits[0]
            wanted = targets[row, start:stop]
            losses.append(functional.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="none")[wanted >= 0])
    return torch.cat(losses)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
def test_the_loss_is_the_models_own(kind, vocabulary, packed, monkeypatch):
    monkeypatch.setattr("lm.network.objective.CHUNK", 20)
    options, form = GOOD[kind]
    model = made(kind, options, vocabulary.size)
    assert head_form(model) == form
    losses = own_losses(model, *packed)
    losses.sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for head in ("chunked", "plain"):
        for attention in ("sdpa", NAME):
            set_attention(model, attention)
            model.zero_grad()
            parts = Objective(model, vocabulary, head=head)(*packed)
            parts.total.backward()
            torch.testing.assert_close(parts.per_target, losses.detach(), rtol=1e-4, atol=1e-3)
            for name, parameter in model.named_parameters():
                if name in expected:
                    scale = float(expected[name].abs().max())
                    torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * scale, msg=name)


def greedy(model: Any, prompt: list[int], legal: Callable[[int], list[int]], end: int, limit: int) -> list[int]:
    """Ids by ``model(...).logits`` of the whole text so far, step by step, up to ``end``."""
    ids: list[int] = []
    while len(ids) < limit:
        logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1]
        rows = legal(len(ids))
        chosen = rows[int(logits[rows].argmax())]
        if chosen == end:
            break
        ids.append(chosen)
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
@torch.no_grad()
def test_generation_and_writing_are_the_models_own(kind, vocabulary, text_tokenizer, prompts):
    model = made(kind, GOOD[kind][0], vocabulary.size)
    prompts = [prompt.tolist() for prompt in prompts[::3]]
    end = vocabulary.control_id("</audio>")

    def legal(position: int) -> list[int]:
        level = position % vocabulary.levels
        return [*([end] if level == 0 and position else []), *vocabulary.block(level)]

    clips = generate(model, vocabulary, prompts, 6, sampling=Sampling(temperature=0.0))
    for prompt, clip in zip(prompts, clips, strict=True):
        ids = greedy(model, prompt, legal, end, 6 * vocabulary.levels)
        assert vocabulary.ids_to_codes(torch.tensor(ids).view(-1, vocabulary.levels).numpy()).tolist() == (
            clip.codes.tolist()
        )
    written = [[*prompt[:-1], vocabulary.control_id("<text>")] for prompt in prompts]
    special, stop = set(text_tokenizer.all_special_ids), vocabulary.control_id("</text>")
    text = [*(i for i in range(vocabulary.text_size) if i not in special), stop]
    for prompt, found in zip(written, write(model, vocabulary, text_tokenizer, written, 8), strict=True):
        assert found.ids == greedy(model, prompt, lambda _: text, stop, 8)


@pytest.mark.parametrize("kind", ["granite", "gemma2", "phi"])
def test_the_legal_loss_of_a_bent_head_is_over_the_legal_rows(kind, vocabulary, packed):
    model = made(kind, GOOD[kind][0], vocabulary.size)
    ids, positions, targets = packed
    targets = torch.where(torch.from_numpy(vocabulary.levels_of(targets.numpy())) == 1, targets, IGNORE)
    losses = []
    for row in range(len(ids)):
        logits = model(input_ids=ids[row : row + 1], position_ids=positions[row : row + 1], use_cache=False).logits[0]
        wanted, block = targets[row], vocabulary.block(1)
        learnt = wanted >= 0
        losses.append(
            functional.cross_entropy(
                logits[learnt, block.start : block.stop], wanted[learnt] - block.start, reduction="none"
            )
        )
    found = Objective(model, vocabulary, legal_only=True)(ids, positions, targets)
    torch.testing.assert_close(found.per_target, torch.cat(losses).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_the_models_own_is_refused(kind, vocabulary, text_tokenizer, tmp_path):
    options, reason = REFUSED[kind]
    model = made(kind, options, vocabulary.size)
    with pytest.raises(ModelError, match=reason):
        Objective(model, vocabulary)
    save_lm(tmp_path, model, vocabulary, text_tokenizer)
    with pytest.raises(ModelError, match=f"'{tmp_path}' cannot be used here: .*{reason}"):
        load_lm(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["granite", "gemma2", "phi", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("variant", ["flat", "depth"])
def test_a_text_model_of_any_kind_is_extended_saved_and_loaded(
    kind, variant, vocabulary, text_tokenizer, packed, tmp_path, tiny_lm_config
):
    made(kind, GOOD[kind][0], vocabulary.text_size).save_pretrained(tmp_path / "text")
    cfg = tiny_lm_config
    cfg.pretrained, cfg.variant = str(tmp_path / "text"), variant
    cfg.depth = {key: value for key, value in SMALL.items() if key not in ("max_position_embeddings", "pad_token_id")}
    of_variant = dataclasses.replace(vocabulary, pattern="one_frame_delay") if variant == "depth" else vocabulary
    model = build_lm(cfg, of_variant, seed=0).eval()
    assert head_form(model) == GOOD[kind][1]
    save_lm(tmp_path / "lm", model, of_variant, text_tokenizer)
    again, _, _ = load_lm(tmp_path / "lm")
    prompt = [*range(5, 12), of_variant.control_id("<audio>")]
    first, second = (generate(m, of_variant, [prompt], 5, seeds=[3])[0].codes.tolist() for m in (model, again))
    assert first == second and first
    if variant == "flat":
        torch.testing.assert_close(
            Objective(again, of_variant)(*packed).per_target, own_losses(model, *packed).detach(), rtol=1e-4, atol=1e-3
        )


class Bent(LlamaForCausalLM):
    """A head that is none of the forms."""

    def forward(self, *args: Any, **options: Any) -> Any:
        found = super().forward(*args, **options)
        found.logits = found.logits.abs().sqrt()
        return found


def test_a_head_of_another_form_is_refused(model, vocabulary):
    with pytest.raises(ModelError, match="Bent makes its logits by more than a product, a bias, a scale and a cap"):
        Objective(Bent(model.config), vocabulary)


def test_torchs_own_head_refuses_what_it_cannot_make(vocabulary):
    for kind in ("granite", "gemma2", "phi"):
        with pytest.raises(ModelError, match="trainer.head=torch knows no bias, scale or cap"):
            Objective(made(kind, GOOD[kind][0], vocabulary.size), vocabulary, head="torch")


def test_a_table_of_positions_is_not_left(vocabulary, text_tokenizer):
    model = made("gpt2", {**GPT, "n_positions": 24}, vocabulary.size)
    prompt = [*range(5, 12), vocabulary.control_id("<audio>")]
    for engine in (Engine(), Engine("static")):
        with pytest.raises(ModelError, match="GPT2LMHeadModel has 24 positions, and a prompt of 8 with up to"):
            generate(model, vocabulary, [prompt], 20, engine=engine)
        # a long prompt with a short answer and a short one with a long answer fit, though their sides do not
        fitting = [[*range(5, 18), prompt[-1]], prompt[-3:]], [1, 4]
        assert [
            clip.n_frames <= most
            for clip, most in zip(generate(model, vocabulary, *fitting, engine=engine), fitting[1], strict=True)
        ] == [True, True]


@pytest.mark.parametrize("form", [HeadForm(), HeadForm(0.5, 20.0)])
def test_the_chunked_head_casts_the_weight_once(vocabulary: AudioVocabulary, form, monkeypatch):
    """Under autocast each product would cast it again, in each chunk, forward and for the gradient."""

    monkeypatch.setattr("lm.network.objective.CHUNK", 4)
    weight = torch.randn(vocabulary.size, 16, requires_grad=True)
    hidden = torch.randn(32, 16, requires_grad=True)  # 8 chunks

    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if function is torch.ops.aten._to_copy.default and found.dtype is torch.bfloat16:
                self.count += found.shape in (weight.shape, weight.T.shape)
            return found

    targets, shares = torch.arange(32), torch.ones(32)
    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        total, _, _ = linear_cross_entropy(hidden, Head(weight, None, form), targets, shares)
        total.backward()
    assert casts.count == 1
    assert weight.grad is not None and weight.grad.dtype == hidden.grad.dtype == torch.float32
