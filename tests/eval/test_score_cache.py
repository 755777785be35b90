"""Scores are found by content and by judge; a half-written line costs one score."""

from pathlib import Path

import numpy as np

from eval.audio import audio_hash
from eval.score_cache import EmbeddingCache, ScoreCache


def test_a_judge_that_changed_starts_anew(tmp_path: Path) -> None:
    ScoreCache(tmp_path, "judge", {"model": "a"})["x"] = "words"
    assert ScoreCache(tmp_path, "judge", {"model": "a"})["x"] == "words"
    assert "x" not in ScoreCache(tmp_path, "judge", {"model": "b"})


def test_a_killed_run_loses_one_line(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, "judge", {})
    cache["x"], cache["y"] = 1.0, {"text": "é"}
    assert cache.path is not None
    cache.path.write_bytes(cache.path.read_bytes()[:-4])
    again = ScoreCache(tmp_path, "judge", {})
    assert "x" in again and "y" not in again
    again["y"] = 2.0
    assert ScoreCache(tmp_path, "judge", {}).scores == {"x": 1.0, "y": 2.0}


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    cache = ScoreCache(None, "judge", {})
    cache["x"] = 1
    assert cache["x"] == 1 and cache.path is None


def test_the_key_is_the_audio() -> None:
    wav = np.linspace(-1, 1, 100, dtype=np.float32)
    changed = wav.copy()
    changed[50] = np.nextafter(changed[50], 1, dtype=np.float32)
    keys = {audio_hash(wav, 16_000), audio_hash(changed, 16_000), audio_hash(wav, 24_000), audio_hash(wav[:99], 16_000)}
    assert len(keys) == 4 and audio_hash(wav.copy(), 16_000) in keys


def test_embeddings_belong_to_audio_and_network(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "clap", {"weights": "a"})
    points = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cache.get("x") is None
    cache.put("x", points)
    again = EmbeddingCache(tmp_path, "clap", {"weights": "a"}).get("x")
    assert again is not None and again.dtype == np.float32 and np.array_equal(again, points)
    assert EmbeddingCache(tmp_path, "clap", {"weights": "b"}).get("x") is None
    assert not list(tmp_path.rglob("*.part"))
    memory = EmbeddingCache(None, "clap", {})
    memory.put("x", points)
    assert memory.get("x") is points
