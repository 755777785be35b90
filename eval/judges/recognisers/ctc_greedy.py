"""The CTC recogniser that ships (checkpoints/ctc-mini), with greedy decoding and no language model."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.audio import resample
from eval.harness.provenance import folder_hash
from eval.judges.recognisers.ctc import SAMPLE_RATE, CTCRecogniser


class GreedyCTC:
    """Reads ``folder`` (config.json, model.safetensors).

    Args:
        batch: clips per forward pass; the transcripts do not depend on it.
    """

    def __init__(self, folder: Path, device: str = "cpu", batch: int = 16) -> None:
        self.name = "ctc-mini"
        self.folder, self.device, self.batch = Path(folder), device, batch
        self.model = CTCRecogniser.load(self.folder).to(device)

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str]:
        """Words of each clip ``[samples]``; an empty string where nothing is recognised."""
        texts: dict[int, str] = {}
        clips = [resample(wav, sample_rate, SAMPLE_RATE) for wav in waves]
        order = sorted((i for i in range(len(clips)) if len(clips[i])), key=lambda i: len(clips[i]))
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            lengths = torch.tensor([len(clips[i]) for i in chosen])
            wav = torch.zeros(len(chosen), int(lengths.max()))
            for row, i in enumerate(chosen):
                wav[row, : len(clips[i])] = torch.from_numpy(clips[i])
            found = self.model.transcribe(wav.to(self.device), lengths.to(self.device))
            texts.update(zip(chosen, found, strict=True))
        return [texts.get(i, "") for i in range(len(clips))]

    def how(self) -> dict[str, object]:
        """What a result records about this recogniser."""
        return {
            "model": "CTCRecogniser, trained on ground-truth speech only, never on codec output",
            "sha256": folder_hash(self.folder, ["config.json", "model.safetensors"]),
            "decoding": "greedy, no language model",
            "sample_rate": SAMPLE_RATE,
        }

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> GreedyCTC:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
