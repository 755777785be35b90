"""Probes find what is there, do not find what is not, and never train on what they are tested on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import read_json, write_lines
from omegaconf import OmegaConf
from programs import run_program
from tiny_models import tiny_codec

from codec.corpus import Clip
from codec.encode import encode_corpus
from codec.load import load
from eval.harness.protocols import protocol
from eval.probes.linear import LinearProbe, choose_decay, macro_f1, train_ctc
from eval.probes.words import Spelling, choose_spoken, spell
from eval.semantics import label_clips, label_of
from eval.space.features import of_codes
from training.config import ConfigError


def points(count: int, gap: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    return (generator.standard_normal((count, 6)) + gap * np.eye(6)[labels]).astype(np.float32), labels


def test_linear_probe_learns_what_is_there() -> None:
    train, test = points(300, 6.0), points(200, 6.0, seed=1)
    assert (LinearProbe(1e-2).fit(*train, 3).predict(test[0]) == test[1]).mean() > 0.97
    nothing = points(300, 0.0), points(200, 0.0, seed=1)
    assert (LinearProbe(1e-2).fit(*nothing[0], 3).predict(nothing[1][0]) == nothing[1][1]).mean() < 0.45
    # convex: the same answer every time
    assert np.array_equal(*(LinearProbe(1e-2).fit(*train, 3).predict(test[0]) for _ in range(2)))
    assert choose_decay(train, (train[0][:0], train[1][:0]), 3) == 1e-2


def test_macro_f1() -> None:
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 0, 1])) == 1.0
    # class 0: 2·2/(3+2), class 1: 0
    assert macro_f1(np.array([0, 0, 0]), np.array([0, 0, 1])) == pytest.approx(0.4)


@pytest.mark.slow
def test_ctc_probe_spells() -> None:
    generator = np.random.default_rng(0)
    vectors = {letter: generator.standard_normal(8).astype(np.float32) for letter in "abc "}

    def clip(text: str) -> np.ndarray:
        return np.stack([vectors[letter] for letter in text for _ in range(2)])

    texts = ["ab c", "cab", "b a", "abc ba", "c c a"]
    probe = train_ctc([clip(text) for text in texts], texts, steps=120, seed=0, batch_size=5, learning_rate=1e-2)
    assert probe.transcribe([clip(text) for text in texts]) == texts
    # a clip gives the same alone and in a batch
    together = probe.transcribe([clip("ab c"), clip("abc ba")])
    assert together[0] == probe.transcribe([clip("ab c")])[0]


def make(name: str, split: str, label: str | list[str], speaker: str) -> Clip:
    return Clip(name, Path(name), speaker=speaker, domain="sound", split=split, extra={"kind": label})


def test_splits_share_no_group() -> None:
    clips = [
        make("a", "train", "x", "anna"), make("b", "train", "y", "bert"), make("c", "valid", "x", "anna"),
        make("d", "test", "x", "cleo"), make("e", "test", "z", "cleo"), make("f", "train", "x", "cleo"),
        make("g", "train", ["x", "y"], "bert"), make("h", "train", ["y"], "bert"),
    ]  # fmt: skip
    probe = OmegaConf.create({"domain": "sound", "label": "kind", "group": "speaker"})
    data = label_clips(clips, probe, "kind")
    assert data.ids == {"train": ["a", "b", "h"], "valid": ["c"], "test": ["d"]} and data.classes == ["x", "y"]
    assert data.left_out == {
        "f": "its speaker is also in the test split",
        "e": "a label that is not in the train split",
    }
    assert label_of(clips[6], "kind") is None
    with pytest.raises(ConfigError):
        label_clips(clips, OmegaConf.create({"domain": "sound", "label": "speaker", "group": "speaker"}), "who")


def test_a_tokenizer_without_vectors_gets_a_column_per_code() -> None:
    class Plain:
        codebook_sizes = (3, 2)

    found = of_codes(Plain(), np.array([[2, 0], [0, 1]]), 2)
    assert found.tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]


def test_spoken_clips_share_no_text_or_speaker() -> None:
    def clip(name: str, split: str, text: str, speaker: str) -> Clip:
        return Clip(name, Path(name), text=text, speaker=speaker, domain="speech", split=split)

    clips = [
        clip("a", "train", "One two.", "anna"), clip("b", "train", "three", "cleo"), clip("c", "train", "4 5", "bert"),
        clip("d", "test", "one TWO", "cleo"), clip("e", "train", "four", "bert"), clip("f", "valid", "six", "bert"),
        clip("g", "test", "...", "bert"),
    ]  # fmt: skip
    by_text, by_speaker, free = (choose_spoken(clips, group) for group in ("text", "speaker", None))
    assert by_text.train == ["b", "e"] and by_text.test == ["d"] and by_text.texts["d"] == "one two"
    assert by_text.left_out["a"] == "its text is also in the test split" and "a to z" in by_text.left_out["c"]
    assert by_speaker.train == ["a", "e"] and set(by_speaker.left_out) == {"b", "c"}
    assert free.train == ["a", "b", "e"] and choose_spoken(clips, None, train_limit=1).train == ["a"]


@pytest.mark.slow
def test_the_ctc_probe_of_what_is_there_and_of_what_is_not() -> None:
    """slow: trains three small networks. Texts that do not belong to the features cannot be spelt."""
    generator = np.random.default_rng(0)
    vectors = {letter: generator.standard_normal(8).astype(np.float32) for letter in "abc "}
    texts = {str(i): "".join(generator.choice(list("abc")) for _ in range(5)) for i in range(40)}
    features = {n: np.stack([vectors[letter] for letter in text for _ in range(2)]) for n, text in texts.items()}
    data = Spelling(train=list(texts)[:30], test=list(texts)[30:], texts=texts)
    found = spell(features, data, steps=300, runs=2, seed=0)
    wrong = spell(features, data, steps=300, runs=1, seed=0, shuffled=True)
    assert len(found.rates["cer"]) == 2
    (first, second), (chance,) = found.rates["cer"], wrong.rates["cer"]
    assert first < 0.2 < 0.5 < chance and second < chance
    assert spell({}, data, 1, 1, 0) is None


@pytest.mark.slow
def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]) -> None:
    """Low and high tones, a tiny untrained codec: even that keeps apart what a linear probe can tell apart."""
    (tmp_path / "corpus").mkdir()
    generator, rows = np.random.default_rng(0), []
    for split, count in (("train", 8), ("valid", 2), ("test", 6)):
        for number in range(count):
            kind, name = ("low", "high")[number % 2], f"{split}-{number}"
            tone = np.sin(2 * np.pi * (200 if kind == "low" else 3000) * np.arange(20_000) / 16_000)
            wav = 0.2 * tone + 0.01 * generator.standard_normal(20_000)
            soundfile.write(tmp_path / "corpus" / f"{name}.flac", wav.astype(np.float32), 16_000)
            row = {"file_name": f"{name}.flac", "id": name, "split": split, "domain": "speech", "text": "a b"}
            rows.append({**row, "kind": kind})
    write_lines(tmp_path / "corpus/metadata.jsonl", rows)
    tiny_codec().save_pretrained(tmp_path / "codec")
    monkeypatch.chdir(tmp_path)

    def run(*changes: str) -> dict:
        run_program(
            "eval_semantics", "data.root=corpus", "tokenizer.path=codec", "device=cpu", "out=out", "probes=[kind]",
            "runs=2", "+probe.kind={domain:null,label:kind,group:null}", "ctc_steps=2", "ctc_runs=2", "ctc_group=null",
            *changes,
        )  # fmt: skip
        return read_json("out/results.json")

    found = run()["rows"]
    assert list(found) == [
        "levels-1", "levels-1-2", "levels-1-3", "continuous", "log-mel", "duration-and-level", "shuffled-labels",
    ]  # fmt: skip
    assert found["log-mel"]["accuracy/kind"]["value"] == 1.0
    assert found["duration-and-level"]["accuracy/kind"]["value"] < 1.0, "all are as long and as loud"
    assert "cer/ctc-probe" not in found["duration-and-level"]
    cell = found["continuous"]["accuracy/kind"]
    assert (cell["n"], cell["classes"], cell["train_clips"], cell["runs"]) == (6, 2, 8, 2)
    assert found["levels-1"]["cer/ctc-probe"]["n"] == 6 and "cer/ctc-probe" not in found["log-mel"]
    assert found["shuffled-labels"]["cer/ctc-probe"]["runs"] == 2
    cell = found["continuous"]["cer/ctc-probe"]
    assert cell["train_clips"] == 8 and cell["deviation_of_runs"] >= 0
    # all clips say the same: without a text of their own there is nothing to train on
    cell = run("ctc_group=text")["rows"]["levels-1"]["cer/ctc-probe"]
    assert cell["value"] is None and cell["failures"][0]["reason"] == "not computed: no speech with text to train on"
    # token shards hold no audio: every row of tokens, and no continuous one
    encode_corpus("corpus", load("codec"), "tokens", workers=1)
    again = run("ctc_shards=tokens", "ctc_test_limit=4")
    assert again["rows"]["levels-1-2"]["cer/ctc-probe"]["n"] == 4
    reason = again["rows"]["continuous"]["cer/ctc-probe"]["failures"][0]["reason"]
    assert reason == "not computed: token shards hold no audio"
    shutil.copytree("tokens", "elsewhere")
    there = run("ctc_shards=elsewhere", "ctc_test_limit=4")
    hows = [protocol(results["how"], "cer/ctc-probe") for results in (again, there)]
    assert hows[0] == hows[1], "two tokenizers' shards compare"
    tiny_codec(seed=1).save_pretrained("other")
    assert "ctc_shards=tokens was made by" in refusal(run, "ctc_shards=tokens", "tokenizer.path=other")
    assert "probes: there is no 'nothing'" in refusal(run, "probes=[nothing]")
