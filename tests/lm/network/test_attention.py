"""Attention by document gives the numbers of the masked row, and steps aside where there is no packed row."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from lm.network.attention import NAME, attention_of, document_lengths, set_attention

LENGTHS = [[5, 9, 1, 3, 6], [24], [12, 12]]
POSITIONS = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def small():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=2, initializer_range=0.3, **SMALL))


def test_documents_follow_from_the_positions():
    assert document_lengths(POSITIONS) == LENGTHS


def test_loss_and_gradient_are_those_of_the_masked_row_when_layers_run_twice():
    model = small().train()
    model.gradient_checkpointing_enable()
    ids = torch.randint(50, (3, 24), generator=torch.Generator().manual_seed(1))
    results = {}
    for name in ("sdpa", NAME):
        assert set_attention(model, name)
        model.zero_grad()
        out = model(input_ids=ids, position_ids=POSITIONS, use_cache=False).logits
        out.logsumexp(-1).sum().backward()
        results[name] = [out.detach(), *(p.grad.clone() for p in model.parameters())]
    for ours, theirs in zip(results[NAME], results["sdpa"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


class LargestMask(TorchDispatchMode):
    """Elements of the largest boolean tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.bool:
            self.largest = max(self.largest, result.numel())
        return result


def test_no_mask_over_the_row_is_made():
    model = small()
    ids = torch.zeros(3, 24, dtype=torch.long)
    for name, expected in (("sdpa", 3 * 24 * 24), (NAME, 3 * 24)):
        set_attention(model, name)
        with LargestMask() as seen:
            model(input_ids=ids, position_ids=POSITIONS, use_cache=False)
        assert seen.largest == expected, name


def test_generation_and_padded_batches_are_as_before():
    model = small().eval()
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    results = []
    for name in ("sdpa", NAME):
        set_attention(model, name)
        plain = model(input_ids=ids).logits
        padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 3:]
        written = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
        results.append((plain, padded, written))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_choice_is_not_saved_with_the_model(tmp_path):
    model = small()
    set_attention(model, NAME)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


def test_a_sliding_window_keeps_its_own_attention():
    config = MistralConfig(vocab_size=50, num_key_value_heads=2, sliding_window=4, **SMALL)
    assert not set_attention(MistralForCausalLM(config), NAME)


def test_the_automatic_choice():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention_of("auto", cpu, compiled=False) == NAME
    assert attention_of("auto", cpu, compiled=True) == attention_of("auto", gpu, compiled=False) == "sdpa"
    assert attention_of("eager", cpu, compiled=False) == "eager"
