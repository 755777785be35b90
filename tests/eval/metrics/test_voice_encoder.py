"""The GE2E voice encoder: equal to the package whose weights it reads, and strict about what it reads."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.harness.networks import NetworkError
from eval.known_answers import speechlike
from eval.metrics.voice_encoder import GE2E, VoiceEncoder, find_weights, mel_power, part_starts, raise_level

RATE = 16_000


def checkpoint(path: Path, hidden: int = 8) -> Path:
    """Random weights in the published layout."""
    torch.manual_seed(0)
    state = GE2E(hidden).state_dict() | {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}}, path)
    return path


def test_reads_the_published_layout_and_nothing_else(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "pretrained.pt")
    judge = VoiceEncoder(path)
    clip = speechlike(2.0)
    vector = judge.embed(clip, RATE)
    assert vector.shape == (8,) and np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    assert judge.similarity(clip, clip, RATE) == pytest.approx(1.0, abs=1e-6)
    assert judge.description["id"] == "resemblyzer-ge2e"
    state = torch.load(path, weights_only=True)
    for change in ({"extra.weight": torch.ones(1)}, {}):
        broken = dict(state["model_state"]) | change
        if not change:
            del broken["lstm.bias_hh_l2"]
        torch.save({"model_state": broken}, tmp_path / "broken.pt")
        with pytest.raises(NetworkError, match="is no GE2E voice encoder's checkpoint"):
            GE2E.load(tmp_path / "broken.pt")
    torch.save({"weights": 1}, tmp_path / "broken.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    for name in ("broken", "text", "empty", "gone"):
        with pytest.raises(NetworkError, match=f"{name}.pt is no GE2E voice encoder's checkpoint"):
            GE2E.load(tmp_path / f"{name}.pt")


def test_parts_of_a_clip() -> None:
    assert part_starts(8000) == [0] and part_starts(25_600) == [0]  # 0.5 s, 1.6 s
    assert part_starts(48_000) == [0, 77, 154]  # 3 s: the part from 1.54 s is filled to nine tenths
    assert part_starts(30_000) == [0]  # 1.9 s: the part from 0.77 s would be filled to 0.69


@pytest.mark.skipif(find_weights() is None, reason="Resemblyzer is not installed (pip install --no-deps Resemblyzer)")
def test_equal_to_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Network, mel, parts and level; webrtcvad is stubbed, because pauses stay."""
    pytest.importorskip("librosa")
    monkeypatch.setitem(sys.modules, "webrtcvad", types.ModuleType("webrtcvad"))
    morphology = types.ModuleType("scipy.ndimage.morphology")
    morphology.binary_dilation = None
    monkeypatch.setitem(sys.modules, "scipy.ndimage.morphology", morphology)
    from resemblyzer import audio
    from resemblyzer.voice_encoder import VoiceEncoder as Published

    published, judge = Published("cpu", verbose=False), VoiceEncoder(find_weights())
    for seconds, gain in ((0.7, 1.0), (1.6, 0.01), (2.25, 1.0), (3.0, 1.0), (7.3, 0.1)):
        clip = gain * speechlike(seconds)
        leveled = audio.normalize_volume(clip, -30, increase_only=True).astype(np.float32)
        assert np.allclose(raise_level(clip), leveled, rtol=1e-4, atol=1e-7)
        slices = published.compute_partial_slices(len(clip), 1.3, 0.75)[1]
        assert part_starts(len(clip)) == [part.start for part in slices]
        assert np.allclose(mel_power(leveled).numpy(), audio.wav_to_mel_spectrogram(leveled), rtol=1e-3, atol=1e-6)
        assert judge.embed(clip, RATE) @ published.embed_utterance(leveled) == pytest.approx(1.0, abs=1e-5)
