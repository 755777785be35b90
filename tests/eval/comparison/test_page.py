"""The pictures of a comparison."""

import pytest

from eval.comparison.page import _series


@pytest.mark.parametrize(
    ("row", "family", "drawn"),
    [
        ("opus-6k", "opus-6k", ("opus-6k", "")),
        ("ours-window2-levels3", "ours", ("ours, l 3", "w 2")),
        ("flow-flow.steps16", "flow", ("flow", "s 16")),
        ("x-modefast", "x", ("x", "modefast")),
    ],
)
def test_points_of_a_family_lie_in_a_series_of_its_last_option(row, family, drawn) -> None:
    assert _series(row, family) == drawn
