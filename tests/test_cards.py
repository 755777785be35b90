"""Every model that ships says in its card under which licence it is, and what its weights have heard."""

from pathlib import Path

import pytest

from training.config import REPOSITORY

FOLDERS = sorted(path.parent for path in (REPOSITORY / "checkpoints").glob("*/*.safetensors"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_has_licence_and_data(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Licence.**" in card and "**Heard.**" in card


def test_there_are_models() -> None:
    assert len(FOLDERS) >= 4
