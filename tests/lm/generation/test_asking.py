"""A model is asked as its training asked it."""

from __future__ import annotations

import json

import pytest

from lm.generation.asking import manner, other_words, sampling_of, use_manner
from tasks.base import Task, TaskError, make_task
from training.config import compose


def asking(*overrides: str) -> Task:
    return make_task(compose("lm_generate", list(overrides)).task)


def trained(*overrides: str, before: dict | None = None) -> dict:
    """What a training with these options writes into its model's folder, where it goes on from one with ``before``."""
    return json.loads(json.dumps(manner(make_task(compose("lm_train", list(overrides)).task), before or {})))


def test_words_and_sampling_of_the_training_are_taken_up() -> None:
    learnt = trained("task=tts", "task.prompt='Say {text}'", "task.prompts=paraphrased", "task.decoding.guidance=2")
    task = asking("task=tts")
    use_manner(task, learnt)
    row = task.asked("0", "hello", [], "anna")
    said = [segment.text for segment in task.document(row, with_target=False).segments if hasattr(segment, "text")]
    assert said[0] in task.instructions and said[1] == "Say hello"
    assert task.decoding["guidance"] == 2 and task.decoding["temperature"] == asking().decoding["temperature"]


def test_the_command_has_the_last_word_on_sampling() -> None:
    learnt = trained("task=tts", "task.decoding.guidance=2", "task.decoding.temperature=0.7")
    task, cfg = asking("task=tts"), compose("lm_generate", ["task=tts", "sampling.guidance=1"])
    use_manner(task, learnt)
    assert (sampling_of(cfg, task).guidance, sampling_of(cfg, task).temperature) == (1, 0.7)
    task = asking("task=tts", "task.decoding.guidance=3")
    use_manner(task, learnt)
    assert task.decoding["guidance"] == 3


def test_what_a_training_left_as_it_was_follows_the_configuration() -> None:
    assert trained("task=text_to_sound")["text_to_sound"]["sampling"] == {}
    task = asking("task=text_to_sound")
    before = dict(task.decoding)
    use_manner(task, trained("task=text_to_sound"))
    assert task.decoding == before


def test_a_training_that_goes_on_keeps_the_sampling_that_it_does_not_set() -> None:
    before = trained("task=tts", "task.decoding.guidance=2", "task.decoding.top_p=0.5")
    after = trained("task=[tts,asr]", "task.tasks.tts.decoding.top_p=0.7", before=before)
    assert after["tts"]["sampling"] == {"guidance": 2, "top_p": 0.7} and after["asr"]["sampling"] == {}


def test_a_training_that_goes_on_with_other_words_says_so() -> None:
    before = trained("task=tts", "task.prompt='{text}'")
    said = other_words(make_task(compose("lm_train", ["task=[tts,asr]"]).task), before)
    assert said == ["task tts: prompt is '{speaker}: {text}', and the model has learnt '{text}'"]
    before = trained("task=tts", "task.prompts=paraphrased")
    assert other_words(make_task(compose("lm_train", ["task=tts", "task.prompts=paraphrased"]).task), before) == []


def test_each_task_of_a_mixture_has_its_own() -> None:
    learnt = trained("task=[tts,asr]", "task.tasks.tts.prompt='{text}'", "task.tasks.asr.prompts=paraphrased")
    reading, writing = asking("task=tts"), asking("task=asr")
    use_manner(reading, learnt)
    use_manner(writing, learnt)
    assert reading.wording()["prompt"] == "{text}" and not reading.instructions and writing.instructions


def test_other_words_than_the_model_learnt_are_refused() -> None:
    with pytest.raises(TaskError, match="prompt is set to 'Read {text}', and the model has learnt '{text}': leave it"):
        use_manner(asking("task=tts", "task.prompt='Read {text}'"), trained("task=tts", "task.prompt='{text}'"))
    use_manner(asking("task=tts", "task.prompt='{text}'"), trained("task=tts", "task.prompt='{text}'"))  # the same


@pytest.mark.parametrize(
    "told", [5, {"wording": {"prompt": 5}}, {"wording": {"instructions": [5]}}, {"wording": {"none": ""}}]
)
def test_what_is_damaged_is_not_taken(told: object) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError)):
        use_manner(asking("task=tts"), {"tts": told})


def test_of_models_that_recorded_nothing_nothing_is_known() -> None:
    task = asking("task=tts")
    before = task.wording()
    use_manner(task, {})
    assert task.wording() == before
