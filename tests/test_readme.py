"""The README tells the truth: its commands, paths, targets and imports exist."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from codec.reconstruct import as_overrides
from training.config import check_overrides

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the bash blocks, without comments, and every command that stands in a table."""
    inline = re.findall(r"`((?:python|accelerate launch|make) [^`]+)`", README)
    joined = (re.sub(r"\\\n\s*", "", block) for block in blocks("bash"))  # a backslash continues a line
    lines = [line.split(" #")[0].strip() for block in joined for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")] + inline


def script_of(command: str) -> tuple[Path, list[str]] | None:
    """(script, its arguments) of a ``python`` or ``accelerate launch`` command."""
    words = shlex.split(command)
    if words[0] != "python" and words[:2] != ["accelerate", "launch"]:
        return None
    place = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return ROOT / words[place], words[place + 1 :]


SCRIPTS = [(command, found) for command in commands() if (found := script_of(command))]


def test_the_two_commands_are_there() -> None:
    assert {"make demo", "make test"} <= set(commands())
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?<= )[a-z-]+", command):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize(("command", "found"), SCRIPTS)
def test_scripts_exist_and_know_their_settings(command: str, found: tuple[Path, list[str]]) -> None:
    script, arguments = found
    assert script.is_file(), f"{command}: {script.name} does not exist"
    source = script.read_text(encoding="utf-8")
    config = re.search(r'^@hydra_entry\("(\w+)"\)', source, flags=re.MULTILINE)
    if config:
        overrides = as_overrides(arguments) if script.name == "reconstruct.py" else arguments
        check_overrides(config.group(1), overrides)  # exits, naming the key, if one is unknown
    else:
        options = [argument for argument in arguments if argument.startswith("--") and argument != "--help"]
        assert all(f'"{option}"' in source for option in options), f"{command}: unknown option"
    for argument in arguments:
        path = argument.split("=")[-1]
        if path.startswith(("checkpoints/", "data/mini/")):
            assert (ROOT / path).exists(), f"{command}: {path} does not ship"


@pytest.mark.parametrize("folder", re.findall(r"^(\w+)/ {2,}", README, flags=re.MULTILINE))
def test_the_tree_names_real_folders(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_the_tree_names_every_package() -> None:
    for package in ("codec", "lm", "tasks", "eval", "training", "configs", "scripts", "tests"):
        assert re.search(rf"^{package}/ {{2,}}\w", README, flags=re.MULTILINE), package


@pytest.mark.parametrize("link", [p for p in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in p])
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_python_examples_import_what_exists() -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)
