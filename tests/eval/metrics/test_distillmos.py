"""DistillMOS: the published layout and nothing else, windows as published, and the level of no account."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eval.harness.networks import NetworkError
from eval.known_answers import speechlike
from eval.metrics.distillmos import WINDOW, DistillMOS, DistillMOSNetwork, distillmos_path

RATE = 16_000


def checkpoint(path: Path) -> Path:
    """Random weights in the published layout."""
    torch.manual_seed(0)
    torch.save({"model": DistillMOSNetwork().state_dict(), "step": 1}, path)
    return path


def test_reads_the_published_layout_alone(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "right.pt")
    published = torch.load(path, weights_only=True)["model"]
    shapes = {name: tuple(value.shape) for name, value in published.items()}
    assert len(shapes) == 120 and sum(value.numel() for value in published.values()) == 4_214_525
    assert shapes["cnn.cnn.10.weight"] == (256, 256, 3, 3)
    assert shapes["transformer_pool_attn.transformer.position_encoding.pe"] == (1, 384, 200)
    assert shapes["transformer_pool_attn.transformer.transformer_encoder.layers.6.linear1.weight"] == (400, 200)
    assert shapes["transformer_pool_attn.pool.linear3.weight"] == (1, 200)
    less = {name: value for name, value in published.items() if "linear3" not in name}
    for broken in ({"model": less}, {"model": {**published, "more": torch.zeros(1)}}, {"other": 1}, [1]):
        torch.save(broken, tmp_path / "broken.pt")
        with pytest.raises(NetworkError, match="no DistillMOS checkpoint"):
            DistillMOSNetwork.load(tmp_path / "broken.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(NetworkError, match="no DistillMOS checkpoint"):
        DistillMOSNetwork.load(tmp_path / "broken.pt")
    with pytest.raises(NetworkError, match="pip install --no-deps distillmos"):
        DistillMOSNetwork.load(tmp_path / "nowhere.pt")
    with pytest.raises(NetworkError, match="=installed, but it is not: pip install"):
        distillmos_path_without_the_package()


def distillmos_path_without_the_package() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eval.metrics.distillmos.find_weights", lambda: None)
        distillmos_path("installed")


@pytest.mark.slow
def test_windows_cover_the_clip_and_the_level_does_not_matter(tmp_path: Path) -> None:
    judge = DistillMOS(checkpoint(tmp_path / "random.pt"))
    # what the package's own network says of this clip with these weights
    assert judge.rate(speechlike(2.0), RATE) == pytest.approx(2.176676034927368, abs=1e-4)
    seen: list[torch.Tensor] = []

    class Listener(torch.nn.Module):
        def forward(self, wav: torch.Tensor) -> torch.Tensor:
            seen.append(wav)
            return wav[:, 0] * 0 + torch.arange(len(wav))

    clip = speechlike(2.0)
    assert judge.rate(clip, RATE) == pytest.approx(judge.rate(np.float32(0.05) * clip, RATE), abs=1e-4)
    judge.network = Listener()
    for samples, starts in ((RATE, [0]), (WINDOW, [0]), (WINDOW + 1, [0, 1]), (WINDOW + 24_000, [0, 12_000, 24_000])):
        seen.clear()
        wav = np.arange(1, samples + 1, dtype=np.float32)
        assert judge.rate(wav, RATE) == pytest.approx(np.mean(range(len(starts))))
        assert [int(window[0]) - 1 for window in seen[0]] == starts and seen[0].shape[1] == WINDOW
        assert float(seen[0][-1][-1]) == (samples if samples >= WINDOW else 0)
