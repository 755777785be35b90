"""The run log, and its numbers in TensorBoard or wandb as well: ``log.jsonl`` stays the truth, a board is a view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.log import RunLog
from training.tracking import Tracker


class TrackedLog(RunLog):
    """`RunLog` that also sends what it logs to a board.

    Args:
        board: None, tensorboard or wandb (key ``tracker``).
        config: the run's settings, for the board.

    Raises:
        TrackerError: the board is unknown or not installed.
    """

    def __init__(
        self, run_dir: Path, is_main: bool = True, board: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        super().__init__(run_dir, is_main)
        self.tracker = Tracker(board, Path(run_dir), config or {}, is_main)

    def log(self, step: int, values: dict[str, object]) -> None:
        """One line of the log, and its numbers on the board: those of validation in a group of their own."""
        super().log(step, values)
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        for group, chosen in (
            ("valid", {k.removeprefix("valid_"): v for k, v in numbers.items() if k.startswith("valid_")}),
            ("train", {k: v for k, v in numbers.items() if not k.startswith("valid_")}),
        ):
            if chosen:
                self.tracker.scalars(step, chosen, group)

    def audio(self, step: int, name: str, wave: np.ndarray, sample_rate: int) -> None:
        """``wave [samples]`` float32 on the board."""
        self.tracker.audio(step, name, wave, sample_rate)

    def close(self) -> None:
        """Finish what the board has not written yet."""
        self.tracker.close()
