"""Ids of clips: those that name a file inside a folder, and those that do not."""

from pathlib import Path

import pytest

from codec.corpus import read_corpus
from codec.shards import read_index
from training.config import REPOSITORY
from training.identity import fault_of_id


@pytest.mark.parametrize(
    "identity", ["a", "clip-1", "train/1.5 s", "speech/été", "…", "a..b", ".hidden", "हिन्दी", "می\u200cروم", "C-3"]
)
def test_ids_that_stay_inside(identity: str, tmp_path: Path) -> None:
    assert fault_of_id(identity) is None
    assert (tmp_path / f"{identity}.wav").resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "identity",
    [*"/. ", "", "..", "../a", "a/../../b", "/a", "//a", "a//b", "a/", "C:\\a", "..\\a", "a\\..\\..\\b",
     "a\0b", "a\nb", "\x1b[2Ja", "a\u2028b", "a\ud800",
     "a\u202eb", "\u2066a", "a\u200b", "a\xadb", "\ufeffa", "a\U000e0041"],
)  # fmt: skip
def test_ids_that_do_not(identity: str) -> None:
    assert fault_of_id(identity)


def test_the_embedded_corpus_has_sound_ids() -> None:
    ids = [clip.id for clip in read_corpus(REPOSITORY / "data/mini")[0]]
    ids += [row.id for row in read_index(REPOSITORY / "data/mini/tokens").rows]
    assert len(ids) > 18_000 and not [identity for identity in ids if fault_of_id(identity)]
