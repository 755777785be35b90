"""`python eval/tts.py` puts eval/ first on sys.path: no module in such a folder may shadow another one."""

import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["almkit", "codec", "lm", "tasks", "eval", "training"]
SCRIPT_FOLDERS = [*PACKAGES, "scripts"]


def importable_names(folder: Path) -> set[str]:
    """What ``import NAME`` finds with ``folder`` first on sys.path: modules, folders with Python files."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.name for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return modules | packages


@cache
def taken_names() -> set[str]:
    """Names that belong to the standard library, to an installed distribution or to one of our packages."""
    return {*sys.stdlib_module_names, *packages_distributions(), *PACKAGES, "scripts", "tests", "configs"}


@pytest.mark.parametrize("folder", SCRIPT_FOLDERS)
def test_no_module_shadows_another(folder: str) -> None:
    names = importable_names(ROOT / folder)
    assert names, f"{folder}/ holds no module: is the test looking in the right place?"
    assert not names & taken_names()


@pytest.mark.parametrize("name", ["tokenize.py", "datasets.py", "eval.py", "codec/__init__.py"])
def test_a_shadowing_name_would_be_found(tmp_path: Path, name: str) -> None:
    planted = tmp_path / name
    planted.parent.mkdir(exist_ok=True)
    planted.touch()
    assert importable_names(tmp_path) & taken_names()


def test_an_innocent_name_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "interleave.py").touch()
    (tmp_path / "page_template").mkdir()
    assert not importable_names(tmp_path) & taken_names()
