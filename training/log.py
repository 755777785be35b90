"""The run log: JSON lines on disk (the truth), one readable line on the console."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from training.checkpoint import naming, write_file
from training.identity import printable

OUTPUT = "the output"  # as an error calls it


class RunLog:
    """Appends one JSON object per call to ``run_dir/log.jsonl`` and prints plain lines; silent on other processes."""

    def __init__(self, run_dir: Path, is_main: bool = True) -> None:
        self.is_main = is_main
        self.path = Path(run_dir) / "log.jsonl"
        if is_main:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def rewind(self, step: int) -> None:
        """Drop the lines after ``step`` (a resumed run repeats those steps), so that each step stands once."""
        if not self.is_main or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the half line of a killed process
                continue
            if record.get("step", 0) <= step:
                kept.append(line)
        write_file(self.path, "".join(line + "\n" for line in kept))

    def log(self, step: int, values: dict[str, object]) -> None:
        """Append ``{"step": step, **values}``; NaN and infinity become null (JSON has none)."""
        if not self.is_main:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with naming(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **clean}) + "\n")

    def line(self, text: str) -> None:
        """Print one line at once (also when the output is a file)."""
        if self.is_main:
            print(text, flush=True)


class PlainStream:
    """A stream of text that passes on lines of what can be printed: names and texts come from files of anybody. What
    hinders it names `OUTPUT`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream.stream if isinstance(stream, PlainStream) else stream  # what is plain stays so

    def write(self, text: str) -> int:
        with naming(OUTPUT):
            self.stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def flush(self) -> None:
        with naming(OUTPUT):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def duration(seconds: float) -> str:
    """``75.0`` → ``1:15``; ``3700`` → ``1:01:40``."""
    seconds = int(max(0.0, seconds) + 0.5)
    hours, rest = divmod(seconds, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


@contextmanager
def no_loading_report() -> Iterator[None]:
    """transformers prints no table of missing and unexpected weights: who loads them says what is wrong."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def quiet_environment() -> None:
    """Settings that keep the console readable; every script's entry calls it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and writing weights; downloads keep theirs
