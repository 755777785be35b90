"""Intervals that cover, failures that are counted, files that JSON readers accept."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from json_files import read_json

from eval.harness.intervals import paired_difference, ratio, wilson
from eval.harness.report import Report, show


@pytest.mark.slow
def test_intervals_cover() -> None:
    """A 95 % interval of the mean of 60 clips contains the true mean in about 95 % of simulated evaluations."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = ratio(generator.gamma(2.0, 1.0, 60))
        hits += found.low <= 2.0 <= found.high
    assert 0.90 <= hits / 400 <= 0.98


@pytest.mark.slow
def test_paired_intervals_cover() -> None:
    """Coverage of the paired difference of two rates, on 120 clips of which some are hard for both systems."""
    generator = np.random.default_rng(1)
    words = generator.integers(3, 12, 120).astype(float)
    hits, simulations, widths = 0, 2000, []
    for _ in range(simulations):
        hard = generator.uniform(0, 0.6, 120)
        first = generator.poisson(words * (hard + 0.08))
        second = generator.poisson(words * hard)
        found = paired_difference((first, words), (second, words))
        hits += found.low <= 0.08 <= found.high
        widths.append(found.high - found.low)
    assert 0.93 <= hits / simulations <= 0.97, hits / simulations
    # it is sharper than two separate intervals, whose clips would be drawn apart
    apart = [ratio(side, words) for side in (first, second)]
    assert np.mean(widths) < sum(found.high - found.low for found in apart)
    same = paired_difference((first, words), (first, words))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.99, 0.95, 0.5, 0.02])
@pytest.mark.parametrize("clips", [30, 80])
def test_intervals_of_shares_cover_near_none_and_all(share: float, clips: int) -> None:
    """A bootstrap covers a true 99 % of 80 clips in 54 of 100 evaluations: all clips are right in the others."""
    draws = np.random.default_rng(0).random((1000, clips)) < share
    found = [ratio(draw.astype(float), counted=True) for draw in draws]
    assert np.mean([f.low <= share <= f.high for f in found]) > 0.92
    words = [ratio(9.0 * draw, np.full(clips, 9.0), True) for draw in np.stack([np.zeros(clips), np.ones(clips)])]
    for estimate, (low, high) in zip(words, (wilson(0, clips), wilson(clips, clips)), strict=True):
        assert (estimate.low, estimate.high) == (low, high) and high - low > 0.03


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.99, 0.99), (0.99, 0.95), (0.9, 0.5), (0.02, 0.02)])
@pytest.mark.parametrize("clips", [20, 80])
@pytest.mark.parametrize("common", [0.0, 0.7])
def test_paired_intervals_of_shares_cover_near_none_and_all(
    shares: tuple[float, float], clips: int, common: float
) -> None:
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        own, alone = generator.random(clips), generator.random(clips)
        draws = [own, np.where(generator.random(clips) < common, own, alone)]  # hard clips are hard for both
        sides = [((draw < share).astype(float), np.ones(clips)) for draw, share in zip(draws, shares, strict=True)]
        found = paired_difference(*sides, counted=True)
        covered.append(found.low <= shares[0] - shares[1] <= found.high)
    assert np.mean(covered) > 0.92


@pytest.mark.parametrize("words", [1.0, 9.0])
def test_two_systems_that_never_fail_are_not_surely_equal(words: float) -> None:
    size = np.full(20, words)
    found = paired_difference((0 * size, size), (0 * size, size), counted=True)
    assert found.value == 0 and found.low == -found.high and 0.1 < found.high < 0.25
    apart = paired_difference((size, size), (0 * size, size), counted=True)
    assert 0.7 < apart.low < 0.9 and apart.value == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(
    ("metric", "counts"),
    [
        ("wer/x", True), ("cer-original/x", True), ("silent", True), ("class-named-all", True), ("accuracy/x", True),
        ("retrieval/recall@10", True), ("stoi", False), ("stoi-pieces/4x", False), ("retrieval/reciprocal-rank", False),
        ("speaker-similarity", False), ("bits-per-token/text", False),
    ],
)  # fmt: skip
def test_an_interval_follows_what_the_metric_is_not_the_values_it_has(metric: str, counts: bool, value: float) -> None:
    report = Report({}, ["one", "other"])
    for row in report.cells:
        report.mean(row, metric, {str(clip): value for clip in range(20)})
    report.difference(metric, "one", "other")
    found = [report.results()["rows"]["one"][metric], report.differences[0]]
    assert [cell["high"] - cell["low"] > 0.1 for cell in found] == [counts, counts]
    assert ("%" in show(metric, found[0], 20)) == counts


