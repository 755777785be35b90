"""ViSQOL: identity scores from Google's conformance tests, order under noise; what has none is in test_bad_input.py."""

import importlib.util

import numpy as np
import pytest

from eval.harness.audio import CannotScore
from eval.known_answers import speechlike
from eval.metrics.visqol import ViSQOL

RATE = 16_000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("visqol") is None, reason="visqol-python is not installed")
@pytest.mark.parametrize(
    ("name", "identity"), [("visqol-audio/svr", 4.732101253042), ("visqol-speech/exponential", 5.0)]
)
def test_identity_and_order(name: str, identity: float) -> None:
    """slow: the first call compiles for half a minute where numba is installed."""
    score, clip = ViSQOL(name), speechlike(2.0)
    noise = np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    assert score(clip, clip, RATE) == pytest.approx(identity, abs=1e-9)
    assert identity > score(clip, clip + 0.01 * noise, RATE) > score(clip, clip + 0.05 * noise, RATE) > 1.0


def test_not_installed_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.metrics.visqol.importlib.util.find_spec", lambda _: None)
    with pytest.raises(CannotScore, match="not computed: visqol-python is not installed"):
        ViSQOL("visqol-audio/svr")(speechlike(2.0), speechlike(2.0), RATE)
