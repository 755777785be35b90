"""ViSQOL (Chinen et al. 2020) by the package visqol-python, a port of Google's C++ program with its models inside.

    score = ViSQOL("visqol-audio/svr")
    score(reference, degraded, sample_rate)

Three scales that must not be mixed, so the mapper is in the name:

- ``visqol-audio/svr``: 48 kHz, support vector regression, for any sound; identical clips score 4.732;
- ``visqol-speech/exponential``: 16 kHz, similarity mapped by an exponential; identical clips score 5;
- ``visqol-speech/lattice``: 16 kHz, the C++ program's default, identical clips score 4.506; needs ai-edge-litert.

It aligns both clips by itself. It was made for 8 to 10 s, so longer clips are scored in equal pieces of at most 10 s
and averaged. Silence has no score, nor has less than a second.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import numpy as np

from eval.harness.audio import CannotScore, Wave, pieces, resample
from eval.metrics.signal import check_heard, check_pair

MODES = {
    "visqol-audio/svr": {"mode": "audio", "rate": 48_000},
    "visqol-speech/exponential": {"mode": "speech", "rate": 16_000, "use_lattice_model": False},
    "visqol-speech/lattice": {"mode": "speech", "rate": 16_000, "use_lattice_model": True},
}
NAMES = tuple(MODES)
SHORTEST, LONGEST = 1.0, 10.0  # s


class ViSQOL:
    """One scale of ViSQOL.

    Args:
        name: one of ``NAMES``.
    """

    def __init__(self, name: str) -> None:
        settings: dict[str, Any] = dict(MODES[name])
        self.name, self.rate = name, settings.pop("rate")
        self.settings = settings
        self.api: Any = None

    def missing(self) -> str:
        """What has to be installed, or an empty string."""
        if importlib.util.find_spec("visqol") is None:
            return 'visqol-python is not installed: pip install -e ".[visqol]" (its libsvm needs a C compiler)'
        if self.name.endswith("lattice") and importlib.util.find_spec("ai_edge_litert") is None:
            return "ai-edge-litert is not installed: pip install ai-edge-litert"
        return ""

    def __call__(self, reference: Wave, degraded: Wave, sample_rate: int) -> float:
        """The score of one pair ``[samples]`` of equal length.

        Raises:
            CannotScore: "not computed: …", "silent reference", "silent degraded clip", "shorter than 1 s" …
        """
        if reason := self.missing():
            raise CannotScore(f"not computed: {reason}")
        check_pair(reference, degraded, sample_rate, SHORTEST)
        check_heard(reference, degraded)
        pair = [resample(wav, sample_rate, self.rate) for wav in (reference, degraded)]
        parts = zip(*(pieces(wav, self.rate, LONGEST) for wav in pair), strict=True)
        found = [self._piece(*(wav.astype(np.float64) for wav in part)) for part in parts]
        heard = [score for score in found if math.isfinite(score)]
        if len(heard) < len(found):
            raise CannotScore("silence in a piece of the clip")
        return float(np.mean(heard))

    def _piece(self, reference: np.ndarray, degraded: np.ndarray) -> float:
        from visqol import VisqolApi

        if self.api is None:
            self.api = VisqolApi()
            self.api.create(**self.settings)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of logarithms of silence, which come back as NaN
                return float(self.api.measure_from_arrays(reference, degraded, self.rate).moslqo)
        except (IndexError, ValueError) as error:
            raise CannotScore(f"ViSQOL cannot compare them ({type(error).__name__})") from None
