"""Evaluations side by side: what is one column, which items are shown, and over which clips a mean is taken."""

import json
from pathlib import Path

import page_fixtures as made
import pytest
from json_files import read_lines, write_lines

from page.data import read_evaluation
from page.sections import Section, make_sections


def sections_of(*folders: Path, views: tuple[str, ...] = ("random", "best", "worst"), count: int = 2, **more: object):
    found = make_sections([read_evaluation(folder) for folder in folders], views, count, **{"seed": 0, **more})
    return {section.key: section for section in found}


def titles(section: Section) -> list[str]:
    return [" ".join([system.row, *system.names]) for system in section.systems]


@pytest.fixture
def codecs(tmp_path: Path) -> tuple[Path, Path]:
    first = made.reconstruction(tmp_path / "runs" / "a" / "eval-reconstruction", count=6)
    return first, made.reconstruction(tmp_path / "runs" / "b" / "eval-reconstruction", count=6, window=3, offset=0.2)


def test_systems_stand_side_by_side_and_what_is_the_same_stands_once(codecs: tuple[Path, Path]) -> None:
    section = sections_of(*codecs)["reconstruction-speech"]
    assert titles(section) == ["reference a b", "resynthesis a", "resynthesis b"]
    assert [(s.bitrate, s.tokens) for s in section.systems] == [(None, None), (412.5, 37.5), (825.0, 75.0)]


def test_another_recording_is_another_column(codecs: tuple[Path, Path]) -> None:
    made.write_wav(codecs[1], "reference", "clip0", made.tone(1.0, 16000, 440.0), 16000)
    found = sections_of(*codecs, views=("all",))["reconstruction-speech"]
    assert titles(found)[:2] == ["reference a", "reference b"]


def test_controls_stand_on_the_right(tmp_path: Path) -> None:
    folders = [made.tts(tmp_path / "runs" / name / "eval-tts", seconds=0.2, loud=loud)
               for name, loud in (("a", 0.4), ("b", 0.2))]  # fmt: skip
    section = sections_of(*folders)["tts"]
    rows = ["reference", "resynthesis", "generated", "generated-shuffled"]
    assert titles(section) == [f"{row} {name}" for row in rows for name in "ab"]
    assert [s.control for s in section.systems] == [False] * 6 + [True] * 2


def test_the_draw_follows_the_seed(codecs: tuple[Path, Path]) -> None:
    draws = [sections_of(*codecs, seed=seed)["reconstruction-speech"].views["random"] for seed in range(8)]
    assert draws[0] == sections_of(*codecs, seed=0)["reconstruction-speech"].views["random"]
    assert len({tuple(draw) for draw in draws}) > 1 and all(len(draw) == 2 for draw in draws)


def test_best_and_worst_go_by_the_judged_columns(codecs: tuple[Path, Path]) -> None:
    section = sections_of(*codecs)["reconstruction-speech"]
    assert section.rank == ["stoi"]  # more is better: item 0 is best
    assert section.views["best"] == ["speech-0", "speech-1"] and section.views["worst"] == ["speech-5", "speech-4"]
    section = sections_of(*codecs, rank="mel-distance")["reconstruction-speech"]  # less is better
    assert section.views["best"] == ["speech-0", "speech-1"] and section.rank == ["mel-distance"]


def test_a_clip_of_which_nothing_came_is_the_worst(tmp_path: Path) -> None:
    folder = made.tts(tmp_path / "runs" / "a" / "eval-tts", seconds=0.2)
    lines = (folder / "items.jsonl").read_text().splitlines()
    broken = [
        '{"id": "id/../1", "row": "generated", "text": "a", "error": "the model generated no audio"}'
        if '"id/../1"' in line and '"row": "generated",' in line else line for line in lines
    ]  # fmt: skip
    (folder / "items.jsonl").write_text("\n".join(broken))
    assert sections_of(folder, count=1)["tts"].views["worst"] == ["id/../1"]


def test_without_scores_there_is_no_best(tmp_path: Path) -> None:
    section = sections_of(made.text_to_audio(tmp_path / "runs" / "a" / "eval-x", "sound"))["text-to-sound"]
    assert list(section.views) == ["random"] and section.rank == []


def test_clips_are_ranked_by_the_class_that_a_judge_heard(tmp_path: Path) -> None:
    folder = made.text_to_audio(tmp_path / "runs" / "a" / "eval-x", "sound", classes=True)
    section = sections_of(folder, count=1)["text-to-sound"]
    assert section.rank == ["class-accuracy"]
    assert section.views["best"] == ["sound0"] and section.views["worst"] == ["sound2"]
    clip = section.systems[1].clip("sound2")
    assert clip.notes == ["heard as wind (80 %), asked: rain"]
    assert clip.scores == {"class-accuracy": 0.0}


