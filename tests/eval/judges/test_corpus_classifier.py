"""The classifier that is trained on a corpus' own classes: it learns, is the same every time and knows its limits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from json_files import write_lines

import eval.judges.corpus_classifier as subject
from codec.corpus import Clip, read_corpus
from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.judges.classes import judge_classes, rate_classes
from eval.judges.corpus_classifier import ClassifierError, CorpusClassifier, Recipe, classes_of, find_key
from eval.judges.judging import known_scores

RATE = 24_000
SMALL = Recipe(steps=40, batch_size=8, crop_seconds=1.0, width=4)


def sound(kind: str, seed: int, seconds: float = 1.5) -> np.ndarray:
    """A hum, a hiss or clicks: classes that a few steps tell apart."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = {
        "hum": np.sin(2 * np.pi * generator.uniform(100, 200) * time),
        "hiss": np.diff(generator.standard_normal(len(time) + 1)),
        "clicks": (np.sin(2 * np.pi * 4 * time + seed) > 0.995) * np.sin(2 * np.pi * 2500 * time),
    }[kind]
    return (generator.uniform(0.05, 0.3) * wave).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    rows = []
    for split, count in (("train", 8), ("valid", 1), ("test", 2)):
        for number in range(count):
            for place, kind in enumerate(("hum", "hiss", "clicks")):
                name = f"{split}-{kind}-{number}"
                soundfile.write(root / f"{name}.wav", sound(kind, 10 * number + place), RATE)
                rows.append({"file_name": f"{name}.wav", "id": name, "domain": "sound", "split": split,
                             "classes": [kind], "caption": [f"a {kind}"]})  # fmt: skip
    write_lines(root / "metadata.jsonl", rows)
    return root


@pytest.fixture(scope="module")
def judge(corpus: Path) -> CorpusClassifier:
    return CorpusClassifier.for_corpus(read_corpus(corpus)[0], "sound", recipe=SMALL)


def test_learns_the_classes(judge: CorpusClassifier) -> None:
    assert judge.classes == ["clicks", "hiss", "hum"] and judge.record["key"] == "classes"
    for kind in judge.classes:
        for seed in (901, 902):
            heard, probability = judge.classify(sound(kind, seed), RATE)
            assert heard == kind and probability > 0.5
        # neither level nor sample rate nor length are the class
        assert judge.classify(0.01 * sound(kind, 903, 12.0), RATE)[0] == kind
    assert judge.record["valid_accuracy"] == 1.0 and judge.record["train_clips"] == 24
    assert judge.posterior(sound("hum", 5), 16_000).sum() == pytest.approx(1.0)


