"""The run log, and its numbers in TensorBoard or wandb as well.

``log.jsonl`` stays the truth; a board is a view of it. wandb works offline unless ``WANDB_MODE`` says otherwise:
nothing leaves the machine by itself (`wandb sync` sends a run later).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from training.log import RunLog


class TrackingError(ValueError):
    """A board that is not installed."""


class TrackedLog(RunLog):
    """`RunLog` that also writes to a board.

    Args:
        board: none, tensorboard or wandb (``trainer.track``).

    Raises:
        TrackingError: the board's package is missing.
    """

    def __init__(self, run_dir: Path, is_main: bool = True, board: str = "none") -> None:
        super().__init__(run_dir, is_main)
        self.writer: Any = None
        self.run: Any = None
        if not is_main or board == "none":
            return
        try:
            if board == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(Path(run_dir) / "tensorboard"))
            else:
                import wandb

                os.environ.setdefault("WANDB_MODE", "offline")
                self.run = wandb.init(dir=str(run_dir), name=Path(run_dir).name, project="almkit", resume="allow")
        except ImportError as error:
            raise TrackingError(f"trainer.track={board} needs a package: pip install {board} ({error}).") from None

    def log(self, step: int, values: dict[str, object]) -> None:
        """One line of the log, and the same numbers on the board."""
        super().log(step, values)
        numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
        if self.writer is not None:
            for key, value in numbers.items():
                self.writer.add_scalar(key.replace("valid_", "valid/", 1), value, step)
        if self.run is not None:
            self.run.log(numbers, step=step)

    def close(self) -> None:
        """Finish what the board has not written yet."""
        if self.writer is not None:
            self.writer.close()
        if self.run is not None:
            self.run.finish()
