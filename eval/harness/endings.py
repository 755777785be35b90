"""How speech that a model made ends: by itself, too early or never, and whether it goes round in circles.

Four shares of clips, printed beside the error rates by every evaluation in which a model speaks:

    limit               it had not ended when it reached the limit of its length
    early-stop          it is less than half as long as it should be
    repeated-codes      for more than 3 s the codes of the first level are those of a constant time before
    repeated-words/NAME the recogniser NAME heard three words in a row more often than the text has them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.scored import ScoredClip

LOOP = 3.0  # s of codes that come again; and the longest time after which they may
EARLY = 0.5  # of the expected length
ENDINGS = ("limit", "early-stop", "repeated-codes")


def recurring_seconds(codes: NDArray[np.int64], frame_rate: float) -> float:
    """Longest stretch of codes ``[frames, levels]`` whose first level equals that of a constant time before, in s.

    The stretch is what is said again: a sentence of two seconds that is said twice recurs for two.
    """
    first = codes[:, 0] if len(codes) else np.zeros(0, np.int64)
    longest = 0
    for period in range(1, min(len(first), round(LOOP * frame_rate) + 1)):
        differs = np.flatnonzero(np.append(first[period:] != first[:-period], True))
        longest = max(longest, int(np.diff(differs, prepend=-1).max()) - 1)
    return longest / frame_rate


def says_again(heard: str, text: str) -> bool:
    """Whether three words in a row are ``heard`` at least twice, and more often than ``text`` has them."""
    there = Counter(_threes(text))
    return any(count > max(1, there[three]) for three, count in Counter(_threes(heard)).items())


def _threes(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return list(zip(words, words[1:], words[2:], strict=False))


def early_stops(clips: Sequence[ScoredClip], lengths: Mapping[str, float]) -> dict[str, float]:
    """``{id: 1 where a clip is less than half as long as it should be, else 0}`` of the clips of which that is known.

    Args:
        lengths: ``{id: seconds}`` of the recordings. A clip without one should be as long as its text takes at the
            median pace of ``clips``; one without both is left out.
    """
    seconds = {clip.id: clip.seconds for clip in clips}
    paces = [seconds[clip.id] / len(clip.text) for clip in clips if clip.text]
    pace = median(paces) if paces else 0.0
    expected = {clip.id: lengths.get(clip.id) or pace * len(clip.text) for clip in clips}
    return {name: float(seconds[name] < EARLY * wanted) for name, wanted in expected.items() if wanted}


def goes_round(item: Mapping[str, Any]) -> float:
    """Of a clip's item: 1 where its codes recur for too long, else 0."""
    return float(item["recurring_seconds"] > LOOP)
