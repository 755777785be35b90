"""Single notes with their pitch: what a space of sounds is looked at with.

Eight instruments play the natural notes of four octaves, C3 to B6, four takes each: two to train on, one to choose by,
one to test on. All have the same register and lengths that are drawn without regard to the instrument, so that neither
octave nor duration tells who plays; a take has a chance, a loudness, a level and a room of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mini_corpus.instruments import INSTRUMENTS, NYQUIST, damp, held, vibrato
from mini_corpus.layout import Row, seed_of
from mini_corpus.music import LICENCE
from mini_corpus.synthesis import SAMPLE_RATE, Rng, Signal, add, finish, noise, ring, room, seconds_to_samples, times

NATURAL = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C
OCTAVES = (3, 4, 5, 6)
TAKES = ("train", "train", "valid", "test")
AFTER = 0.25  # s that a note may ring on


def partials(rng: Rng, pitch: float, n: int, gains: dict[int, float], swing: float, delay: float) -> Signal:
    """[n] harmonics of ``gains`` by number, with a vibrato of ``swing``, by repeated rotation."""
    turn = np.exp(2j * np.pi * pitch * (times(n) + vibrato(rng, n, swing, delay)))
    out, now = np.zeros(n), np.ones(n, complex)
    for k in range(1, min(max(gains), int(NYQUIST / pitch)) + 1):
        now = now * turn
        out += gains.get(k, 0.0) * now.imag
    return out


def clarinet(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """A cylinder that is closed at one end: odd harmonics, even ones far below; no vibrato, some breath."""
    n = seconds_to_samples(seconds + 0.06)
    gains = {k: (1.0 if k % 2 else 0.06 + 0.01 * k) * k ** -(1.9 - 0.9 * velocity) for k in range(1, 16)}
    breath = noise(rng, n, pitch, min(6 * pitch, 9000), 1) * 0.015
    return (partials(rng, pitch, n, gains, 0.0005, 0.5) + breath) * held(n, 0.05, 0.06)


def cello(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """One bowed string in a body: all harmonics, resonances that stay where they are, vibrato, rosin."""
    n = seconds_to_samples(seconds + 0.12)
    gains = {}
    for k in range(1, 26):
        body = 1 + sum(g * np.exp(-(((k * pitch - f) / w) ** 2)) for f, w, g in ((250, 90, 2.0), (650, 200, 1.2)))
        gains[k] = float(body * k ** -(1.5 - 0.6 * velocity))
    bow = noise(rng, n, 900, 6000, 1) * (0.01 + 0.05 * np.exp(-times(n) / 0.05))
    return (partials(rng, pitch, n, gains, 0.006, 0.3) + bow) * held(n, min(0.1, seconds / 3), 0.12)


def plucked(rng: Rng, pitch: float, seconds: float, slope: float, life: float) -> Signal:
    """A string plucked at a fifth of its length, which takes ``life`` seconds to fall by 60 dB at A3, less above: the
    averaged noise of `instruments.pluck` is over at once above C5.
    """
    n = seconds_to_samples(seconds + 0.15)
    numbers = np.arange(1, 25)
    gains = numbers**-slope * np.abs(np.sin(np.pi * numbers / 5)) * rng.uniform(0.7, 1.3, len(numbers))
    tone = ring(numbers * pitch, gains, life * (220 / pitch) ** 0.3 / numbers**0.6, n)
    return tone * np.minimum(1, times(n) / 0.002) * damp(times(n), seconds, 0.12)


def guitar(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    return plucked(rng, pitch, seconds, 1.3 - 0.5 * velocity, 4.0)


def bass(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    return plucked(rng, pitch, seconds, 2.6 - 0.6 * velocity, 4.0)


PLAYERS = {name: INSTRUMENTS[name].play for name in ("piano", "flute", "strings", "trumpet")}
PLAYERS |= {"guitar": guitar, "bass": bass, "clarinet": clarinet, "cello": cello}


def plan(seed: int, times: int = 1) -> Iterator[Row]:
    """Metadata rows of all notes, without making their audio; of train takes there are ``times`` as many."""
    for split, takes in (("train", times * TAKES.count("train")), ("valid", 1), ("test", 1)):
        for name in PLAYERS:
            for octave in OCTAVES:
                for note, step in NATURAL.items():
                    for take in range(takes):
                        yield row(seed, name, note, octave, 12 * (octave + 1) + step, split, take)


def row(seed: int, instrument: str, note: str, octave: int, midi: int, split: str, take: int) -> Row:
    """The metadata line of one note; ``sound`` is the performance, which no other recording shares."""
    name = f"note-{split}-{instrument}-{note}{octave}-{take}"
    rng = np.random.default_rng(seed_of(seed, name, "words"))
    return {
        "file_name": f"notes/{name}.flac",
        "id": name,
        "caption": [f"A note of a {instrument}, {note}{octave}"],
        "domain": "music",
        "split": split,
        "licence": LICENCE,
        "seconds": round(float(rng.uniform(1.0, 1.5)), 2),
        "instrument": instrument,
        "note": note,
        "octave": octave,
        "midi": midi,
        "velocity": round(float(rng.uniform(0.3, 0.95)), 2),
        "take": take,
        "sound": name,
    }


def render(row: Row, seed: int) -> Signal:
    """Audio of a metadata row: [samples] at 24 kHz, peaks below 1, within 8 cents of the pitch."""
    rng = np.random.default_rng(seed_of(seed, row["id"], "audio"))
    pitch = 440 * 2 ** ((row["midi"] - 69 + rng.uniform(-0.08, 0.08)) / 12)
    sound = PLAYERS[row["instrument"]](rng, pitch, row["seconds"] - AFTER - 0.05, row["velocity"])
    out = np.zeros(round(row["seconds"] * SAMPLE_RATE))
    add(out, sound, 0.05)
    return finish(rng, room(rng, out, 0.3, 0.08))
