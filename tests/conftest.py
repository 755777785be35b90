"""Settings that hold for every test: no hub, no display, one thread (tiny tensors lose by more).

Half of the time of a test of options went into Hydra, which reads the same YAML anew for each of them: here a file's
text is parsed once in a process, and the same arguments are composed once; each test gets a copy of its own.
"""

import copy
import functools
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from headless_chromium import Browser
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # on most machines there is none
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; processes that tests start inherit it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, HERE))  # processes that tests start import what is tested
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, too: what tests start inherits it, and must hear it


parse, compose = OmegaConf.load, hydra.compose


@functools.cache
def parsed(text: str) -> DictConfig | ListConfig:
    return parse(io.StringIO(text))


@functools.cache
def composed(folders: str, name: str, overrides: tuple[str, ...]) -> DictConfig:
    return compose(name, overrides=list(overrides))


def load_once(file: Any) -> DictConfig | ListConfig:
    return copy.deepcopy(parsed(file.read())) if isinstance(file, io.TextIOBase) else parse(file)


def compose_once(name: str, overrides: Sequence[str] = (), **others: Any) -> DictConfig:
    if others:
        return compose(name, overrides=list(overrides), **others)
    folders = str(GlobalHydra.instance().config_loader().get_search_path())
    return copy.deepcopy(composed(folders, name, tuple(overrides)))


OmegaConf.load, hydra.compose = load_once, compose_once  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    """What was imported stays: nobody need look through it for garbage again, nor so often through the rest."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``refusal(call, …)``: the one line on the console with which ``call(…)`` ends its program, exit status 2."""

    def line(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as refused:
            call(*arguments, **named)
        assert refused.value.code == 2
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return said

    return line


@pytest.fixture
def refused_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``refused_program(module, options)``: all that a program says before it ends with status 2, which is one line."""

    def line(module: str, options: Sequence[str]) -> str:
        main = importlib.import_module(module).main
        monkeypatch.setattr(sys, "argv", [f"{module}.py", *options])
        with pytest.raises(SystemExit) as refused:
            main()
        assert refused.value.code == 2
        (said,) = capsys.readouterr().err.strip().splitlines()
        return said

    return line


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; asked for by tests that are skipped where there is none."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
