"""The benchmark: its arithmetic on known times, and one round of the small ones."""

from __future__ import annotations

import argparse

import pytest

import bench_codec
from bench_codec import Contestant, shape_of, table


def test_ratios_are_medians_over_rounds() -> None:
    """Ours takes half the time in each round, also in the round in which the machine is busy."""
    contestants = [Contestant("ours", str, str, 3.0), Contestant("theirs, 2 levels", str, str, 9.0)]
    rounds = [[(1.0, 1.0), (10.0, 10.0), (2.0, 2.0)], [(2.0, 2.0), (20.0, 20.0), (4.0, 4.0)]]
    lines = table(contestants, rounds, [1e6, 2e6], (2, 5.0), [1]).splitlines()
    assert lines[0].split(" | ")[-2:] == ["× theirs", "memory |"]
    assert lines[2] == "| ours | 3.0 M | 0.2000 | 0.2000 | 0.4000 (0.2000–2.0000) | 2.00 | 1 MB |"
    assert lines[3].endswith("| 1.00 | 2 MB |")


def test_shapes() -> None:
    assert shape_of("16x2.5") == (16, 2.5)
    for wrong in ("16", "x2", "0x3", "ax2"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            shape_of(wrong)


@pytest.mark.slow
def test_one_round_of_ours_beside_encodec(capsys: pytest.CaptureFixture) -> None:
    codecs = ["--codecs", "mini", "flow-2", "encodec"]
    assert bench_codec.main([*codecs, "--shapes", "1x0.5", "--threads", "1", "--repeats", "1"]) == 0
    output = capsys.readouterr().out
    assert "1 clip of 0.5 s, CPU, 1 thread, 1 rounds" in output
    assert "| codec=mini, flow of 2 |" in output and output.count("\n| ") == 4 and "× EnCodec" in output
