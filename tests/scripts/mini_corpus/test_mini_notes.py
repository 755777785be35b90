"""Single notes: their pitch is what the label says, takes differ, and neither length nor octave tells who plays."""

from collections import Counter

import numpy as np
import pytest
import torch

from codec.network.pitch import pitch
from mini_corpus import notes
from mini_corpus.synthesis import SAMPLE_RATE

SEED = 7


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(notes.plan(SEED))


def cents_off(row: dict) -> float:
    """Median over the middle half of a note, searched within a fifth of its label."""
    wav = notes.render(row, SEED)
    label = 440 * 2 ** ((row["midi"] - 69) / 12)
    whole = torch.tensor(wav[: len(wav) // 240 * 240], dtype=torch.float32)[None]
    frequency, periodicity = (
        part[0].numpy() for part in pitch(whole, SAMPLE_RATE, 240, label / 1.5, label * 1.5, 0.04, SAMPLE_RATE)
    )
    middle = slice(len(frequency) // 4, 3 * len(frequency) // 4)
    voiced = periodicity[middle] > 0.6
    assert voiced.mean() > 0.3, row["id"]
    return float(1200 * np.log2(np.median(frequency[middle][voiced]) / label))


@pytest.mark.slow
def test_each_instrument_plays_in_tune(rows: list[dict]) -> None:
    """slow: renders 112 notes. Within 30 cents in 95 % of the notes of every instrument."""
    for name in notes.PLAYERS:
        off = [abs(cents_off(row)) for row in rows if row["instrument"] == name and row["split"] == "test"][::2]
        assert len(off) == 14 and np.mean(np.array(off) < 30) >= 0.95, (name, off)


def test_plan(rows: list[dict]) -> None:
    assert len(rows) == 896 == len({row["id"] for row in rows}) == len({row["sound"] for row in rows})
    assert set(Counter((r["instrument"], r["midi"], r["split"]) for r in rows if r["split"] != "train").values()) == {1}
    assert Counter(row["split"] for row in rows) == {"train": 448, "valid": 224, "test": 224}
    registers = {name: sorted({r["midi"] for r in rows if r["instrument"] == name}) for name in notes.PLAYERS}
    assert len(registers) == 8 and all(register == registers["flute"] for register in registers.values())
    a4 = next(row for row in rows if (row["note"], row["octave"]) == ("A", 4))
    assert a4["midi"] == 69
    lengths = {name: np.mean([r["seconds"] for r in rows if r["instrument"] == name]) for name in notes.PLAYERS}
    assert all(1.0 <= row["seconds"] <= 1.5 for row in rows) and np.ptp(list(lengths.values())) < 0.06
    more = list(notes.plan(SEED, 2))
    assert len(more) == 896 + 448 and all(row in more for row in rows), "more takes are beside these, not other ones"


def test_notes_are_the_same_each_time_and_takes_are_not(rows: list[dict]) -> None:
    first, second = (r for r in rows if (r["instrument"], r["midi"], r["split"]) == ("flute", 69, "train"))
    wav = notes.render(first, SEED)
    assert np.array_equal(wav, notes.render(dict(first), SEED)) and np.abs(wav).max() < 1
    assert len(wav) == round(first["seconds"] * SAMPLE_RATE)
    other = notes.render({**second, "seconds": first["seconds"]}, SEED)
    assert len(other) == len(wav) and np.corrcoef(wav, other)[0, 1] < 0.9
