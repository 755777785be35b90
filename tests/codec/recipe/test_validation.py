"""Scores of a validation: PESQ at both bands against known ends, and a worker that dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import tiny_codec

import codec.recipe.perceptual
from codec.corpus import Clip
from codec.recipe.perceptual import pesq_scores
from codec.recipe.validation import pitch_kept, validate


def voice(seconds: float = 2.0, rate: int = 24_000, times: float = 1.0) -> np.ndarray:
    """Harmonics of a wandering pitch, ``times`` as high, in syllables: a voice that PESQ finds utterances in."""
    t = np.arange(int(seconds * rate)) / rate
    phase = times * 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    wav = sum(np.sin(k * phase) / k for k in range(1, 25)) * (np.sin(2 * np.pi * 2 * t) > -0.3)
    return (0.1 * wav).astype(np.float32)


@pytest.mark.slow
def test_pesq_of_a_clip_with_itself_is_the_best_there_is() -> None:
    pytest.importorskip("pesq")
    wav = voice()
    noisy = wav + 0.05 * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    same, worse = (pesq_scores([(wav, other)], 24_000) for other in (wav, noisy))
    assert same == pytest.approx({"pesq_wb": 4.644, "pesq_nb": 4.549}, abs=0.01)
    assert worse["pesq_wb"] < 3 and worse["pesq_nb"] < 4
    assert pesq_scores([(wav, wav), (wav, wav * 0)], 24_000)["pesq_failed"] == 1


STOPPED = """
import os, subprocess, threading, time
import numpy as np
from codec.recipe import perceptual
from training.stopping import Stop

popen = subprocess.Popen

def stopped(*given, **named):
    worker = popen(*given, **named)
    popen(["sh", "-c", f"kill -TERM -{os.getpgrp()}"])  # as a cluster's scheduler does
    return worker

stop = Stop().listen()
subprocess.Popen = stopped
wav = np.load("voice.npy")
print(stop.asked, *perceptual.pesq_scores([(wav, wav)], 24_000), stop.asked)
"""


@pytest.mark.slow
def test_what_stops_a_training_lets_its_validation_end(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    np.save(tmp_path / "voice.npy", voice())
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, start_new_session=True)
    assert done.stdout.split() == ["False", "pesq_wb", "pesq_nb", "True"], done.stderr


def test_pitch_is_kept_within_five_percent_where_the_source_has_one() -> None:
    wav, noise = voice(), 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    for output, share in ((wav, 1.0), (voice(times=1.03), 1.0), (voice(times=1.08), 0.0)):
        assert pitch_kept([(wav, output)], 24_000, 320) == pytest.approx(share, abs=0.1)
    assert pitch_kept([(np.zeros_like(wav), wav)], 24_000, 320) == 0, "nothing to keep"
    assert pitch_kept([(wav, noise)], 24_000, 320) < 0.2


def test_a_worker_that_dies_costs_scores_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    (tmp_path / "dying.py").write_text("import os; print('[\"wb0\", 2.5]', flush=True); os.abort()")
    monkeypatch.setattr(codec.recipe.perceptual, "__file__", str(tmp_path / "dying.py"))
    assert pesq_scores([(voice(), voice())], 24_000) == {"pesq_wb": 2.5, "pesq_failed": 1}


def test_nothing_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert pesq_scores([(voice(), voice())], 24_000) == {}


def test_a_broken_clip_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", voice(1.0), 24_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more")
    good, bad = (Clip(name, tmp_path / f"{name}.wav", domain="sound") for name in ("a", "broken"))
    assert validate(tiny_codec(), [bad, good], tmp_path / "both") == validate(tiny_codec(), [good], tmp_path / "one")
    assert "left out of the validation:" in (said := capsys.readouterr().out) and "broken.wav" in said
    assert validate(tiny_codec(), [bad], tmp_path / "none") == {}


@pytest.mark.slow
def test_a_validation_names_its_scores(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), 24_000)
    clips = [Clip("a", tmp_path / "a.wav", "x", domain="speech"), Clip("b", tmp_path / "a.wav", domain="sound")]
    codec, passes = tiny_codec(), []
    codec.encoder.register_forward_hook(lambda *_: passes.append(1))
    scores = validate(codec, clips, tmp_path / "samples")
    assert len(passes) == 2, "each clip is encoded once"
    assert {"stoi", "pitch", "mel", "stft", "usage_1", "perplexity_3"} <= set(scores)
    assert (tmp_path / "samples/spectrograms.png").is_file() and (tmp_path / "samples/b.wav").is_file()