@pytest.mark.slow
def test_equal_corpora_have_equal_judges(corpus: Path, judge: CorpusClassifier) -> None:
    """Whatever was drawn before, and with any number of threads."""
    torch.rand(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        again = CorpusClassifier.for_corpus(read_corpus(corpus)[0], "sound", recipe=SMALL)
        assert torch.equal(torch.get_rng_state(), state)  # and what comes after does not notice
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again.how() == judge.how()


def test_kept_by_content(
    corpus: Path, judge: CorpusClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_corpus(corpus)[0]
    trained = []

    def train(*arguments: object) -> object:
        trained.append(arguments)
        return judge.network

    monkeypatch.setattr(subject, "train_network", train)
    first = CorpusClassifier.for_corpus(clips, "sound", None, tmp_path, SMALL)
    second = CorpusClassifier.for_corpus(clips, "sound", "classes", tmp_path, SMALL)
    assert len(trained) == 1 and first.how() == second.how()
    wav = sound("hiss", 77)
    assert np.array_equal(first.posterior(wav, RATE), second.posterior(wav, RATE))
    CorpusClassifier.for_corpus(clips, "sound", None, tmp_path, Recipe(steps=41, width=4))  # another recipe
    CorpusClassifier.for_corpus(clips[:-1], "sound", None, tmp_path, SMALL)  # without a test clip: the same
    CorpusClassifier.for_corpus(clips[1:], "sound", None, tmp_path, SMALL)  # without a train clip: another
    assert len(trained) == 3
    (folder, *_) = tmp_path.glob("corpus-classifier-*")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ClassifierError, match="delete the folder"):
        CorpusClassifier.load(folder)


def test_only_real_recordings_of_the_train_split_are_learnt(
    corpus: Path, judge: CorpusClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = subject.read_audio
    monkeypatch.setattr(subject, "read_audio", lambda path, rate: read.append(path.name) or original(path, rate))
    monkeypatch.setattr(subject, "train_network", lambda *_: judge.network)
    CorpusClassifier.for_corpus(read_corpus(corpus)[0], "sound", recipe=SMALL)
    assert {name.split("-")[0] for name in read} == {"train", "valid"}  # valid: its accuracy, after training
    assert [name.startswith("train") for name in read] == [True] * 24 + [False] * 3


def test_keys() -> None:
    def clip(**extra: object) -> Clip:
        return Clip("a", Path("a.wav"), extra=extra)

    assert classes_of(clip(classes=["rain", "dog"]), "classes") == ["rain", "dog"]
    assert classes_of(clip(instrument="piano"), "instrument") == ["piano"] and classes_of(clip(), "label") == []
    assert find_key([clip(instrument="piano"), clip(label=3)], "sound") == "instrument"
    assert find_key([clip(mood="calm")], "sound") is None
    with pytest.raises(ClassifierError, match="no sound clip of the train split has classes"):
        CorpusClassifier.for_corpus([clip(mood="calm")], "sound")
    with pytest.raises(ClassifierError, match="have 0 classes in 'mood'"):  # the file is not there
        CorpusClassifier.for_corpus([clip(mood="calm")], "sound", "mood")


def test_rows_of_a_report(corpus: Path, judge: CorpusClassifier, tmp_path: Path) -> None:
    def clip(name: str, kind: str | None) -> ScoredClip:
        return ScoredClip(name, "generated", "", None if kind is None else sound(kind, 500), RATE)

    clips = [clip("a", "hum"), clip("b", "hum"), clip("c", "hiss"), clip("d", None), clip("e", "hum"), clip("f", "hum")]
    clips[5].wav = np.zeros(100, np.float32)
    requested = {"a": ["hum"], "b": ["hiss", "hum"], "c": ["hiss"], "d": ["hum"], "e": ["siren"], "f": ["hum"]}
    report = Report({}, ["generated"])
    for _ in range(2):  # the second time from the cache
        rate_classes(report, "generated", judge, clips, requested, known_scores(judge.name, judge.how(), tmp_path))
    cell = report.results()["rows"]["generated"]["class-accuracy"]
    # in what was not delivered nothing is heard; what the judge cannot judge is in no mean
    assert cell["value"] == 2 / 4 and (cell["n"], cell["n_failed"], cell["undelivered"]) == (4, 2, 1)
    assert cell["chance"] == pytest.approx(1 / 3)
    assert cell["classes"]["hiss"] == {"n": 2, "right": 1, "heard": 1}
    assert cell["classes"]["hum"] == {"n": 2, "right": 1, "heard": 2}
    assert {found["reason"] for found in cell["failures"]} == {
        "shorter than 0.1 s", "no class in 'classes' that the judge knows",
    }  # fmt: skip
    among = report.results()["rows"]["generated"]["class-accuracy-any"]
    assert (among["value"], among["n"], among["undelivered"]) == (0.75, 4, 1)
    assert clips[1].item["class"]["requested"] == ["hiss", "hum"] and clips[1].item["class"]["heard"] == "hum"


def test_a_corpus_without_classes_is_not_computed(tmp_path: Path) -> None:
    report = Report({}, ["reference"])
    clips = [ScoredClip("a", "reference", "", sound("hum", 1), RATE)]
    said = judge_classes(report, {"reference": clips}, [Clip("a", tmp_path / "a.wav")], "sound", None, None)
    cell = report.results()["rows"]["reference"]["class-accuracy"]
    assert cell["value"] is None and cell["failures"][0]["reason"].startswith("not computed: no sound clip")
    assert said.startswith("class-accuracy: not computed")


def test_the_noise_vocoder_keeps_the_envelopes_and_loses_the_rest() -> None:
    power = torch.full((64, 4000), 1e-3)
    power[20:30, 1000:3000] = 1.0  # a band that sounds in the middle
    recipe, generator = Recipe(), np.random.default_rng(3)
    several = torch.stack([subject._noise_vocode(power, recipe, generator) for _ in range(8)])
    inside, outside = several[:, 23:27, 1010:2990], several[:, 40:, :]
    np.testing.assert_allclose(inside.mean((1, 2)).numpy(), 1.0, rtol=0.1)  # 8,000 cells of mean 1
    np.testing.assert_allclose(outside.mean((1, 2)).numpy(), 1e-3, rtol=0.05)
    spread = inside.std((1, 2)).numpy()  # gamma of shape 1 ... 6: 1 / sqrt(shape)
    assert 0.35 < spread.min() and spread.max() < 1.1 and np.ptp(spread) > 0.1
    assert torch.equal(power[20:30, 1000:3000], torch.ones(10, 2000))  # the clip itself is left as it was


def test_the_recipe_can_do_without_the_vocoder_and_then_is_another_judge(corpus: Path) -> None:
    plain = CorpusClassifier.for_corpus(read_corpus(corpus)[0], "sound", recipe=replace(SMALL, vocoded=0.0, steps=4))
    vocoded = CorpusClassifier.for_corpus(read_corpus(corpus)[0], "sound", recipe=replace(SMALL, steps=4))
    assert plain.record["weights_sha256"] != vocoded.record["weights_sha256"]
