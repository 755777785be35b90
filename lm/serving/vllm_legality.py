"""Legal audio tokens in vLLM: a custom logits processor of its V1 engine.

    PYTHONPATH=. vllm serve runs/lm-tts/final --logits-processors lm.serving.vllm_legality:LegalAudio
    LLM("runs/lm-tts/final", logits_processors=["lm.serving.vllm_legality:LegalAudio"])

A request asks for it by ``extra_args`` (in HTTP ``vllm_xargs``): ``{"audio_min_frames": 1, "audio_max_frames": 250}``;
other requests pass untouched. Its prompt must end in ``<audio>``. The interface is that of
``vllm.v1.sample.logits_processor``; see docs/serving.md for the versions that have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from lm.generation.legality import Legality
from lm.sequences.vocabulary import AudioVocabulary

LEAST, MOST = "audio_min_frames", "audio_max_frames"


class LegalAudio(LogitsProcessor):
    """Masks every row of a batch that belongs to a request for audio.

    vLLM tells which requests come, go and change places; of each one the list of ids written so far is kept, which
    vLLM goes on filling.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.vocabulary = AudioVocabulary.load(Path(vllm_config.model_config.model))
        self.requests: dict[int, tuple[Legality, list[int]]] = {}  # row of the batch → rule and ids written

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse limits that cannot hold.

        Raises:
            ValueError: with one sentence, which the client is shown.
        """
        options = sampling_params.extra_args or {}
        least, most = options.get(LEAST), options.get(MOST)
        if least is None and most is None:
            return
        for name, value in ((LEAST, least), (MOST, most)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r} must be a whole number of frames, at least 1.")
        if most is None:
            raise ValueError(f"{LEAST} needs {MOST}: a clip without a limit may never end.")
        if least is not None and least > most:
            raise ValueError(f"{LEAST}={least} is more than {MOST}={most}.")

    def is_argmax_invariant(self) -> bool:
        """False: what is most probable may be illegal."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Take note of requests that came, went or moved."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.requests.pop(row, None)
        for row, params, _, written in batch_update.added:
            options = (params.extra_args if params is not None else None) or {}
            if MOST in options:
                self.requests[row] = (Legality(self.vocabulary, options.get(LEAST) or 1, options[MOST]), written)
            else:
                self.requests.pop(row, None)
        for source, target, direction in batch_update.moved:
            moved, replaced = self.requests.pop(source, None), self.requests.pop(target, None)
            if moved is not None:
                self.requests[target] = moved
            if direction == MoveDirectionality.SWAP and replaced is not None:
                self.requests[source] = replaced

    def apply(self, logits: Tensor) -> Tensor:
        """``[rows, vocabulary]`` with −inf where an id is not legal; changed in place."""
        for row, (rule, written) in self.requests.items():
            legal = [
                (part, part + 1) if isinstance(part, int) else (part.start, part.stop) for part in rule.after(written)
            ]
            kept = [logits[row, start:stop].clone() for start, stop in legal]
            logits[row] = -torch.inf
            for (start, stop), values in zip(legal, kept, strict=True):
                logits[row, start:stop] = values
        return logits
