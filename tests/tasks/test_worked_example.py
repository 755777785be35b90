"""The worked example of docs/tasks.md does what the page says."""

import re
import shutil
import sys
import types
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import training.config
from lm.recipe.data import StepData
from lm.sequences.document_set import render_documents
from lm.sequences.vocabulary import AudioVocabulary
from training.config import CONFIG_DIR, REPOSITORY, check_overrides, expand_lists, group_options

PAGE = (REPOSITORY / "docs/tasks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture(autouse=True)
def who(monkeypatch):
    """The module of the page."""
    module = types.ModuleType("tasks.who")
    exec(block("python"), module.__dict__)
    monkeypatch.setitem(sys.modules, "tasks.who", module)


def clip(number, speaker):
    codes = np.full((4, 3), number, np.uint16)
    return SimpleNamespace(id=f"c{number}", text="hi", captions=[], speaker=speaker, domain="speech", codes=codes)


def test_the_task_of_the_page_builds_its_documents():
    task = instantiate(OmegaConf.create(block("yaml")))
    row = clip(0, "slt")
    assert task.select([row, clip(1, None)]) == [row]
    document = task.document(row)
    assert document.task == "spare_0" and document.segments[1].text == "slt" and document.segments[1].learn
    assert task.document(row, with_target=False).segments[1].text is None


def test_the_configuration_of_the_page_trains_it_alone_and_in_a_mixture(monkeypatch, tmp_path):
    """Both files are put where the page says; then the command line finds the task and its rows can be learnt."""
    configs = tmp_path / "configs"
    shutil.copytree(CONFIG_DIR, configs)
    (configs / "task/who.yaml").write_text(block("yaml"), encoding="utf-8")
    monkeypatch.setattr(training.config, "CONFIG_DIR", configs)
    clips = [clip(n, ("slt", "rms")[n % 2]) for n in range(6)]
    vocabulary = AudioVocabulary(128, (16, 12, 8), {"name": "x", "fingerprint": "f"})
    for override, count in (("task=who", 6), ("task=[tts,who]", 12)):
        check_overrides("lm_train", [override, "trainer.max_steps=1"])
        with hydra.initialize_config_dir(version_base=None, config_dir=str(configs)):
            task = instantiate(hydra.compose("lm_train", overrides=expand_lists([override])).task)
        rows = task.select(clips)
        documents = render_documents(rows, task, vocabulary, lambda text, **_: {"input_ids": list(map(ord, text))}, 96)
        assert len(documents) == count
        batch = StepData(documents, vocabulary, 96, 2, seed=1).batch(0).rows
        learnt = {int(target) for target in batch.targets.flatten() if target >= 0}
        assert set(map(ord, "slt")) & learnt or set(map(ord, "rms")) & learnt
        wrong = task.with_condition_of(rows[-1], rows[-2])
        assert task.task_of(rows[-1]).name == "who" and (wrong.codes == clips[-2].codes).all()


def test_the_page_names_every_task():
    for name in set(group_options("task")) - {"all", "mixture"}:
        assert f"`{name}`" in PAGE
    with hydra.initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR)):
        assert hydra.compose("lm_train", overrides=["task=all"]).task.name == "all"
