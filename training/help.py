"""The first import of every program: answers ``--help`` before anything else is imported, which takes seconds, and lets
Ctrl-C end it plainly meanwhile.

    import training.help  # noqa: F401

A program with ``@hydra_entry("NAME")`` prints its docstring and the commented keys of ``configs/NAME.yaml``
(`help_text`). One with argparse is run without the packages that take long to import (`run_lightly`).
"""

from __future__ import annotations

import ast
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from training.places import CONFIG_DIR, REPOSITORY
from training.stopping import end_with_launcher
from training.streams import open_closed, say, settle

HEAVY = ("torch", "transformers", "numpy", "scipy", "hydra", "omegaconf", "soundfile", "huggingface_hub", "matplotlib")


def help_text(program: str, config_name: str, description: str, folder: Path = CONFIG_DIR) -> str:
    """The usage text: description, the commented YAML file of the program, and the groups it draws on."""
    source = (folder / f"{config_name}.yaml").read_text(encoding="utf-8")
    groups = re.findall(r"^\s*-\s+(?:override\s+)?([a-z_]+):\s*([\w\-]+)", source, flags=re.MULTILINE)
    lines = [f"usage: {program} [key=value ...]", "", description.strip(), ""]
    lines += [f"Keys (configs/{config_name}.yaml):", ""]
    lines += [f"  {line}" for line in source.splitlines()]
    for group, default in groups:
        if options := sorted(path.stem for path in (folder / group).glob("*.yaml")):
            lines += ["", f"{group}=… one of: {', '.join(options)} (default {default}); keys of {group}={default}:", ""]
            lines += [f"  {line}" for line in (folder / group / f"{default}.yaml").read_text("utf-8").splitlines()]
    lines += ["", "-m key=a,b runs a sweep (Hydra multirun); --cfg job prints the resolved configuration."]
    return "\n".join(lines)


def run_lightly(program: ast.Module) -> None:
    """Run what of ``program`` needs no heavy package: argparse ends it, as it has been asked for help."""
    before = dict(sys.modules)
    names = {"__name__": "__main__", "__file__": sys.argv[0], "__doc__": ast.get_docstring(program, clean=False)}
    sys.modules.update({name: None for name in HEAVY if name not in before})  # type: ignore[misc]  # cannot be imported
    try:
        for statement in program.body:
            if isinstance(statement, ast.FunctionDef):
                statement.decorator_list = []
            try:
                exec(compile(ast.Module([statement], []), sys.argv[0], "exec", dont_inherit=True), names)
            except (ImportError, NameError):
                continue
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def help_of(program: str, path: Path) -> str | None:
    """The help of the program in the file ``path``; None where it is not one with a commented YAML file."""
    source = path.read_text(encoding="utf-8")
    entry = re.search(r'^@hydra_entry\("(\w+)"\)', source, re.MULTILINE)
    return entry and help_text(program, entry[1], ast.get_docstring(ast.parse(source)) or "")


def show(text: str) -> None:
    """Print the help, as far as anybody reads it."""
    with suppress(OSError):  # ``--help | head``
        print(text)
    settle(sys.stdout)


def answer() -> None:
    """Print the help of the program that is run, and end it, where one asked for it."""
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if not {"-h", "--help"} & set(sys.argv[1:]) or REPOSITORY not in path.resolve().parents or path.suffix != ".py":
        return
    if text := help_of(path.name, path):
        show(text)
        raise SystemExit(0)
    try:
        run_lightly(ast.parse(path.read_text(encoding="utf-8")))
    finally:
        settle(sys.stdout)


def say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Ctrl-C prints while a program still imports; later `training.config.ending_plainly` has words for it."""
    if issubclass(kind, KeyboardInterrupt):
        say("\ninterrupted.")
    else:
        sys.__excepthook__(kind, error, trace)


open_closed()
end_with_launcher()
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = say_interrupted
answer()
