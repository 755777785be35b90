"""The pages of docs/tutorials, followed in this process: commands and Python, in the order of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from programs import run_command

from almkit.command import main
from training.config import REPOSITORY

FOLDER = REPOSITORY / "docs/tutorials"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def follow(page: str, almkit: Callable[[list[str]], None] = main) -> dict[str, Any]:
    """Run all that the page says, from the working directory; what its Python has defined.

    Args:
        almkit: what runs the words after ``almkit``.
    """
    defined: dict[str, Any] = {"__name__": page}
    for language, text in BLOCK.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, f"{page}.md", "exec", dont_inherit=True), defined)
            continue
        for line in filter(None, text.splitlines()):
            first, *words = shlex.split(line, comments=True)
            if first == "almkit":
                almkit(words)
            else:
                assert first == "python", line
                run_command(*words)
    return defined


def pages() -> set[str]:
    """The tutorials there are."""
    return {path.stem for path in Path(FOLDER).glob("*.md")}
