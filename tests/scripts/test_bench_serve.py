"""scripts/bench_serve.py: a few requests to a server of its own, and what it prints; what is lost is counted."""

from __future__ import annotations

import re

import pytest

from bench_serve import Asked, ask, main, row


@pytest.mark.slow
def test_a_few_requests(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["bench_serve.py", "--requests=4", "--alone=1", "--together=2"])
    main()
    out = capsys.readouterr().out
    figures = r"0 of %d \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \| [\d.]+ \|"
    assert re.search(rf"\| 1 \| {figures % 1}", out) and re.search(rf"\| 2 \| {figures % 4}", out), out
    assert re.search(r"memory of the second half: \d+ MB at its start, \d+ MB at most", out)


def test_what_is_lost_is_counted() -> None:
    assert ask(9, "m", "a", 0, 24_000) is None  # nobody listens there
    assert (
        row("8", [Asked(0.5, 1.0, 2.0), None], 1.0) == "| 8 | 1 of 2 | 0.50 / 0.50 | 1.00 / 1.00 | 0.50 / 0.50 | 0.50 |"
    )
    assert row("8", [None], 1.0) == "| 8 | 1 of 1 | | | | |"
