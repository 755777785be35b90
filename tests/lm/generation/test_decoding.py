"""Growing, fixed and compiled caches generate the same; few shapes are compiled."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from same_clips import assert_same

from lm.generation.decoding import LENGTH_STEP, Engine
from lm.generation.frames import best_of, generate
from lm.generation.sampling import Sampling
from lm.generation.writing import write
from lm.model import build_lm
from lm.sequences.vocabulary import AudioVocabulary
from tasks.asr import ASR

STATIC = Engine("static")
SAMPLED = Sampling(0.9, 0, 0.95)


@pytest.fixture(
    params=[("flat", "flat"), ("delay", "flat"), ("one_frame_delay", "depth")], ids=["flat", "delay", "depth"]
)
def lm(request, make_variant):
    return make_variant(*request.param)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [SAMPLED, Sampling(0.9, guidance=2.0)], ids=["plain", "guided"])
def test_a_cache_of_fixed_size_generates_the_same(lm, rows, ask, sampling):
    model, vocabulary = lm
    prompts = ask(rows[:5], of=vocabulary)
    lengths = {"max_frames": [6, 2, 9, 4, 6], "min_frames": [1, 2, 3, 1, 5]}
    options = {**lengths, "sampling": sampling, "seeds": [3, 1, 4, 1, 5]}
    ours = generate(model, vocabulary, prompts, **options, batch_size=3, engine=STATIC)
    assert_same(ours, generate(model, vocabulary, prompts, **options))


def test_with_four_delayed_levels_a_row_never_sees_where_it_had_no_token(text_tokenizer, rows, ask, tiny_lm_config):
    """A clip that has ended owes tokens of later levels, with places between them at which only others have one."""
    vocabulary = AudioVocabulary(len(text_tokenizer), (16, 12, 8, 6), pattern="delay")
    tiny_lm_config.config.initializer_range = 0.3
    model = build_lm(tiny_lm_config, vocabulary, seed=3).eval()
    prompts = ask(rows[:3], of=vocabulary)
    options = {"max_frames": [2, 9, 5], "sampling": Sampling(0.9, top_p=1.0)}
    alone = [
        generate(model, vocabulary, [prompt], [limit], sampling=options["sampling"], seeds=[number])[0]
        for number, (prompt, limit) in enumerate(zip(prompts, options["max_frames"], strict=True))
    ]
    for engine in (Engine(), STATIC):
        assert_same(generate(model, vocabulary, prompts, engine=engine, **options), alone, 1e-5)


class Counting:
    """A backend of torch.compile that counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.slow
def test_the_compiled_step_generates_the_same_and_is_compiled_once(lm, rows, ask):
    model, vocabulary = lm
    torch._dynamo.reset()
    backend = Counting()
    engine = Engine("static", compile=True, backend=backend)  # type: ignore[arg-type]
    prompts = ask(rows[:5], of=vocabulary)
    expected = generate(model, vocabulary, prompts, 7, sampling=SAMPLED)
    first = generate(model, vocabulary, prompts, 7, sampling=SAMPLED, engine=engine)
    compiled = backend.graphs
    other = {"max_frames": 5, "sampling": SAMPLED, "seeds": [4, 3, 2, 1, 0]}
    again = generate(model, vocabulary, prompts[::-1], engine=engine, **other)
    assert compiled > 0 and backend.graphs == compiled  # other clips, other lengths, the same shapes
    assert_same(first, expected)
    assert_same(again, generate(model, vocabulary, prompts[::-1], **other))


@pytest.mark.slow
def test_inductor_generates_the_same(lively_model, vocabulary, rows, ask):
    torch._dynamo.reset()
    prompts = ask(rows[:3], of=vocabulary)
    options = {"max_frames": 6, "sampling": Sampling(temperature=0)}
    ours = generate(lively_model, vocabulary, prompts, engine=Engine("static", True), **options)
    assert_same(ours, generate(lively_model, vocabulary, prompts, **options))


def test_candidates_and_texts_take_it_too(lively_model, vocabulary, rows, text_tokenizer, ask):
    prompts = ask(rows[:2], of=vocabulary)
    ours, theirs = (best_of(lively_model, vocabulary, prompts, 2, 5, engine=engine) for engine in (STATIC, None))
    assert_same([best for best, _ in ours], [best for best, _ in theirs])
    listening = ask(rows[:3], ASR())
    ours, theirs = (
        write(lively_model, vocabulary, text_tokenizer, listening, 6, engine=engine) for engine in (STATIC, None)
    )
    assert [text.ids for text in ours] == [text.ids for text in theirs]


@pytest.mark.slow
def test_lengths_beyond_one_step_of_the_cache(lively_model, vocabulary, rows, ask):
    prompts = ask(rows[:1], of=vocabulary)
    frames = LENGTH_STEP // vocabulary.levels + 3
    kept = {"min_frames": frames, "sampling": SAMPLED}
    ours = generate(lively_model, vocabulary, prompts, frames, engine=STATIC, **kept)
    assert ours[0].n_frames == frames
    assert_same(ours, generate(lively_model, vocabulary, prompts, frames, **kept))


def test_the_keys_choose_the_engine():
    def of(device, **options):
        return Engine.of(OmegaConf.create({"cache": "auto", "compile": None, **options}), device)

    assert of("cpu") == Engine("dynamic", False)
    assert of("cuda") == of("cpu", compile=True) == Engine("static", True)
    assert of("cuda", compile=False) == of("cuda", cache="dynamic") == Engine("dynamic", False)
    assert of("cpu", cache="static") == Engine("static", False)
    with pytest.raises(ValueError, match="needs cache=static"):
        of("cpu", cache="dynamic", compile=True)
