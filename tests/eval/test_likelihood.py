"""eval/likelihood.py: what must come out is known for a model that knows nothing, and bounds hold for one that does."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from json_files import read_lines

from codec.encode import encode_corpus
from codec.load import load
from codec.shards import read_shards
from eval.likelihood import unigram_bits
from lm.model import load_lm, save_lm
from tests.eval.tiny_task import build, evaluate
from training.config import compose


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("likelihood"), "all")
    encode_corpus(root / "corpus", load(str(root / "codec")), root / "tokens", workers=1)
    model, vocabulary, text = load_lm(root / "runs/lm-tiny/final")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    save_lm(root / "ignorant", model, vocabulary, text)
    return root


def bits(folder: Path, *overrides: str) -> dict:
    keys = (f"tokens={folder / 'tokens'}", "data.tokens=null", "cache=null")
    return evaluate("eval_likelihood", folder, *keys, *overrides)[0]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tts", "text_to_sound"])
def test_a_model_that_knows_nothing_needs_the_bit_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Uniform over what is legal: the codes of each level, and for the first level also the end."""
    monkeypatch.chdir(folder)
    rows = bits(folder, f"model={folder / 'ignorant'}", f"task={task}")["rows"]
    tokenizer = load(str(folder / "codec"))
    sizes = tokenizer.codebook_sizes
    items = read_lines("out/items.jsonl")
    frames = [item["frames"] for item in items if item["row"] == "own-condition"]
    domains = {row.id: row.domain for row in read_shards(folder / "tokens")}
    assert {domains[item["id"]] for item in items} == {"speech" if task == "tts" else "sound"}  # not music's captions
    per_frame = math.log2(sizes[0] + 1) + sum(math.log2(size) for size in sizes[1:])
    seconds = sum(frames) / tokenizer.frame_rate
    expected = (sum(frames) * per_frame + len(frames) * math.log2(sizes[0] + 1)) / seconds
    for row in ("own-condition", "wrong-condition"):
        assert rows[row]["bits-per-second"]["value"] == pytest.approx(expected, rel=1e-5)
        assert rows[row]["perplexity/level-1"]["value"] == pytest.approx(sizes[0] + 1, rel=1e-5)
        assert rows[row]["perplexity/level-2"]["value"] == pytest.approx(sizes[1], rel=1e-5)
    assert rows["uniform"]["bits-per-second"]["value"] == pytest.approx(tokenizer.bitrate, rel=1e-6)
    assert rows["uniform"]["perplexity/level-3"]["value"] == pytest.approx(sizes[2])
    assert rows["unigram"]["bits-per-second"]["value"] < rows["uniform"]["bits-per-second"]["value"]
    assert "accuracy/level-1" not in rows["uniform"]
    whole = bits(folder, f"model={folder / 'ignorant'}", f"task={task}", "over=all")["rows"]["own-condition"]
    vocabulary = load_lm(folder / "ignorant")[1]
    assert whole["perplexity/level-2"]["value"] == pytest.approx(vocabulary.size, rel=1e-5)


def test_equal_to_the_losses_of_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation packs documents and adds over processes; both must come to the same bits per second."""
    from hydra.utils import instantiate

    from lm.network.objective import Objective
    from lm.recipe.validation import Validation

    monkeypatch.chdir(folder)
    rows = bits(folder, "task=tts")["rows"]
    model, vocabulary, text = load_lm(folder / "runs/lm-tiny/final")
    task = instantiate(compose("eval_likelihood", []).task)
    tested = [row for row in read_shards(folder / "tokens") if row.split == "test" and task.accepts(row)]
    validation = Validation(tested, task, vocabulary, text, 512, 100, 0)
    values = validation.run(Objective(model, vocabulary, True), torch.device("cpu"), 4, 0, 1, lambda sums: sums)
    own = rows["own-condition"]
    assert own["bits-per-second"]["value"] == pytest.approx(values["bits_per_second"], rel=1e-5)
    assert math.log(own["perplexity/level-2"]["value"]) == pytest.approx(values["loss_2"], rel=1e-5)
    assert own["accuracy/level-1"]["value"] == pytest.approx(values["accuracy_1"])
    assert rows["wrong-condition"]["bits-per-second"]["n"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("task", ["continuation", "voice_prompted_tts", "interleaved"])
def test_only_what_is_learnt_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """Of a continuation the rest, of a passage every sentence; all rows count the same audio."""
    monkeypatch.chdir(folder)
    results = bits(folder, f"model={folder / 'ignorant'}", f"task={task}")
    clips = {r.id: r for r in read_shards(folder / "tokens") if r.split == "test"}
    items = read_lines("out/items.jsonl")
    for item in (item for item in items if item["row"] == "own-condition"):
        frames = len(clips[item["id"]].codes)
        if task == "continuation":
            frames -= round(0.5 * frames)
        if task == "interleaved":
            frames = sum(len(clip.codes) for clip in clips.values() if clip.domain == "speech")
        assert item["frames"] == frames
    tokenizer = load(str(folder / "codec"))
    rows = results["rows"]
    assert rows["uniform"]["bits-per-second"]["value"] == pytest.approx(tokenizer.bitrate, rel=1e-6)
    sizes = tokenizer.codebook_sizes
    assert rows["own-condition"]["perplexity/level-2"]["value"] == pytest.approx(sizes[1], rel=1e-5)
    assert list(rows["unigram"]) and rows["unigram"]["bits-per-second"]["n"] == rows["uniform"]["bits-per-second"]["n"]


def test_a_task_that_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    results = bits(folder, "task=asr")
    assert list(results["rows"]) == ["own-condition", "wrong-condition"]
    cell = results["rows"]["own-condition"]["perplexity/text"]
    assert cell["n"] == 3 and cell["value"] > 1 and cell["low"] is None, "three clips have no interval"
    assert [part["of"]["metric"] for part in results["differences"]] == ["bits-per-token/text"]


def test_frequencies_are_of_the_train_split() -> None:
    found = unigram_bits({"a": np.array([[0, 1], [3, 1]])}, [np.array([[0, 1], [0, 1]])], (4, 2))
    # level 1: counts 3, 1, 1, 1 of 6; level 2: 1, 3 of 4
    assert found["a"] == pytest.approx([1 + math.log2(6), -2 * math.log2(3 / 4)])


def test_what_is_missing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]) -> None:
    monkeypatch.chdir(folder)
    for overrides, said in (
        (["tokens=nothing"], "nothing is not there"),
        (["split=dev"], "has no dev clips for tts"),
    ):  # fmt: skip
        assert said in refusal(bits, folder, *overrides)