def test_the_bootstrap_is_near_scipy_s_bca() -> None:
    generator = np.random.default_rng(3)
    words = generator.integers(3, 12, 80).astype(float)
    wrong = generator.binomial(words.astype(int), 0.15).astype(float)
    found = ratio(wrong, words)
    oracle = scipy.stats.bootstrap(
        (wrong, words), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=5000, method="BCa", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    width = oracle.high - oracle.low
    assert abs(found.low - oracle.low) < 0.12 * width and abs(found.high - oracle.high) < 0.12 * width


def test_intervals_are_reproducible_and_absent_for_few_clips() -> None:
    values = np.random.default_rng(2).random(30)
    assert ratio(values) == ratio(values)
    for few in (1, 9):
        found = ratio([0.5] * few)
        assert (found.value, found.low, found.n) == (0.5, None, few)
        pair = paired_difference(([0.5] * few, [1.0] * few), ([0.25] * few, [1.0] * few))
        assert (pair.value, pair.low, pair.n) == (0.25, None, few)
    assert ratio([]) is None


def test_results_count_failures(tmp_path: Path) -> None:
    report = Report({"seed": 0}, ["reference", "generated"])
    report.rate("generated", "wer/ctc-mini", {"a": (1, 4), "b": (0, 6)}, {"c": "no audio"}, insertions=1)
    report.rate("reference", "wer/ctc-mini", {"a": (0, 4), "b": (0, 6), "c": (0, 5)})
    report.mean("generated", "dnsmos/p808", {"a": 3.0, "b": float("nan")}, {"c": "worker died"})
    for row in ("reference", "generated"):
        report.rate(row, "wer/other", {}, {"a": "not computed: no weights", "b": "not computed: no weights"})
    report.mean("generated", "spice", {}, {"a": "not computed: no weights"})
    report.number("generated", "real-time-factor", 0.25, 3)
    report.difference("wer/ctc-mini", "generated", "reference")
    report.write(tmp_path, [{"id": "a", "row": "generated", "x": np.float32(1.5), "y": float("inf")}])

    results = read_json(tmp_path / "results.json")
    cell = results["rows"]["generated"]["wer/ctc-mini"]
    assert cell["value"] == pytest.approx(0.1) and (cell["n"], cell["n_failed"]) == (2, 1)
    assert cell["failures"] == [{"reason": "no audio", "n": 1, "ids": ["c"]}] and cell["insertions"] == 1
    assert results["rows"]["generated"]["dnsmos/p808"]["n_failed"] == 2
    assert results["rows"]["reference"]["wer/other"]["value"] is None
    assert results["differences"][0]["value"] == pytest.approx(0.1) and results["differences"][0]["n"] == 2
    assert results["how"]["seed"] == 0 and "bootstrap" in results["how"]["interval"]
    assert read_json(tmp_path / "items.jsonl") == {"id": "a", "row": "generated", "x": 1.5, "y": None}
    parts = read_json(tmp_path / "clips.json")
    assert parts["generated"]["wer/ctc-mini"] == {"a": [1.0, 4.0], "b": [0.0, 6.0]}
    table = report.table()
    assert table.splitlines()[0].split() == ["reference", "generated"]
    assert "10.0 %" in table and "(N=2, 1 failed)" in table and "N = 3 clips" in table
    assert table.count("wer/other, spice: not computed: no weights") == 1  # said once, and below
    assert [line.split() for line in table.splitlines() if line.startswith("spice")] == [
        ["spice", "-", "not", "computed"]
    ]


def test_show() -> None:
    cell = {"value": 0.1234, "low": 0.1, "high": 0.2, "n": 5, "n_failed": 0, "failures": []}
    assert show("wer/x", cell, 5) == "12.3 % [10.0, 20.0]"
    assert show("wer-original/x", cell, 9) == "12.3 % [10.0, 20.0] (N=5)"
    assert show("limit (protocol 1)", cell, 5) == "12.3 % [10.0, 20.0]"
    assert show("stoi", cell, 5) == "0.123 [0.100, 0.200]"
    assert show("stoi", {**cell, "low": None, "n": 4}, 5) == "0.123 (N=4)"  # so few that there is no interval
    lacking = {"n": 3, "n_failed": 1, "undelivered": 2}
    assert show("stoi", {**cell, **lacking}, 5).endswith(" (N=3, 2 not delivered, 1 failed)")
    assert show("usage/level-1", {**cell, "low": None, "n": 900}, 5) == "12.3 %"  # of frames
    assert show("stoi", None, 5) == "-"
