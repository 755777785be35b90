"""Error rates beyond the known answers: kinds of errors, clips that are missing, scripts, and the edges."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from eval.harness.audio import CannotScore
from eval.harness.report import Report, show
from eval.harness.scored import ScoredClip
from eval.judges.judging import known_scores, rate_words, transcribe
from eval.metrics.wer import ErrorRate, edits
from tasks.text import headline, normaliser, plain, scoring_normaliser


def rate(hypotheses: list[str], references: list[str], **options: str) -> float:
    metric = ErrorRate(**options)
    metric.update(hypotheses, references)
    return float(metric.compute())


@pytest.mark.parametrize(
    ("hypothesis", "kinds"),
    [
        ("one two three four", (0, 0, 0)),
        ("one two tree four", (1, 0, 0)),
        ("one two four", (0, 1, 0)),
        ("one two three or four", (0, 0, 1)),
        ("won two three for five", (2, 0, 1)),
        ("two free four and more", (1, 1, 2)),
    ],
)
def test_every_kind_of_error_counts_alone_and_together(hypothesis: str, kinds: tuple[int, int, int]) -> None:
    found = edits("one two three four", hypothesis)
    assert (found.substitutions, found.deletions, found.insertions) == kinds and found.units == 4
    assert found.errors == sum(kinds) and found.rate == pytest.approx(sum(kinds) / 4)
    assert rate([hypothesis], ["one two three four"]) == pytest.approx(sum(kinds) / 4)
    assert rate([hypothesis], ["one two three four"], average="mean") == pytest.approx(sum(kinds) / 4)


@pytest.mark.parametrize(("hypothesis", "kinds"), [("abd", (1, 0, 0)), ("ab", (0, 1, 0)), ("abcc", (0, 0, 1))])
def test_every_kind_of_error_in_characters(hypothesis: str, kinds: tuple[int, int, int]) -> None:
    found = edits("abc", hypothesis, "character")
    assert (found.substitutions, found.deletions, found.insertions) == kinds
    assert found.errors == 1 and found.units == 3 and found.rate == pytest.approx(1 / 3)


def test_a_report_counts_every_kind() -> None:
    """What eval/tts.py and eval/asr.py file goes through the same counts."""
    clips = [ScoredClip(str(i), "row", "one two three four", np.ones(9, np.float32), 16_000) for i in range(3)]
    for clip, said in zip(clips, ("one two tree four", "one two four", "one two three or four"), strict=True):
        clip.item["hypotheses"] = {"judge": said}
    report = Report({}, ["row"])
    rate_words(report, "row", "judge", clips, "plain")
    cell = report.results()["rows"]["row"]["wer/judge"]
    assert (cell["substitutions"], cell["deletions"], cell["insertions"], cell["units"]) == (1, 1, 1, 12)
    assert cell["value"] == pytest.approx(3 / 12) == cell["mean_of_clips"]
    assert [clip.item["wer"]["judge"] for clip in clips] == [0.25] * 3
    assert report.cells["row"]["wer/judge"].parts["2"] == (1.0, 4.0)


def said_by(rows: dict[str, list[str | None]], judge_fails: str = "", source: bool = True) -> dict:
    """Cells of rows whose clips say this (None: not delivered) of four words; the judge fails on the clip named."""
    report = Report({}, list(rows))
    for row, texts in rows.items():
        clips = []
        for number, text in enumerate(texts):
            wav = None if text is None else np.ones(9, np.float32)
            clip = ScoredClip(str(number), row, "one two three four", wav, 16_000, source=source)
            if clip.id == judge_fails:
                clip.item["judge_failures"] = {"judge": "took longer than 120 s"}
            elif text is not None:
                clip.item["hypotheses"] = {"judge": text}
            clips.append(clip)
        rate_words(report, row, "judge", clips, "plain")
    return report.results()["rows"]


def test_half_of_the_clips_missing_is_not_perfect() -> None:
    right = "one two three four"
    rows = said_by({"whole": [right] * 4, "half": [right, None, right, None], "none": [None] * 4, "mute": [""] * 4})
    assert [rows[row]["wer/judge"]["value"] for row in ("whole", "half", "none", "mute")] == [0.0, 0.5, 1.0, 1.0]
    assert [rows[row]["cer/judge"]["value"] for row in ("half", "none")] == [0.5, 1.0]
    cell = rows["half"]["wer/judge"]
    assert (cell["n"], cell["n_failed"], cell["undelivered"], cell["deletions"]) == (4, 0, 2, 8)
    assert "(2 not delivered)" in show("wer/judge", cell, 4)


def test_what_is_not_the_system_s_fault_is_no_score() -> None:
    right = "one two three four"
    failed = said_by({"generated": ["one", right, right]}, judge_fails="0")["generated"]["wer/judge"]
    assert (failed["value"], failed["n"], failed["n_failed"], failed["undelivered"]) == (0.0, 2, 1, 0)
    assert failed["failures"][0]["reason"] == "judge: took longer than 120 s"
    unreadable = said_by({"reference": [None, right]})["reference"]["wer/judge"]
    assert (unreadable["value"], unreadable["n_failed"], unreadable["undelivered"]) == (0.0, 1, 0)
    sourceless = said_by({"resynthesis": [None, right]}, source=False)["resynthesis"]["wer/judge"]
    assert (sourceless["value"], sourceless["n_failed"], sourceless["undelivered"]) == (0.0, 1, 0)


def test_one_clip_that_the_judge_fails_on_is_one_failure() -> None:
    class Slow:
        name = "slow"

        def transcribe(self, waves: list, sample_rate: int) -> list:
            return [CannotScore("took longer than 120 s") if len(wav) == 7 else "one" for wav in waves]

        def how(self) -> dict:
            return {}

    clips = [ScoredClip(str(n), "row", "one", np.full(n, 0.1 * n, np.float32), 16_000) for n in (5, 6, 7, 8)]
    transcribe(Slow(), clips, known_scores("slow", {}, None))
    report = Report({}, ["row"])
    rate_words(report, "row", "slow", clips, "plain")
    cell = report.results()["rows"]["row"]["wer/slow"]
    assert (cell["n"], cell["n_failed"]) == (3, 1) and cell["failures"][0]["ids"] == ["7"]


def test_an_empty_reference_has_no_rate() -> None:
    with pytest.raises(CannotScore, match="empty reference"):
        edits("", "a b c")
    metric = ErrorRate()
    metric.update(["a b c", "a"], ["...", "a"])
    assert metric.empty_references == 1 and float(metric.compute()) == 0.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_clip_gives_no_number() -> None:
    assert torch.isnan(ErrorRate().compute())


def test_plain_normaliser() -> None:
    assert plain("  The Tiger's “tail”, isn't it? 'Yes' — 3_4") == "the tiger's tail isn't it yes 3 4"
    assert plain("don’t") == "don't"
    with pytest.raises(ValueError, match="choose plain"):
        scoring_normaliser("english")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "units"),
    [
        ("今天，天气很好。", "今天天气很好", 0, 6),  # punctuation is no character
        ("今天天气很好", "今天 天气 很好", 0, 6),  # nor is a recogniser's habit
        ("今天天气很好", "今天天汽很好", 1, 6),
        ("สวัสดี ครับ", "สวัสดีครับ", 0, 10),
        ("good day", "goodday", 1, 8),  # elsewhere a space is one
    ],
)
def test_characters_of_scripts_without_spaces(reference: str, hypothesis: str, errors: int, units: int) -> None:
    found = edits(plain(reference), plain(hypothesis), "character")
    assert (found.errors, found.units) == (errors, units)


@pytest.mark.parametrize("name", ["plain", "none", "whisper-english"])
def test_decomposed_letters_are_the_composed_ones(name: str) -> None:
    normalise = scoring_normaliser(name)
    assert edits(normalise("caf\u00e9"), normalise("cafe\u0301 "), "character").errors == 0


@pytest.mark.parametrize("normalise", [plain, normaliser("basic")], ids=["plain", "basic"])
@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "units"),
    [
        ("मैं घर गया", "मैं घर गयी", 1, 3),  # vowels of Hindi are marks: one of three words is another
        ("मैं घर गया", "मैं, घर गया।", 0, 3),
        ("café olé", "cafe\u0301 ole\u0301!", 0, 2),  # composed and decomposed are the same
        ("café", "cafe", 1, 1),
        ("क्\u200dष", "क्ष", 0, 1),  # a joiner forms the letter and is none
        ("so\u00adft", "soft", 0, 1),
        ("Tiếng Việt", "tiếng việt", 0, 2),
        ("über Straße", "Über straße", 0, 2),
        ("Ｆｕｌｌ ﬁre, 5 ㎏", "full fire 5 kg", 0, 4),  # full-width letters, ligatures and units are their letters
        ("ｶﾞ ½", "ガ 1/2", 0, 3),
        ("naï¨ve ´", "naï ve", 0, 2),  # an accent alone is no letter's
    ],
)
def test_marks_are_part_of_a_word_in_every_language(
    normalise: Callable[[str], str], reference: str, hypothesis: str, errors: int, units: int
) -> None:
    found = edits(normalise(reference), normalise(hypothesis))
    assert (found.errors, found.units) == (errors, units)


@pytest.mark.parametrize(
    ("text", "expected"),  # what whisper-normalizer 0.1.15 says, with preserve_marks
    [
        ("Don't, she's O’Neil!", "don t she s o neil"),
        ("Ｆｕｌｌ ﬁre ½ ㎏ ™", "full fire 1 2 kg tm"),
        ("मैं घर, गया।", "मैं घर गया"),
        ("น้ำ", "\u0e19\u0e49\u0e4d\u0e32"),
        ("Café, cafe\u0301", "café café"),
        ("3_4—5 你好，世界", "3 4 5 你好 世界"),
    ],
)
def test_basic_is_whisper_s_basic_normaliser_that_keeps_marks(text: str, expected: str) -> None:
    assert normaliser("basic")(text) == expected


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("今天天气很好", "cer"),
        ("今日はいい天気です", "cer"),
        ("สวัสดีครับ", "cer"),
        ("good day", "wer"),
        ("मैं घर गया", "wer"),
        ("12", "wer"),
    ],
)
def test_characters_are_the_unit_where_words_are_not_set_apart(text: str, unit: str) -> None:
    assert headline([text, ""]) == unit
