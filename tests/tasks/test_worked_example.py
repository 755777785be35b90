"""The worked example of docs/tasks.md does what the page says."""

import re
import sys
import types
from types import SimpleNamespace

import hydra
import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from training.config import CONFIG_DIR, REPOSITORY, group_options

PAGE = (REPOSITORY / "docs/tasks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL).group(1)


def test_the_task_of_the_page_builds_its_documents(monkeypatch):
    module = types.ModuleType("tasks.who")
    exec(block("python"), module.__dict__)
    monkeypatch.setitem(sys.modules, "tasks.who", module)
    task = instantiate(OmegaConf.create(block("yaml")))
    codes = np.zeros((4, 3), np.uint16)
    row = SimpleNamespace(id="a", text="hi", captions=[], speaker="slt", domain="speech", codes=codes)
    assert task.select([row, SimpleNamespace(**{**vars(row), "speaker": None})]) == [row]
    document = task.document(row)
    assert document.task == "spare_0" and document.segments[1].text == "slt" and document.segments[1].learn
    assert task.document(row, with_target=False).segments[1].text is None


def test_the_page_names_every_task():
    for name in set(group_options("task")) - {"all", "mixture"}:
        assert f"`{name}`" in PAGE
    with hydra.initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR)):
        assert hydra.compose("lm_train", overrides=["task=all"]).task.name == "all"
