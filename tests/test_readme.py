"""The README and every other page tell the truth: their commands, paths, targets and imports exist."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest

from codec.reconstruct import as_overrides
from training.config import check_overrides

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "checkpoints").glob("*/README.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
OURS = "checkpoints codec configs data/mini docs eval lm requirements scripts tasks tests training".split()


def blocks(language: str, text: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every command line of the bash blocks, without comments, and every command that stands in a sentence or table."""
    inline = re.findall(r"`((?:python|accelerate launch|make) [^`]+)`", text)
    joined = (re.sub(r"\\\n\s*", "", block) for block in blocks("bash", text))  # a backslash continues a line
    lines = [line.split(" #")[0].strip() for block in joined for line in block.splitlines()]
    found = [*lines, *(" ".join(line.split()) for line in inline)]
    return [line for line in found if re.match(r"(python (?!-)|accelerate launch|make) ?", line)]


def script_of(command: str) -> tuple[Path, list[str]] | None:
    """(script, its arguments) of a ``python`` or ``accelerate launch`` command."""
    words = shlex.split(command)
    if words[0] != "python" and words[:2] != ["accelerate", "launch"]:
        return None
    place = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
    return None if place is None else (ROOT / words[place], words[place + 1 :])


ALL = [(page, command) for page, text in TEXTS.items() for command in dict.fromkeys(commands(text))]
SCRIPTS = [(page, command) for page, command in ALL if script_of(command)]
EXAMPLE = re.compile(r"NAME|NNN|\bwho\b")  # what stands for any name, and the task that docs/tasks.md invents
PATHS = [
    (page, path)
    for page, text in TEXTS.items()
    for path in dict.fromkeys(re.findall(rf"`((?:{'|'.join(OURS)})/[\w./-]+)", text))
    if not EXAMPLE.search(path)
]


def test_the_two_commands_are_there() -> None:
    assert {"make demo", "make test"} <= set(commands(TEXTS["README.md"]))
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize(("page", "command"), [(page, c) for page, c in ALL if c.startswith("make ")])
def test_make_targets_exist(page: str, command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?<= )[a-z-]+(?= |$)", command):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page}: {target}"


@pytest.mark.parametrize(("page", "command"), SCRIPTS)
def test_scripts_exist_and_know_their_settings(page: str, command: str) -> None:
    found = script_of(command)
    assert found
    script, arguments = found
    assert script.is_file(), f"{page}: {command}: {script.name} does not exist"
    source = script.read_text(encoding="utf-8")
    config = re.search(r'^@hydra_entry\("(\w+)"\)', source, flags=re.MULTILINE)
    if config:
        overrides = as_overrides(arguments) if script.name == "reconstruct.py" else arguments
        check_overrides(config.group(1), overrides)  # exits, naming the key, if one is unknown
    else:
        parts = [
            ROOT / f"{module.replace('.', '/')}.py" for module in re.findall(r"^from ([\w.]+) import", source, re.M)
        ]
        source += "".join(part.read_text(encoding="utf-8") for part in parts if part.is_file())
        options = [argument for argument in arguments if argument.startswith("--") and argument != "--help"]
        assert all(f'"{option}"' in source for option in options), f"{page}: {command}: unknown option"
    for argument in arguments:
        path = argument.split("=")[-1]
        if path.startswith(("checkpoints/", "data/mini/")):
            assert (ROOT / path).exists(), f"{command}: {path} does not ship"


@pytest.mark.parametrize(("page", "path"), PATHS)
def test_files_that_are_named_exist(page: str, path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), f"{page}: there is no {path}"


@pytest.mark.parametrize("folder", re.findall(r"^(\w+)/ {2,}", TEXTS["README.md"], flags=re.MULTILINE))
def test_the_tree_names_real_folders(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_the_tree_names_every_package() -> None:
    for package in ("codec", "lm", "tasks", "eval", "training", "configs", "scripts", "tests"):
        assert re.search(rf"^{package}/ {{2,}}\w", TEXTS["README.md"], flags=re.MULTILINE), package


LINKS = [
    (page, link)
    for page, text in TEXTS.items()
    for link in dict.fromkeys(re.findall(r"\]\(([^)#\s]+)[^)]*\)", text))
    if "://" not in link
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize(("page", "block"), [(page, b) for page, text in TEXTS.items() for b in blocks("python", text)])
def test_python_examples_import_what_exists(page: str, block: str) -> None:
    for node in ast.walk(ast.parse(dedent(block))):
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("my"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), page
