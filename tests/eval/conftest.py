"""The tiny task of a module, `TASK`, and the working directory in it."""

from pathlib import Path

import pytest

from tests.eval.tiny_task import build


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``corpus``, ``codec`` and ``runs/lm-tiny/final``."""
    return build(tmp_path_factory.mktemp("task"), request.module.TASK)


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder
