"""Scores are found by content and by judge; a half-written line costs one score."""

from pathlib import Path

import numpy as np
import pytest

from eval.harness import provenance
from eval.harness.audio import audio_hash
from eval.harness.score_cache import EmbeddingCache, ScoreCache


def test_a_judge_that_changed_starts_anew(tmp_path: Path) -> None:
    ScoreCache(tmp_path, "judge", {"model": "a"})["x"] = "words"
    assert ScoreCache(tmp_path, "judge", {"model": "a"})["x"] == "words"
    assert "x" not in ScoreCache(tmp_path, "judge", {"model": "b"})


def test_a_killed_run_loses_one_line(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, "judge", {})
    cache["x"], cache["y"] = 1.0, {"text": "é"}
    cache.path.write_bytes(cache.path.read_bytes()[:-4])
    again = ScoreCache(tmp_path, "judge", {})
    assert "x" in again and "y" not in again
    again["y"] = 2.0
    assert ScoreCache(tmp_path, "judge", {}).scores == {"x": 1.0, "y": 2.0}


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"5", b"null", b'{"key": "z"}', b'{"key": ["z"], "value": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_line_is_left_out_and_said(line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ScoreCache(tmp_path, "judge", {})
    cache["x"] = 1.0
    cache.path.write_bytes(line + b"\n" + cache.path.read_bytes())
    assert ScoreCache(tmp_path, "judge", {}).scores == {"x": 1.0}
    assert capsys.readouterr().out.count("1 damaged lines are left out") == 1


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxruntime"])
def test_another_library_is_another_judge(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ScoreCache(tmp_path, "judge", {})["x"] = 1.0
    EmbeddingCache(tmp_path, "clap", {}).put("x", np.zeros((1, 2), np.float32))
    known = provenance.importlib.metadata.version
    monkeypatch.setattr(provenance.importlib.metadata, "version", lambda name: "99" if name == package else known(name))
    assert "x" not in ScoreCache(tmp_path, "judge", {})
    assert EmbeddingCache(tmp_path, "clap", {}).get("x") is None


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
    assert again.dtype == np.float32 and np.array_equal(again, points)
    assert EmbeddingCache(tmp_path, "clap", {"weights": "b"}).get("x") is None
    assert not list(tmp_path.rglob("*.part"))
    (cache.folder / "x.npy").write_bytes(b"\x93NUMPY")
    assert cache.get("x") is None
    memory = EmbeddingCache(None, "clap", {})
    memory.put("x", points)
    assert memory.get("x") is points
