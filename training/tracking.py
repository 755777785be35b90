"""A run followed from a browser: wandb or TensorBoard, beside the JSON lines that are always written.

``tracker=wandb`` is online when wandb is logged in on this machine (or WANDB_MODE says so), otherwise offline: the run
lies in ``runs/<name>/wandb`` and ``wandb sync`` sends it later. ``tracker=tensorboard`` writes
``runs/<name>/tensorboard``.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from training.identity import without_credentials

KINDS = ("wandb", "tensorboard")


class TrackerError(RuntimeError):
    """A tracker that is not known or not installed."""


class Tracker:
    """Sends scalars, audio and pictures to the service ``kind``; None sends nothing.

    Args:
        run_dir: the run's folder; its name is the run's name.
        config: what the service shows as the run's settings.
        is_main: False on other processes, which send nothing.

    Raises:
        TrackerError: an unknown kind, or its package is missing.
    """

    def __init__(self, kind: str | None, run_dir: Path, config: dict[str, Any], is_main: bool = True) -> None:
        if kind is not None and kind not in KINDS:
            raise TrackerError(f"tracker={kind} is none of null, {', '.join(KINDS)}.")
        if kind is not None and importlib.util.find_spec(kind) is None:
            raise TrackerError(f"tracker={kind} needs the package {kind}: pip install -e '.[{kind}]'.")
        self.kind = kind if is_main else None
        if self.kind == "wandb":
            import wandb

            mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "almkit"),
                name=run_dir.name,
                id=run_dir.name,  # a resumed run continues its curves
                resume="allow",
                dir=str(run_dir),
                mode=mode,  # type: ignore[arg-type]  # WANDB_MODE is checked by wandb
                config=without_credentials(config),
            )
        elif self.kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run_dir / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float], group: str = "train") -> None:
        """Numbers of one step; what is not finite is left out."""
        finite = {f"{group}/{k}": float(v) for k, v in values.items() if math.isfinite(v)}
        if self.kind == "wandb":
            self.run.log(finite, step=step)
        elif self.kind == "tensorboard":
            for name, value in finite.items():
                self.writer.add_scalar(name, value, step)

    def audio(self, step: int, name: str, wav: np.ndarray, sample_rate: int) -> None:
        """``wav [samples]`` float32 in −1…1."""
        if self.kind == "wandb":
            import wandb

            self.run.log({f"audio/{name}": wandb.Audio(wav, sample_rate=sample_rate)}, step=step)
        elif self.kind == "tensorboard":
            self.writer.add_audio(f"audio/{name}", wav[None], step, sample_rate)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A PNG file."""
        if self.kind == "wandb":
            import wandb

            self.run.log({f"pictures/{name}": wandb.Image(str(path))}, step=step)
        elif self.kind == "tensorboard":
            from PIL import Image

            with Image.open(path) as image:
                self.writer.add_image(f"pictures/{name}", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        if self.kind == "wandb":
            self.run.finish()
        elif self.kind == "tensorboard":
            self.writer.close()
