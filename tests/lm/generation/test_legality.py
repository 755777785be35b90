"""The rule of legality, and its form for vLLM, whose batch is played here as its documentation describes it."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import subprocess
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lm.generation.frames import generate
from lm.generation.legality import Legality
from lm.generation.sampling import Sampling
from lm.sequences.patterns import PATTERNS
from training.config import REPOSITORY


def members(legal) -> set[int]:
    return {i for part in legal for i in (part if isinstance(part, range) else [part])}


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_what_documents_hold_is_legal_and_only_the_whole_has_ended(vocabulary, pattern):
    vocabulary = dataclasses.replace(vocabulary, pattern=pattern)
    random = np.random.default_rng(0)
    for frames in (1, 2, 5):
        codes = random.integers(0, vocabulary.codebook_sizes, (frames, 3))
        end = vocabulary.control_id("</audio>")
        ids = vocabulary.order.close(vocabulary.codes_to_ids(codes), end).tolist()
        rule, free = Legality(vocabulary, min_frames=frames, max_frames=frames), Legality(vocabulary)
        for number in range(len(ids) + 1):
            legal = members(rule.after(ids[:number]))
            if number < len(ids):
                assert ids[number] in legal and not rule.ended(ids[:number])
                level = int(vocabulary.levels_of(np.array(ids[number])))
                assert legal == ({end} if level < 0 else set(vocabulary.block(level)))
                if end not in ids[:number]:  # a frame begins where its first level, or the end, stands
                    assert (end in members(free.after(ids[:number]))) == (level <= 0 and number > 0)
        assert rule.ended(ids)
        assert rule.codes(ids) == rule.codes([*ids, vocabulary.control_id("<pad>")]) == codes.tolist()


def test_limits_and_clips_that_were_cut_off(vocabulary):
    end, first = vocabulary.control_id("</audio>"), [vocabulary.block(level).start for level in range(3)]
    rule = Legality(vocabulary, min_frames=2, max_frames=3)
    assert [end in members(rule.after(first * n)) for n in range(4)] == [False, False, True, True]
    assert members(rule.after(first * 3)) == {end}
    assert rule.codes(first * 2 + first[:1]) == [[0, 0, 0]] * 2
    with pytest.raises(ValueError, match="cut off"):
        Legality(dataclasses.replace(vocabulary, pattern="delay")).codes(first)
    with pytest.raises(ValueError, match="max_frames=1"):
        Legality(vocabulary, 2, 1)


def test_the_rule_needs_neither_torch_nor_transformers():
    check = "import sys, lm.generation.legality; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class MoveDirectionality(enum.Enum):
    UNIDIRECTIONAL = enum.auto()
    SWAP = enum.auto()


@pytest.fixture
def processor(monkeypatch, vocabulary, tmp_path):
    """`lm.serving.vllm_legality.LegalAudio`, as vLLM would make it."""
    for name in ("vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    interface = sys.modules["vllm.v1.sample.logits_processor"]
    interface.LogitsProcessor, interface.MoveDirectionality = object, MoveDirectionality
    monkeypatch.delitem(sys.modules, "lm.serving.vllm_legality", raising=False)
    made = importlib.import_module("lm.serving.vllm_legality").LegalAudio
    vocabulary.save(tmp_path)
    config = SimpleNamespace(model_config=SimpleNamespace(model=str(tmp_path)))
    yield made(config, torch.device("cpu"), False)
    sys.modules.pop("lm.serving.vllm_legality", None)


def request(**options):
    return SimpleNamespace(extra_args=options or None)


def update(removed=(), added=(), moved=()):
    return SimpleNamespace(batch_size=0, removed=list(removed), added=list(added), moved=list(moved))


def test_rows_follow_their_requests(processor, vocabulary):
    """Requests come, go and change places; each row is masked by what its own request has written."""
    first = [vocabulary.block(level).start for level in range(3)]
    written = {"a": [], "b": first[:1], "c": first[:2], "text": [5]}
    audio = request(audio_min_frames=1, audio_max_frames=9)
    processor.update_state(update(added=[(0, audio, None, written["a"]), (1, request(), None, written["text"])]))
    processor.update_state(update(added=[(2, audio, None, written["b"]), (3, audio, None, written["c"])]))

    def levels() -> list[int | None]:
        logits = processor.apply(torch.zeros(4, vocabulary.size))
        found = []
        for row in logits:
            legal = torch.isfinite(row).nonzero()[:, 0].numpy()
            found.append(None if len(legal) == vocabulary.size else int(vocabulary.levels_of(legal)[-1]))
        return found

    assert levels() == [0, None, 1, 2]
    written["a"].append(first[0])  # vLLM fills the same list
    assert levels() == [1, None, 1, 2]
    processor.update_state(None)
    processor.update_state(update(moved=[(1, 3, MoveDirectionality.SWAP)]))
    assert levels() == [1, 2, 1, None]
    processor.update_state(update(removed=[0], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert levels() == [1, 2, None, None]
    processor.update_state(update(added=[(0, request(), None, [])]))  # takes the place of another
    assert levels() == [None, 2, None, None]


def test_greedy_clips_are_those_of_our_own_generation(processor, lively_model, vocabulary, rows, ask):
    """A plain decoding loop with the processor, as an engine runs it, against `lm.generation.frames`."""
    prompts = ask(rows[:3])
    expected = generate(lively_model, vocabulary, prompts, 5, sampling=Sampling(temperature=0))
    written: list[list[int]] = [[] for _ in prompts]
    options = request(audio_min_frames=1, audio_max_frames=5)
    processor.update_state(update(added=[(i, options, None, written[i]) for i in range(3)]))
    rule = Legality(vocabulary, 1, 5)
    with torch.no_grad():
        while not all(map(rule.ended, written)):
            for i, prompt in enumerate(prompts):
                logits = lively_model(input_ids=torch.tensor([[*prompt.tolist(), *written[i]]])).logits[0, -1]
                batch = torch.zeros(3, vocabulary.size)
                batch[i] = logits
                if not rule.ended(written[i]):
                    written[i].append(int(processor.apply(batch)[i].argmax()))
    for ids, clip in zip(written, expected, strict=True):
        assert rule.codes(ids) == clip.codes.tolist()


@pytest.mark.parametrize(("least", "most"), [(3, None), (None, 0), (None, "5"), (6, 5)])
def test_limits_that_cannot_hold_are_refused(processor, least, most):
    options = {"audio_min_frames": least, "audio_max_frames": most}
    with pytest.raises(ValueError, match="audio_"):
        processor.validate_params(request(**options))
    processor.validate_params(request())
    processor.validate_params(request(audio_max_frames=5))
    assert not processor.is_argmax_invariant()
