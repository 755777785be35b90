"""Whether what was generated in two ways is the same."""

from collections.abc import Iterable

import numpy as np
import pytest

from lm.generation.batch import Generation


def assert_same(ours: Iterable[Generation], theirs: Iterable[Generation], off: float = 1e-4) -> None:
    """The same codes and ends; log-probabilities differ by rounding, at most ``off``."""
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.codes, b.codes) and a.ended == b.ended
        assert a.log_probability == pytest.approx(b.log_probability, abs=off)
