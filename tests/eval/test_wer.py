"""Known answers of jiwer's and Seed-TTS' documentation; what happens at the edges."""

import pytest
import torch

from eval.metrics import CannotScore
from eval.metrics.wer import ErrorRate, edits, load_normaliser, normalise_plain


def rate(hypotheses: list[str], references: list[str], **options: str) -> float:
    metric = ErrorRate(**options)  # type: ignore[arg-type]
    metric.update(hypotheses, references)
    return float(metric.compute())


@pytest.mark.parametrize(
    ("references", "hypotheses", "expected"),
    [
        (
            ["this is the reference", "there is another one"],
            ["this is the prediction", "there is an other sample"],
            0.5,
        ),
        (["X"], ["X X Y Y"], 3.0),
        (["X Y X"], ["X Z"], 2 / 3),
        (["hello world", "i like monthy python"], ["hello duck", "i like python"], 1 / 3),
        (["a b c"], [""], 1.0),
    ],
)
def test_word_error_rates(references: list[str], hypotheses: list[str], expected: float) -> None:
    assert rate(hypotheses, references) == pytest.approx(expected, abs=1e-12)


def test_the_mean_of_sentences_is_another_number() -> None:
    references, hypotheses = ["hello world", "i like monthy python"], ["hello duck", "i like python"]
    assert rate(hypotheses, references, average="mean") == pytest.approx(0.375)
    # eight right words and a wrong one: 0.111 of the words, 0.5 of the sentences
    references, hypotheses = ["a b c d e f g h", "i"], ["a b c d e f g h", "j"]
    assert rate(hypotheses, references) == pytest.approx(1 / 9)
    assert rate(hypotheses, references, average="mean") == pytest.approx(0.5)


def test_character_error_rates() -> None:
    assert rate(["i kan cpell", "i hop"], ["i can spell", "i hope"], unit="character") == pytest.approx(3 / 17)
    references = ["this is the reference", "there is another one"]
    hypotheses = ["this is the prediction", "there is an other sample"]
    assert rate(hypotheses, references, unit="character") == pytest.approx(0.34146, abs=1e-5)


def test_counts_by_kind() -> None:
    metric = ErrorRate()
    references = ["this is the reference", "there is another one"]
    metric.update(["this is the prediction", "there is an other sample"], references)
    assert metric.counts().sum(0).tolist() == [3, 0, 1, 8]  # S, D, I, words


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
    assert normalise_plain("  The Tiger's “tail”, isn't it? 'Yes' — 3_4") == "the tiger's tail isn't it yes 3 4"
    assert normalise_plain("don’t") == "don't"
    with pytest.raises(ValueError, match="choose plain"):
        load_normaliser("english")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two point five million", "2500000"),
        ("nine double one", "911"),
        ("he's like", "he is like"),
        (
            "Mr. Park visited Assoc. Prof. Kim Jr.",
            "mister park visited associate professor kim junior",
        ),
    ],
)
def test_whisper_normaliser(text: str, expected: str) -> None:
    pytest.importorskip("whisper_normalizer")
    assert load_normaliser("whisper-english")(text) == expected
