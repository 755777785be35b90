"""Fréchet distance beyond the known answers: its class, the extrapolation, what cannot be scored; and KL."""

import numpy as np
import pytest
import torch

from eval.harness.audio import CannotScore
from eval.metrics.divergence import PosteriorDivergence, kl_divergence
from eval.metrics.frechet import FrechetDistance, Gaussian, extrapolate, frechet_distance


def test_it_is_the_matrix_root_formula() -> None:
    """Against SciPy's matrix square root, the formula as published."""
    linalg = pytest.importorskip("scipy.linalg")
    generator = np.random.default_rng(0)
    first, second = (
        Gaussian.of(generator.standard_normal((300, 24)) @ generator.standard_normal((24, 24))) for _ in "ab"
    )
    root = linalg.sqrtm(first.covariance @ second.covariance)
    gap = first.mean - second.mean
    expected = gap @ gap + np.trace(first.covariance + second.covariance - 2 * np.real(root))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-12)


def test_the_class_joins_clips() -> None:
    generator = np.random.default_rng(0)
    reference, evaluated = generator.standard_normal((90, 8)), 0.5 + generator.standard_normal((60, 8))
    metric = FrechetDistance()
    for part in np.split(reference, 3):
        metric.update(part.astype(np.float32), reference=True)
    for part in np.split(evaluated, 2):
        metric.update(torch.from_numpy(part), reference=False)
    expected = frechet_distance(Gaussian.of(reference), Gaussian.of(evaluated))
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-5)
    assert metric.counts() == {
        "reference_clips": 3, "reference_frames": 90, "evaluated_clips": 2, "evaluated_frames": 60,
    }  # fmt: skip
    with pytest.raises(CannotScore, match="fewer than 1000"):
        metric.infinity()
    metric.reset()
    assert torch.isnan(metric.compute())


@pytest.mark.parametrize("rows", [np.zeros((1, 4)), np.zeros((0, 4)), np.full((5, 4), np.nan), np.zeros(7)])
def test_what_has_no_statistics(rows: np.ndarray) -> None:
    with pytest.raises(CannotScore):
        Gaussian.of(rows)


def test_silence_against_silence_is_zero_and_dimensions_must_agree() -> None:
    constant = Gaussian.of(np.ones((10, 4)))
    assert frechet_distance(constant, constant) == 0.0
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(constant, Gaussian.of(np.zeros((5, 3))))


def test_infinitely_many_samples_have_no_bias() -> None:
    generator = np.random.default_rng(0)
    reference, evaluated = generator.standard_normal((20_000, 48)), generator.standard_normal((1500, 48))
    raw = frechet_distance(Gaussian.of(reference), Gaussian.of(evaluated))
    assert abs(extrapolate(reference, evaluated)) < 0.2 * raw


def test_divergence() -> None:
    metric = PosteriorDivergence()
    metric.update([(0.7, 0.2, 0.1), (1.0, 0.0, 0.0), (0.5, 0.5)], [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (1.0, 0.0, 0.0)])
    assert float(metric.compute()) == pytest.approx(0.0851228 / 2, abs=1e-5)
    assert metric.reasons == {"posteriors differ in length": 1}
    # a class that the generated clip excludes costs a lot, and no infinity
    assert kl_divergence((1.0, 0.0), (0.0, 1.0)) == pytest.approx(-np.log(1e-6))
    for bad in ((0.5, 0.2), (np.nan, 1.0), (-0.5, 1.5)):
        with pytest.raises(CannotScore, match="no probability distribution"):
            kl_divergence((0.5, 0.5), bad)
