"""Synthesised music: keys, instruments, captions and splits."""

from collections import Counter

import numpy as np
import pytest

from mini_corpus import music
from mini_corpus.instruments import INSTRUMENTS
from mini_corpus.layout import seed_of
from mini_corpus.synthesis import SAMPLE_RATE

SEED = 7


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(music.plan(SEED))


def test_plan_counts(rows: list[dict]) -> None:
    assert len(INSTRUMENTS) >= 6
    assert len({row["id"] for row in rows}) == len(rows)
    for split in ("train", "valid", "test"):
        part = [row for row in rows if row["split"] == split]
        assert {row["instrument"] for row in part} == set(INSTRUMENTS)
        assert {row["mode"] for row in part} == {"major", "minor"}
        assert {row["tempo"] for row in part} == set(music.TEMPI)
    assert set(music.KEYS) == {row["key"] for row in rows}
    assert 22 < sum(row["seconds"] for row in rows) / 60 < 28
    assert all(3.9 <= row["seconds"] <= 6.2 for row in rows)


def test_no_piece_is_in_two_splits(rows: list[dict]) -> None:
    pieces = Counter((row["instrument"], row["key"], row["mode"], row["tempo"]) for row in rows)
    assert max(pieces.values()) == 1


def test_more_takes_are_new_tunes_of_no_held_out_piece(rows: list[dict]) -> None:
    more = list(music.plan(SEED, 5))
    by_id = {row["id"]: row for row in more}
    assert len(by_id) == len(more) and all(by_id[row["id"]] == row for row in rows)
    count = Counter(row["split"] for row in rows)
    assert Counter(row["split"] for row in more) == {**count, "train": 5 * count["train"]}
    piece = {row["id"]: (row["instrument"], row["key"], row["mode"], row["tempo"]) for row in more}
    train = [row for row in more if row["split"] == "train"]
    pieces = {piece[row["id"]] for row in train}
    assert len(pieces) == 8 * (72 - 3 - 4)  # all but the held-out ones
    assert not pieces & {piece[row["id"]] for row in more if row["split"] != "train"}
    twice = [train[0], next(row for row in train[1:] if piece[row["id"]] == piece[train[0]["id"]])]
    seeds = [seed_of(SEED, row["id"], "audio") for row in twice]
    tunes = [music.compose(np.random.default_rng(seed), row, 12.0) for seed, row in zip(seeds, twice, strict=True)]
    assert tunes[0] != tunes[1]


def test_captions_name_instrument_and_mood(rows: list[dict]) -> None:
    for row in rows:
        assert len(set(row["caption"])) == music.CAPTIONS
        low, high = music.TEMPI[row["tempo"]]
        assert low <= row["bpm"] <= high
        for caption in row["caption"]:
            assert row["instrument"] in caption and row["mood"] in caption.lower(), caption
            assert caption[0].isupper() and row["tempo"] in caption.lower()
            if "minor" in caption or "major" in caption:
                assert row["mode"] in caption
    keys = [row for row in rows if any(f"{row['key']} {row['mode']}" in caption for caption in row["caption"])]
    assert len(keys) > 0.8 * len(rows)


def test_same_seed_same_samples(rows: list[dict]) -> None:
    assert np.array_equal(music.render(rows[3], SEED), music.render(rows[3], SEED))
    assert not np.array_equal(music.render(rows[3], SEED)[:1000], music.render(rows[3], SEED + 1)[:1000])
    assert list(music.plan(SEED)) == rows


def test_all_notes_are_of_the_key_and_the_melody_comes_home(rows: list[dict]) -> None:
    for row in rows:
        rng = np.random.default_rng(1)
        beats = (row["seconds"] - 0.6) * row["bpm"] / 60
        notes = music.compose(rng, row, beats)
        tonic = music.KEYS.index(row["key"])
        allowed = {(tonic + step) % 12 for step in music.SCALES[row["mode"]]}
        assert {note.pitch % 12 for note in notes} <= allowed
        last = max(note.start for note in notes)
        final = [note for note in notes if note.start == 2 * round(beats / 2) - 2]
        assert max(final, key=lambda note: note.velocity).pitch % 12 == tonic
        assert max(note.start + note.length for note in notes) <= beats + 1.01
        assert last >= beats - 4.01
        assert len({note.pitch for note in notes}) >= 3


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instrument_is_in_tune(name: str) -> None:
    instrument = INSTRUMENTS[name]
    for semitones in (0, 7, 14):
        pitch = 440 * 2 ** ((instrument.home + semitones - 69) / 12)
        sound = instrument.play(np.random.default_rng(0), pitch, 0.8, 0.6)
        assert np.isfinite(sound).all() and np.abs(sound).max() > 0.05
        middle = sound[SAMPLE_RATE // 10 : SAMPLE_RATE // 10 + SAMPLE_RATE // 2]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * SAMPLE_RATE)) ** 2
        at = np.fft.rfftfreq(8 * SAMPLE_RATE, 1 / SAMPLE_RATE)
        near = (at > pitch * 0.94) & (at < pitch * 1.06)  # a semitone each way
        found = np.average(at[near], weights=spectrum[near])  # the middle of the vibrato
        assert abs(1200 * np.log2(found / pitch)) < 15, (name, pitch, found)  # cents


def test_instruments_have_timbres_of_their_own() -> None:
    """Spectra of one note, in bands: no two instruments are alike."""
    bands = {}
    for name, instrument in INSTRUMENTS.items():
        sound = instrument.play(np.random.default_rng(0), 330.0, 0.8, 0.6)[: SAMPLE_RATE // 2]
        power = np.abs(np.fft.rfft(sound / np.abs(sound).max())) ** 2
        edges = np.searchsorted(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 330 * (np.arange(1, 14) - 0.5))
        bands[name] = 10 * np.log10(np.add.reduceat(power, edges)[:-1] / power.sum() + 1e-6)
    names = list(bands)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            assert np.abs(bands[one] - bands[other]).mean() > 2, (one, other)  # dB


@pytest.mark.slow
def test_clips_are_finite_and_fill_their_time(rows: list[dict]) -> None:
    for row in rows[::23]:
        audio = music.render(row, SEED)
        assert np.isfinite(audio).all() and 0.01 < np.abs(audio).max() < 0.951
        assert len(audio) == round(row["seconds"] * SAMPLE_RATE)
        thirds = np.array_split(audio, 3)
        assert all(np.sqrt(np.mean(third**2)) > 1e-3 for third in thirds), row["id"]


def test_fast_pieces_have_more_notes_than_slow_ones(rows: list[dict]) -> None:
    density = {tempo: [] for tempo in music.TEMPI}
    for row in rows:
        if row["instrument"] == "flute":
            notes = music.compose(np.random.default_rng(1), row, (row["seconds"] - 0.6) * row["bpm"] / 60)
            density[row["tempo"]].append(len(notes) / row["seconds"])
    means = [np.mean(density[tempo]) for tempo in ("slow", "moderate", "fast")]
    assert means == sorted(means)
