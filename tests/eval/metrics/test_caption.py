"""Caption metrics: parity with COCO's own scripts where they are installed, and the edges."""

import importlib.util
import json
import shutil
import subprocess
from typing import get_args

import numpy as np
import pytest
from json_files import read_lines

from eval.harness.audio import CannotScore
from eval.harness.report import Report
from eval.judges.captions import rate_classes_named
from eval.metrics.caption import Name, bleu, cider_d, longest_common, rouge_l, score
from eval.metrics.caption_words import words
from eval.metrics.class_words import named, names_class
from eval.metrics.meteor import meteor, meteor_jar
from training.config import REPOSITORY

MINI = REPOSITORY / "data/mini/metadata.jsonl"
HARD = [
    "A man's dog doesn't bark.", 'Someone says "hello" (twice), then it\'s quiet...', "the dogs’ barking … and silence",
    "It cannot be; 2.5 seconds at 10:30 -- a low-pitched hum", "Mr. Smith plays a C# minor chord & claps",
    "1,000 people can't sing, they're shouting!", "An engine revs/idles at 50% speed", "U.S. army band vs. a D.J.",
    "A woman, a child; and a 'quoted' word", "I'm gonna wanna say you've it's he'd they'll",
    "3rd street at 5 p.m. sharp",
]  # fmt: skip


def random_captions(seed: int, items: int = 12) -> tuple[list[str], list[list[str]]]:
    """Candidates and one to four references over a small vocabulary."""
    generator = np.random.default_rng(seed)
    vocabulary = "a the rain dog barks falls while man speaks and loud engine hums".split()

    def sentence() -> str:
        return " ".join(vocabulary[i] for i in generator.integers(0, len(vocabulary), generator.integers(1, 12)))

    return [sentence() for _ in range(items)], [
        [sentence() for _ in range(generator.integers(1, 5))] for _ in range(items)
    ]


def test_words() -> None:
    assert words("A man's dog doesn't bark.") == ["a", "man", "'s", "dog", "does", "n't", "bark"]
    assert words("Rain, heavy rain: 2.5 hours of half-open windows!") == (
        ["rain", "heavy", "rain", "2.5", "hours", "of", "half-open", "windows"]
    )
    assert words("") == words(" ... ") == []
    assert words("मैं घर गया।") == ["मैं", "घर", "गया", "।"] and words("cafe\u0301s") == ["cafés"]


@pytest.mark.slow
def test_words_equal_stanfords() -> None:
    """slow: starts Java. All captions of the embedded corpus and difficult ones."""
    try:
        tokenizer = meteor_jar().parents[1] / "tokenizer"
    except CannotScore as error:
        pytest.skip(error.reason)
    captions = [text for line in MINI.read_text().splitlines() for text in json.loads(line).get("caption", [])]
    captions = [*dict.fromkeys(captions), *HARD]
    program = ["java", "-cp", str(tokenizer / "stanford-corenlp-3.4.1.jar"), "edu.stanford.nlp.process.PTBTokenizer"]
    found = subprocess.run(
        [*program, "-preserveLines", "-lowerCase"],
        input="\n".join(captions),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    dropped = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
    for caption, line in zip(captions, found, strict=False):
        assert words(caption) == [word for word in line.split() if word not in dropped]


@pytest.mark.skipif(importlib.util.find_spec("pycocoevalcap") is None, reason="pycocoevalcap is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_cocos_scripts(seed: int) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider_scorer import CiderScorer
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = random_captions(seed)
    theirs = {i: texts for i, texts in enumerate(references)}, {i: [text] for i, text in enumerate(candidates)}
    ours = [words(text) for text in candidates], [[words(text) for text in texts] for texts in references]
    assert bleu(*ours) == pytest.approx(Bleu(4).compute_score(*theirs, verbose=0)[0], abs=1e-9)
    expected = Rouge().compute_score(*theirs)[1]
    assert [rouge_l(c, r) for c, r in zip(*ours, strict=True)] == pytest.approx(list(expected), abs=1e-12)
    scorer = CiderScorer(n=4, sigma=6.0)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, texts)
    assert cider_d(*ours) == pytest.approx(list(scorer.compute_score()[1]), abs=1e-9)


def test_perfect_and_empty_captions() -> None:
    references = [[words("rain falls on the roof")], [words("a dog barks at a man")]]
    for name in get_args(Name):
        perfect = 10.0 if name == "cider-d" else 1.0
        assert score(name, [texts[0] for texts in references], references) == pytest.approx(perfect, abs=1e-6)
        assert score(name, [[], []], references) == pytest.approx(0.0, abs=1e-6)


def test_what_has_no_score() -> None:
    for candidates, references in (([], []), ([["a"]], []), ([["a"]], [[]]), ([["a"]], [[[]]])):
        with pytest.raises(CannotScore):
            bleu(candidates, references)
    with pytest.raises(CannotScore, match="at least 2 items"):
        cider_d([["a"]], [[["a"]]])


def test_longest_common_subsequence() -> None:
    assert longest_common("abcbdab", "bdcaba") == 4 and longest_common("", "abc") == 0


def test_meteor_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotScore, match="not computed: METEOR needs Java"):
        meteor([["a"]], [[["a"]]], java="no-such-java")
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/java")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CannotScore, match="pip install pycocoevalcap"):
        meteor([["a"]], [[["a"]]])


@pytest.mark.parametrize(
    ("caption", "name", "expected"),
    [
        ("A big dog barks.", "dog", True),
        ("Two DOGS bark", "dog", True),
        ("A hot-dog stand", "dog", False),
        ("Small waves roll ashore", "waves", True),
        ("A wave breaks", "waves", True),
        ("Somebody is typing", "typing", True),
        ("Someone types fast", "typing", True),
        ("A music box plays", "music box", True),
        ("Music from a box", "music box", False),
        ("box music", "music_box", False),
        ("The bass's line", "bass", True),
        ("It rains on the train", "rain", True),
        ("A train passes", "rain", False),
        ("", "rain", False),
        ("A puppy whines", "dog", True),
    ],
)
def test_a_caption_names_a_class(caption: str, name: str, expected: bool) -> None:
    assert names_class(caption, name, {"dog": ["puppy"]}) is expected


def test_classes_named_in_a_row() -> None:
    classes = {"a": ["dog", "rain"], "b": ["rain"], "c": [], "d": ["dog"], "e": ["siren"]}
    said = {"a": "A dog barks in the rain", "b": "A dog barks", "c": "Rain", "d": ""}
    report = Report({}, ["row"])
    found = rate_classes_named(report, "row", said, classes, {"e": "no audio"})
    row = report.results()["rows"]["row"]
    assert row["class-named"]["value"] == pytest.approx(1 / 3) and row["class-named"]["n_failed"] == 2
    assert row["class-named-all"]["value"] == pytest.approx(1 / 3)
    assert row["class-wrong"]["value"] == pytest.approx(1 / 3)  # b, where it rains
    assert row["class-named"]["classes"]["dog"] == {"n": 2, "named": 1}
    assert found == {"a": ["dog", "rain"], "b": ["dog"], "d": []}


@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_file(), reason="no embedded corpus")
def test_every_caption_of_the_embedded_corpus_names_its_class() -> None:
    rows = read_lines(MINI)
    described = [(row, row.get("classes") or [row["instrument"]]) for row in rows if row["domain"] != "speech"]
    known = {domain: {n for row, names in described if row["domain"] == domain for n in names}
             for domain in ("sound", "music")}  # fmt: skip
    for row, names in described:
        for caption in row["caption"]:
            assert named(caption, known[row["domain"]]) == set(names), caption
