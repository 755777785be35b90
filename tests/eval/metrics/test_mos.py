"""DNSMOS: deterministic, equal to the package it takes its networks from, and no score for what is no audio."""

import importlib.util

import numpy as np
import pytest

from codec.corpus import read_audio
from eval.harness.audio import CannotScore
from eval.metrics.mos import DNSMOS
from eval.metrics.mos_worker import WINDOW, windows
from training.config import REPOSITORY

if not all(importlib.util.find_spec(name) for name in ("speechmos", "onnxruntime")):
    pytest.skip("speechmos or onnxruntime is not installed", allow_module_level=True)

CLIP = REPOSITORY / "data/mini/speech/speech-test-0000.flac"


@pytest.mark.slow
def test_scores_do_not_change_and_failures_have_reasons() -> None:
    wav = read_audio(CLIP, 16_000)
    nan = wav.copy()
    nan[5] = np.nan
    with DNSMOS(processes=1) as judge:
        first, second, broken, short = judge.score([wav, wav, nan, wav[:100]], 16_000)
        how = judge.how()
    assert isinstance(first, dict) and first == second and set(first) == {"p808", "sig", "bak", "ovrl"}
    assert all(1.0 < value < 5.0 for value in first.values())
    assert isinstance(broken, CannotScore) and broken.reason == "NaN or infinite samples"
    assert isinstance(short, CannotScore) and short.reason == "shorter than 0.1 s"
    assert set(how["sha256"]) == {"p835", "p808"}


def test_windows_follow_the_reference() -> None:
    """Microsoft's script: doubled until 9.01 s, hop 1 s, int(floor(seconds) - 9.01) + 1 windows."""
    assert len(windows(np.zeros(WINDOW, np.float32))) == 1
    assert len(windows(np.zeros(3 * 16_000, np.float32))) == 3  # 12 s
    assert len(windows(np.zeros(20 * 16_000, np.float32))) == 11
    assert all(len(part) == WINDOW for part in windows(np.zeros(50_000, np.float32)))


@pytest.mark.slow
def test_equals_the_package() -> None:
    """slow: the package imports librosa, which compiles."""
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    wav = read_audio(CLIP, 16_000)
    theirs = dnsmos.run(wav, 16_000)
    with DNSMOS(processes=1) as judge:
        (ours,) = judge.score([wav], 16_000)
    assert isinstance(ours, dict)
    for name, value in ours.items():
        assert value == pytest.approx(float(theirs[f"{name}_mos"]), abs=1e-5)
