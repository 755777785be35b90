"""What a tracker sends: to TensorBoard's files as they are, to wandb as calls; nothing where nothing is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from training.tracking import Tracker, TrackerError


def send(tracker: Tracker, folder: Path) -> None:
    Image.new("RGB", (4, 3), (255, 0, 0)).save(folder / "a.png")
    tracker.scalars(3, {"loss": 1.5, "broken": float("nan")})
    tracker.audio(3, "clip", np.zeros(2400, np.float32), 24_000)
    tracker.picture(3, "sheet", folder / "a.png")
    tracker.close()


def test_tensorboard_files_hold_what_was_sent(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send(Tracker("tensorboard", tmp_path / "run", {}), tmp_path)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert (tags["scalars"], tags["audio"], tags["images"]) == (["train/loss"], ["audio/clip"], ["pictures/sheet"])
    (value,) = events.Scalars("train/loss")
    assert (value.step, value.value) == (3, 1.5)


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("secret", "online")])
def test_wandb_is_offline_unless_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, mode: str
) -> None:
    sent: list[tuple[dict, int]] = []
    started: dict = {}
    run = SimpleNamespace(log=lambda values, step: sent.append((values, step)), finish=lambda: None)

    def init(**settings: object) -> SimpleNamespace:
        started.update(settings)
        return run

    fake = SimpleNamespace(
        init=init, api=SimpleNamespace(api_key=key), Audio=lambda wav, sample_rate: "audio", Image=lambda path: "image",
        __spec__=SimpleNamespace(),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    send(Tracker("wandb", tmp_path / "run", {"seed": 1}), tmp_path)
    assert (started["mode"], started["id"], started["config"]) == (mode, "run", {"seed": 1})
    assert sent == [({"train/loss": 1.5}, 3), ({"audio/clip": "audio"}, 3), ({"pictures/sheet": "image"}, 3)]


def test_nothing_is_sent_without_a_kind_or_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tracking.importlib.util.find_spec", lambda name: object())  # installed or not
    send(Tracker(None, tmp_path / "a", {}), tmp_path)
    send(Tracker("tensorboard", tmp_path / "b", {}, is_main=False), tmp_path)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    with pytest.raises(TrackerError, match="none of null, wandb, tensorboard"):
        Tracker("mlflow", tmp_path, {})
