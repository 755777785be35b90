"""The second judge, ``ctc-mini``: the small CTC recogniser that ships (codec/network/ctc.py), greedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from codec.network.ctc import SAMPLE_RATE, CTCRecogniser
from eval.harness.audio import resample
from eval.judges.recognisers.interface import Recogniser, RecogniserError
from training.identity import folder_hash
from training.places import beside_code
from training.pretrained import PretrainedError


class GreedyCTC(Recogniser):
    """The recogniser in ``folder`` (config.json, model.safetensors), with greedy decoding and no language model.

    Args:
        batch: clips per forward pass; the transcripts do not depend on it.
    """

    name = "ctc-mini"

    def __init__(self, folder: Path, device: str = "cpu", batch: int = 16) -> None:
        super().__init__()
        self.folder, self.device, self.batch = beside_code(folder), device, batch
        try:
            self.model = CTCRecogniser.load(self.folder).to(device)
        except PretrainedError as error:
            raise RecogniserError(str(error)) from None

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str]:
        """Words of each clip ``[samples]``; an empty string where nothing is recognised."""
        texts: dict[int, str] = {}
        clips = [torch.from_numpy(resample(wav, sample_rate, SAMPLE_RATE)) for wav in waves]
        order = sorted((i for i in range(len(clips)) if len(clips[i])), key=lambda i: len(clips[i]))
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            wav = pad_sequence([clips[i] for i in chosen], batch_first=True)
            lengths = torch.tensor([len(clips[i]) for i in chosen])
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
