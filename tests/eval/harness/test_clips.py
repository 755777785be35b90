"""The clips of an evaluation: what cannot be read is counted, and nothing readable is one sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec.audio.files import write_audio
from codec.corpus import Clip, read_corpus
from eval.harness.clips import read_clips, read_generated, read_reference, shuffled
from eval.harness.scored import ScoredClip


def folder_of(place: Path, good: int, bad: int) -> tuple[Path, list[Clip]]:
    """A corpus that was whole when it was read, and of which ``bad`` files are damaged since."""
    place.mkdir()
    for number in range(good + bad):
        write_audio(place / f"c{number}.wav", np.full(8000, 99, np.int16), 8000)
    clips, _ = read_corpus(place)
    for number in range(bad):
        (place / f"c{number}.wav").write_bytes(b"no audio")
    return place, clips


@pytest.mark.parametrize("row", ["reference", "generated"])
@pytest.mark.parametrize(("good", "bad"), [(0, 1), (0, 3), (1, 2), (2, 0)])
def test_nothing_that_can_be_read_is_one_sentence(
    row: str, good: int, bad: int, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder, clips = folder_of(tmp_path / "corpus", good, bad)

    def read() -> list:
        return read_reference(clips) if row == "reference" else read_generated(folder, clips)[0]

    if good:
        assert sum(clip.wav is None for clip in read()) == bad
        return
    said = refusal(read)
    assert f"none of the {bad} clips can be read, the first because: " in said and "c0.wav" in said


@pytest.mark.parametrize("bad", [0, 1, 200])
def test_what_is_left_out_is_a_count_with_one_example(
    bad: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = folder_of(tmp_path / "corpus", 1, 0)
    lines = ["file_name,text\n", "c0.wav,one\n", *(f"gone{number}.wav,two\n" for number in range(bad))]
    (folder / "metadata.csv").write_text("".join(lines))
    assert len(read_clips(str(folder))) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(said) == min(bad, 1)
    for line in said:
        assert line.startswith(f"{bad} clips of ") and "metadata.csv line 3" in line and "rejected.jsonl" in line


def test_a_shuffled_clip_is_another_one_with_all_that_is_known_of_it() -> None:
    clips = [
        ScoredClip(
            str(n), "generated", f"text {n}", None if n == 2 else np.ones(n + 1), 8000, {"legal": n}, source=n != 2
        )
        for n in range(5)
    ]
    for clip, made in zip(clips, shuffled(clips, 0, "of"), strict=True):
        other = clips[int(made.item["of"])]
        assert (made.id, made.text, made.row) == (clip.id, clip.text, "generated-shuffled")
        assert other is not clip and made.wav is other.wav and made.item["legal"] == other.item["legal"]
        assert made.source == other.source, "what was not delivered stays undelivered under another caption"
