"""Generation: limits, seeds, guidance, and how tokens are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lm.generation.frames import generate
from lm.generation.sampling import Sampling, draw, draw_unlike, uniform_streams

GREEDY = Sampling(temperature=0)


def test_limits_hold_per_clip_and_the_end_is_forced_nowhere(lively_model, vocabulary, prompts):
    with torch.no_grad():  # never ends by itself
        lively_model.get_output_embeddings().weight[vocabulary.control_id("</audio>")] = 0
    clips = generate(lively_model, vocabulary, prompts, [2, 5, 3, 9], min_frames=9, sampling=Sampling(1.0, top_p=1.0))
    assert [clip.n_frames for clip in clips] == [2, 5, 3, 9]
    assert not any(clip.ended for clip in clips[:3])


def test_seeds_decide_and_nothing_else(lively_model, vocabulary, prompts):
    options = {"max_frames": 10, "sampling": Sampling(1.0, top_p=1.0)}
    first = generate(lively_model, vocabulary, [prompts[1]] * 3, seeds=[1, 1, 2], **options)
    assert (first[0].codes == first[1].codes).all()
    assert first[0].codes.shape != first[2].codes.shape or (first[0].codes != first[2].codes).any()


def test_guidance_of_one_is_off_and_zero_ignores_the_text(lively_model, vocabulary, prompts):
    def speak(asked, guidance, **options):
        sampling = Sampling(guidance=guidance, **options)
        return generate(lively_model, vocabulary, asked, 8, sampling=sampling, seeds=range(len(asked)))

    plain, near = (speak(prompts, guidance, temperature=0) for guidance in (1.0, 1.0 + 1e-6))
    assert all(np.array_equal(a.codes, b.codes) for a, b in zip(plain, near, strict=True))
    # The two texts have the same number of tokens, so without their text nothing tells them apart.
    other = prompts[0].copy()
    text = np.flatnonzero(other < vocabulary.text_size)
    other[text] = other[text][::-1]
    first, second = speak([prompts[0], other], 0.0, temperature=0)
    assert (first.codes == second.codes).all()
    guided = speak(prompts * 2, 3.0)
    assert all(clip.legal for clip in guided)
    assert (speak(prompts[:1], 3.0)[0].codes == guided[0].codes).all()


def test_a_prompt_that_opens_no_audio_is_refused(lively_model, vocabulary, prompts):
    with pytest.raises(ValueError, match="<audio>"):
        generate(lively_model, vocabulary, [prompts[0][:-1]], 5)


def test_draw_follows_the_distribution_and_its_cuts():
    probability = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = probability.log()[None].repeat(20_000, 1)
    uniform = uniform_streams([0], 20_000)[0]

    def shares(**options):
        return torch.bincount(draw(logits, uniform, **options), minlength=4) / 20_000

    torch.testing.assert_close(shares(temperature=1.0), probability, atol=0.01, rtol=0)
    torch.testing.assert_close(shares(temperature=1.0, top_k=2), torch.tensor([0.625, 0.375, 0, 0]), atol=0.01, rtol=0)
    torch.testing.assert_close(
        shares(temperature=1.0, top_p=0.7), torch.tensor([0.625, 0.375, 0, 0]), atol=0.01, rtol=0
    )
    assert shares(temperature=0.0)[0] == 1
    masked = logits.clone()
    masked[:, 0] = -torch.inf
    assert (draw(masked, uniform, 1.0) != 0).all() and (draw(masked, torch.ones(20_000), 1.0) != 0).all()


def test_repetition_aware_sampling_leaves_a_loop():
    logits = torch.tensor([0.7, 0.2, 0.1]).log()[None].repeat(2000, 1)
    uniform = uniform_streams([0], 4000)[0].view(2000, 2)
    rule = Sampling(1.0, top_k=1, repetition_window=4, repetition_share=0.5)
    loop = torch.zeros(2000, 4, dtype=torch.long)
    varied = loop.clone()
    varied[:, ::2] = 1  # half of the window: not more than the share
    assert (draw_unlike(logits, uniform, varied, rule, 0) == 0).all()
    assert (draw_unlike(logits, uniform, loop[:, :0], rule, 0) == 0).all()
    shares = torch.bincount(draw_unlike(logits, uniform, loop, rule, 0), minlength=3) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.04, rtol=0)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p"])
def test_one_value_per_level_is_one_for_each(lively_model, vocabulary, name):
    prompt = [vocabulary.control_id("<audio>")]
    for values in ((1, 1), (1, 1, 1, 1)):
        with pytest.raises(
            ValueError, match=rf"sampling.{name}=\[.*\] has {len(values)} values and the model 3 levels"
        ):
            generate(lively_model, vocabulary, [prompt], 3, sampling=Sampling(**{name: values}))
    assert generate(lively_model, vocabulary, [prompt], 3, sampling=Sampling(**{name: (1, 1, 1)}))
