"""The wheel: small enough, with settings and models inside, and at work in an environment of its own, elsewhere."""

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from training.config import REPOSITORY

MOST = 70e6  # bytes of the wheel


def run(*command: object, cwd: Path) -> str:
    """Output of a command that knows nothing of this repository."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the sources, so that building leaves nothing here."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(REPOSITORY / name, source)
    for name in ("almkit", "codec", "configs", "checkpoints", "eval", "lm", "tasks", "training"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "-w", place, cwd=place)
    return next(place.glob("*.whl"))


@pytest.mark.slow
def test_settings_and_models_are_inside(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"almkit/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "configs").rglob("*.yaml")}
    packages = ("codec", "eval", "lm", "tasks", "training")
    code = {path for room in packages for path in (REPOSITORY / room).rglob("*.*") if path.suffix != ".pyc"}
    assert configs | {path.relative_to(REPOSITORY).as_posix() for path in code} | {"almkit/py.typed"} <= names
    shards = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert {f"almkit/checkpoints/codec-real/{file}" for file in ("config.json", *shards)} <= names
    for model in ("codec-mini", "lm-all-mini", "lm-spoken-mini", "lm-tts-voice"):
        assert {f"almkit/checkpoints/{model}/{file}" for file in ("config.json", "model.safetensors")} <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"almkit", *packages}


@pytest.mark.slow
def test_it_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Torch and the other packages are those that are here: a path to them stands in the new environment."""
    home = tmp_path / "home"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "here.pth").write_text("\n".join(site.getsitepackages()))
    python, pip = home / "bin/python", (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=tmp_path)
    assert Path(run(python, "-c", "import lm; print(lm.__path__[0])", cwd=tmp_path).strip()).parent == packages
    almkit = home / "bin/almkit"
    assert "transcribe" in run(almkit, "--help", cwd=tmp_path)
    run(almkit, "speak", "every evening the pigeon is happy", "-o", "a.wav", cwd=tmp_path)
    run(almkit, "reconstruct", "a.wav", "-o", "b.wav", cwd=tmp_path)
    line = json.loads(run(almkit, "transcribe", "a.wav", "--json", cwd=tmp_path))
    assert line["written"] == "every evening the pigeon is happy"
    assert run(almkit, "caption", "b.wav", cwd=tmp_path).startswith("b.wav: ")
