"""Text from the model: greedy, text only, the same alone and in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lm.generation.writing import write
from tasks.asr import ASR


@pytest.fixture
def prompts(rows, ask):
    return ask(rows[:6], ASR())


def by_hand(model, vocabulary, tokenizer, prompt, limit):
    """The same without cache, padding and batch."""
    end, ids = vocabulary.control_id("</text>"), []
    legal = torch.full((vocabulary.size,), -torch.inf)
    legal[: vocabulary.text_size] = 0
    legal[tokenizer.all_special_ids] = -torch.inf
    legal[end] = 0
    while True:
        whole = torch.tensor([[*prompt.tolist(), *ids]])
        with torch.no_grad():
            logits = model(input_ids=whole, use_cache=False).logits[0, -1]
        best = int((logits + legal).argmax())
        if best == end or len(ids) == limit:
            return ids, best == end
        ids.append(best)


def test_equals_a_loop_without_cache_in_any_batch(lively_model, vocabulary, text_tokenizer, prompts):
    end = vocabulary.control_id("</text>")
    with torch.no_grad():  # tied rows: the end is drawn at different places
        lively_model.get_output_embeddings().weight[end] *= 2.5
    expected = [by_hand(lively_model, vocabulary, text_tokenizer, prompt, 15) for prompt in prompts]
    for size in (1, 4, 64):
        found = write(lively_model, vocabulary, text_tokenizer, prompts, max_tokens=15, batch_size=size)
        assert [(text.ids, text.ended) for text in found] == expected
        assert [text.text for text in found] == [text_tokenizer.decode(text.ids) for text in found]
    assert all(max(ids, default=0) < vocabulary.text_size for ids, _ in expected)
    assert all(text.log_probability <= 0 for text in found)


def test_a_prompt_that_opens_no_text_is_refused(lively_model, vocabulary, text_tokenizer, prompts):
    with pytest.raises(ValueError, match="prompt 0 does not end in <text>"):
        write(lively_model, vocabulary, text_tokenizer, [np.array([1, 2])])
