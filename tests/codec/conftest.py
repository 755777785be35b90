"""A working folder with a corpus of a second, for trainings of codecs."""

from pathlib import Path

import pytest
from tiny_training import write_corpus


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``corpus/`` in it."""
    write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    return tmp_path
