"""Generation in every pattern and variant: legal, independent of the batch, equal to transformers' own loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from same_clips import assert_same
from transformers import LogitsProcessorList

from lm.generation.batch import Wanted, open_batch
from lm.generation.decoding import Engine
from lm.generation.frames import generate, live
from lm.generation.sampling import LegalAudio, Sampling
from lm.sequences.documents import folded, render
from tasks.document import AudioSegment, Document

GREEDY = Sampling(temperature=0)
KINDS = [
    ("flat", "flat"),
    ("delay", "flat"),
    ("one_frame_delay", "flat"),
    ("one_frame_delay", "depth"),
    ("flat", "depth"),
]


@pytest.fixture(params=KINDS, ids=["-".join(kind) for kind in KINDS])
def lm(request, make_variant):
    return make_variant(*request.param)


def sequence(model, vocabulary, tokenizer, prompt, clip):
    """Ids of prompt and clip, as training would see them."""
    rendered = render(Document("tts", (AudioSegment(clip.codes),)), vocabulary, tokenizer).ids
    start = int(np.flatnonzero(rendered == vocabulary.control_id("<audio>"))[0]) + 1
    return np.concatenate([prompt, rendered[start:]])


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, top_p=1.0), Sampling(0.8, 5, 0.9, 4, 0.1, guidance=2.0)])
def test_random_weights_give_legal_streams_only(lm, prompts, sampling):
    model, vocabulary = lm
    clips = generate(model, vocabulary, prompts * 3, [12, 1, 2, 7] * 3, sampling=sampling)
    assert {clip.ended for clip in clips} == {True, False} or sampling.temperature == 0
    for clip, limit in zip(clips, [12, 1, 2, 7] * 3, strict=True):
        assert clip.legal and 1 <= clip.n_frames <= limit and clip.codes.shape[1] == 3
        assert (clip.codes < np.array(vocabulary.codebook_sizes)).all()
        assert clip.ended or clip.n_frames == limit


@pytest.mark.slow
def test_batch_of_one_equals_batch_of_many(lm, prompts):
    model, vocabulary = lm
    for sampling in (GREEDY, Sampling(1.0, top_k=8, top_p=0.95), Sampling(0.9, guidance=1.5)):
        together = generate(model, vocabulary, prompts, 15, sampling=sampling, seeds=[5, 6, 7, 8])
        for seed, prompt, clip in zip([5, 6, 7, 8], prompts, together, strict=True):
            assert_same(generate(model, vocabulary, [prompt], 15, sampling=sampling, seeds=[seed]), [clip])


def joined(batch, prompts, limit):
    """Codes of each frame that was told, by the number of the prompt; one prompt joins every third step, one leaves."""
    told, waiting, step = {}, list(enumerate(prompts)), 0
    while waiting or len(batch):
        if waiting and step % 3 == 0:
            number, prompt = waiting.pop(0)
            batch.join([Wanted(number, prompt, limit, 1, 5 + number), Wanted(f"{number} leaves", prompt, limit, 1, 0)])
        if step % 3 == 1:
            batch.drop({name for name in batch.names if isinstance(name, str)})
        for name, codes in batch.step():
            told.setdefault(name, []).append(codes)
        step += 1
    return told


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [Sampling(0.8, 8, 0.95, 4, 0.1), Sampling(0.9, guidance=1.5)])
def test_clips_that_join_a_running_batch_are_those_of_their_own(lm, prompts, sampling):
    model, vocabulary = lm
    batch = open_batch(model, vocabulary, sampling, Engine())
    told = joined(batch, prompts, 15)
    assert set(batch.left) == set(range(len(prompts)))
    for number, prompt in enumerate(prompts):
        clip = batch.left[number]
        assert_same(generate(model, vocabulary, [prompt], 15, sampling=sampling, seeds=[5 + number]), [clip])
        assert np.array_equal(clip.codes, np.concatenate(told[number]))


def test_a_batch_that_others_join_for_ever_stays_short(make_variant, prompts):
    model, vocabulary = make_variant("flat")
    batch = open_batch(model, vocabulary, GREEDY, Engine())
    for number in range(30):
        batch.join([Wanted(number, prompts[0], 4, 1, 0)])
        batch.step()
        batch.step()
    assert batch.cache.mask.shape[1] <= len(prompts[0]) + 6 * vocabulary.levels  # of 60 that were made


def test_a_batch_of_fixed_size_takes_nobody_while_it_runs(make_variant, prompts):
    model, vocabulary = make_variant("flat")
    batch = open_batch(model, vocabulary, GREEDY, Engine("static"))
    batch.join([Wanted(0, prompts[0], 4, 1, 0)])
    with pytest.raises(ValueError, match="cache=dynamic"):
        batch.join([Wanted(1, prompts[0], 4, 1, 0)])


@pytest.mark.slow
def test_greedy_equals_a_loop_without_cache(lm, prompts, text_tokenizer):
    """Each token is the best of the legal ones, given everything before it as training renders it."""
    model, vocabulary = lm
    clips = generate(model, vocabulary, prompts, 6, sampling=GREEDY)
    for prompt, clip in zip(prompts, clips, strict=True):
        ids = sequence(model, vocabulary, text_tokenizer, prompt, clip)
        legality = LegalAudio(vocabulary).rule
        columns = torch.from_numpy(folded(ids, vocabulary).astype(np.int64))
        with torch.no_grad():
            if hasattr(model, "depth"):
                hidden = model.model(input_ids=columns[None], use_cache=False).last_hidden_state[0]
            else:
                logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], use_cache=False).logits[0]
        position = len(prompt)
        for number in range(len(ids) - len(prompt)):
            written = ids[len(prompt) : len(prompt) + number].tolist()
            legal = [i for part in legality.after(written) for i in (part if isinstance(part, range) else [part])]
            wanted = int(ids[len(prompt) + number])
            assert wanted in legal
            level = max(0, int(vocabulary.levels_of(np.array(wanted))))
            if level == 0 and number:
                position += 1
            if wanted == vocabulary.control_id("</audio>") and not clip.ended:
                continue  # put there by the limit
            if hasattr(model, "depth"):
                with torch.no_grad():
                    scores = model.level_logits(hidden[position - 1][None], columns[position, :level][None])[0]
                offset = [vocabulary.control_id("</audio>")] if level == 0 else []
                order = [*offset, *vocabulary.block(level)]
                best = max(legal, key=lambda i: float(scores[order.index(i)]))
            else:
                best = max(legal, key=lambda i: float(logits[len(prompt) + number - 1, i]))
            assert best == wanted


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("pattern", ["flat", "delay"])
def test_equals_stock_generate_with_the_legality_processor(make_variant, prompts, pattern, cache):
    model, vocabulary = make_variant(pattern)
    ours = generate(model, vocabulary, prompts, 10, sampling=GREEDY)
    pad = vocabulary.control_id("<pad>")
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p.tolist() for p in prompts])
    out = model.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        logits_processor=LogitsProcessorList([LegalAudio(vocabulary)]),
        max_new_tokens=40,
        do_sample=False,
        cache_implementation=cache if cache == "static" else None,
    )
    end = vocabulary.control_id("</audio>")
    compared = 0
    for row, clip in zip(out[:, width:].numpy(), ours, strict=True):
        if not clip.ended:
            continue
        row = row[: clip.n_frames * 3 + 1]
        codes = vocabulary.ids_to_codes(vocabulary.order.open(row, 3, end))
        assert codes.tolist() == clip.codes.tolist()
        compared += 1
    assert compared


def test_frames_arrive_one_by_one(lm, prompts):
    model, vocabulary = lm
    heard: dict[int, list] = {}
    for item, codes in live(model, vocabulary, prompts, 9):
        heard.setdefault(item, []).extend(codes.tolist())
    assert [heard[i] for i in range(len(prompts))] == [
        c.codes.tolist() for c in generate(model, vocabulary, prompts, 9)
    ]
