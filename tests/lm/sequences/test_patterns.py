"""Patterns: exact inverses for 1 to 16 levels, the place of the end, and folding into steps."""

from __future__ import annotations

import numpy as np
import pytest

from lm.sequences.patterns import NONE, PATTERNS, fold

END = 10_000


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("levels", range(1, 17))
def test_closing_has_an_exact_inverse(name, levels):
    pattern = PATTERNS[name]
    for frames in (0, 1, 2, 3, levels, levels + 5):
        values = np.random.default_rng(frames).integers(0, 900, (frames, levels))
        order = pattern.order(frames, levels)
        assert sorted(map(tuple, order.tolist())) == [(f, k) for f in range(frames) for k in range(levels)]
        assert (pattern.unflatten(pattern.flatten(values), levels) == values).all()
        closed = pattern.close(values, END)
        assert len(closed) == frames * levels + 1
        assert (pattern.open(closed, levels, END) == values).all()
        # What is open and what is owed after the end together are the whole.
        place = int(np.flatnonzero(closed == END)[0])
        known = [pattern.place(number, levels) for number in range(place + 1)]
        assert known[-1] == (frames, 0)  # the end stands where level 0 of a further frame would
        delays = pattern.delays(levels)
        assert [(step - delays[level], level) for step, level in known[:-1]] == [tuple(o) for o in order[:place]]
        assert pattern.tail(frames, levels) == order[place:, 1].tolist()


def test_the_orders_of_the_documentation():
    values = np.array([[0, 10, 20], [1, 11, 21]])
    assert PATTERNS["flat"].close(values, END).tolist() == [0, 10, 20, 1, 11, 21, END]
    assert PATTERNS["delay"].close(values, END).tolist() == [0, 1, 10, END, 11, 20, 21]
    assert PATTERNS["one_frame_delay"].close(values, END).tolist() == [0, 1, 10, 20, END, 11, 21]


def test_a_misplaced_end_is_refused():
    with pytest.raises(ValueError, match="end of audio"):
        PATTERNS["delay"].open(np.array([0, END, 1, 10, 11]), 2, END)


def test_folding_puts_a_step_into_a_row():
    closed = PATTERNS["one_frame_delay"].close(np.array([[0, 10, 20], [1, 11, 21]]), END)
    ids = np.concatenate([[500, 501], closed, [502]])
    level = np.where(ids < 100, ids // 10, -1)
    row = [[500, NONE, NONE], [501, NONE, NONE], [0, NONE, NONE], [1, 10, 20], [END, 11, 21], [502, NONE, NONE]]
    assert fold(ids, level, 3).tolist() == row