def test_only_the_items_of_some_view_are_kept(codecs: tuple[Path, Path]) -> None:
    section = sections_of(*codecs, count=1, views=("best",))["reconstruction-speech"]
    assert [item.id for item in section.items] == ["speech-0"] and section.total == 6
    assert len(sections_of(*codecs, views=("all",))["reconstruction-speech"].items) == 6


def test_items_that_one_evaluation_lacks_are_left_out_and_counted(tmp_path: Path, codecs: tuple[Path, Path]) -> None:
    less = made.reconstruction(tmp_path / "runs" / "c" / "eval-reconstruction", count=4)
    section = sections_of(codecs[0], less)["reconstruction-speech"]
    assert section.total == 4 and any("4 that all of them have; 2 others" in remark for remark in section.remarks)
    other = made.reconstruction(tmp_path / "runs" / "d" / "eval-reconstruction", ("music",))
    assert set(sections_of(codecs[0], other)) == {"reconstruction-speech", "reconstruction-music"}


def test_a_mixed_report_is_split_by_domain(tmp_path: Path) -> None:
    folder = made.reconstruction(tmp_path / "runs" / "a" / "eval-reconstruction", ("sound", "music"), count=3)
    found = sections_of(folder)
    assert set(found) == {"reconstruction-sound", "reconstruction-music"}
    whole = found["reconstruction-sound"].evaluations[0].table["resynthesis"]["stoi"]
    assert whole["n"] == 6
    for section in found.values():
        cell = section.score(section.systems[1], "stoi")
        assert cell["n"] == 3 and cell["value"] == pytest.approx(0.8) and cell["low"] is None
        whole = section.score(section.systems[1], "real-time-factor")  # has no parts
        assert whole["of"] == "all domains"
    (folder / "clips.json").unlink()  # an older evaluation
    section = sections_of(folder)["reconstruction-sound"]
    cell = section.score(section.systems[1], "stoi")
    assert cell["n"] == 6 and cell["of"] == "all domains"


def test_scores_of_one_column_from_several_evaluations_are_joined(codecs: tuple[Path, Path]) -> None:
    items = codecs[1] / "items.jsonl"
    items.write_text(items.read_text().replace('"row": "reference", ', '"row": "reference", "wer": {"ctc": 0.5}, '))
    section = sections_of(*codecs, views=("all",))["reconstruction-speech"]
    assert len(section.systems[0].sources) == 2
    clip = section.systems[0].clip("speech-0")
    assert clip.scores == {"wer/ctc": 0.5}


@pytest.mark.parametrize(
    ("scores", "rank", "best", "unranked"),
    [  # per clip: {judge: WER}
        (({"a": 0.2, "b": 0.8}, {"a": 0.3}, {"a": 0.1, "b": 0.9}), ["wer/a"], [2, 0, 1], 0),  # no mean of what there is
        (({"a": 0.2, "b": 0.8}, {"a": 0.3, "b": 0.1}, {"a": 0.1, "b": 0.8}), ["wer/a", "wer/b"], [1, 2, 0], 0),
        (({"a": 0.2}, {"a": 0.3}, {"b": 0.0}), ["wer/a"], [0, 1], 1),
        (({"a": 0.2}, {}, {"a": 0.1}), ["wer/a"], [2, 0], 1),
    ],
)  # fmt: skip
def test_ranked_clips_share_all_judges(
    scores: tuple[dict[str, float], ...], rank: list[str], best: list[int], unranked: int, tmp_path: Path
) -> None:
    folder = made.tts(tmp_path / "runs" / "a" / "eval-tts", seconds=0.2)
    lines = read_lines(folder / "items.jsonl")
    for line in lines:
        line["wer"] = scores[int(line["id"][-1])]
        del line["dnsmos"]
    write_lines(folder / "items.jsonl", lines)
    section = sections_of(folder, count=3)["tts"]
    assert section.rank == rank and section.views["best"] == [f"id/../{number}" for number in best]
    assert section.views["worst"] == section.views["best"][::-1]
    assert any(f"{unranked} items lack a score" in remark for remark in section.remarks) == bool(unranked)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a")])
def test_references_that_differ_have_titles_that_differ(names: tuple[str, str], tmp_path: Path) -> None:
    folders = [made.tts(tmp_path / str(n) / name / "eval-tts", seconds=0.2 + n / 10) for n, name in enumerate(names)]
    titles = [s.title for s in sections_of(*folders)["tts"].systems if s.row == "reference"]
    assert len(titles) == len(set(titles)) == 2 and all(
        name in title for name, title in zip(names, titles, strict=True)
    )


def test_characters_lead_where_words_are_not_set_apart(tmp_path: Path) -> None:
    folder = made.tts(tmp_path / "runs" / "a" / "eval-tts", seconds=0.2)
    for name in ("results.json", "clips.json"):
        record = json.loads((folder / name).read_text().replace('"wer/', '"cer/'))
        if name == "results.json":
            record["how"]["headline"] = "cer"
        (folder / name).write_text(json.dumps(record))
    section = sections_of(folder)["tts"]
    assert section.rank == section.headline()[:1] == ["cer/ctc"]
