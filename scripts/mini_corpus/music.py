"""Short pieces with captions: instrument, key, tempo and mood vary; a small generator composes the notes.

No (instrument, key, mode, tempo) is in two splits, so that no piece is. The mood follows from mode and tempo and
decides register, loudness and articulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice, product

import numpy as np

from mini_corpus.instruments import INSTRUMENTS
from mini_corpus.layout import Row, seed_of
from mini_corpus.synthesis import Rng, Signal, add, finish, room, seconds_to_samples

LICENCE = "MIT"
CAPTIONS = 3
KEYS = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TEMPI = {"slow": (66, 84), "moderate": (100, 120), "fast": (144, 176)}  # beats a minute
PER_INSTRUMENT = {"train": 31, "valid": 3, "test": 4}
PROGRESSIONS = {
    "major": ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 1, 4, 0)),
    "minor": ((0, 3, 4, 0), (0, 5, 2, 6), (0, 6, 5, 4), (0, 3, 6, 2)),
}  # scale degrees of the chords' roots, one chord each two beats


@dataclass(frozen=True)
class Mood:
    """How a mood sounds: ``length`` of a note's slot that is held, ``velocity``, ``octave`` shift, leaps."""

    words: tuple[str, ...]
    length: float
    velocity: float
    octave: int
    leap: float


MOODS: dict[tuple[str, str], Mood] = {
    ("major", "slow"): Mood(("calm", "peaceful"), 1.0, 0.4, 0, 0.15),
    ("major", "moderate"): Mood(("warm", "bright"), 0.85, 0.6, 0, 0.3),
    ("major", "fast"): Mood(("cheerful", "happy"), 0.5, 0.85, 1, 0.4),
    ("minor", "slow"): Mood(("sad", "mournful"), 1.0, 0.35, 0, 0.1),
    ("minor", "moderate"): Mood(("dark", "mysterious"), 0.9, 0.5, -1, 0.3),
    ("minor", "fast"): Mood(("tense", "restless"), 0.6, 0.9, 0, 0.35),
}
RHYTHMS = {
    "slow": ((1.0, 1.0), (0.5, 0.5, 1.0), (1.5, 0.5), (1.0, 0.5, 0.5)),
    "moderate": ((1.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.5, 0.5), (1.5, 0.5)),
    "fast": ((0.5, 0.5, 0.5, 0.5), (1.0, 0.5, 0.5), (0.5, 0.5, 1.0), (1.0, 1.0)),
}  # lengths in beats that fill one chord


@dataclass(frozen=True)
class Note:
    """``start`` and ``length`` in beats, ``pitch`` as a MIDI note, ``velocity`` 0..1."""

    start: float
    length: float
    pitch: int
    velocity: float


def degree_pitch(degree: int, mode: str) -> int:
    """Semitones above the tonic of a scale degree (0 = tonic, 7 = an octave up)."""
    octave, step = divmod(degree, 7)
    return 12 * octave + SCALES[mode][step]


def compose(rng: Rng, row: Row, beats: float) -> list[Note]:
    """Melody and accompaniment: steps and some leaps, chord tones on the beat, home at the end."""
    instrument = INSTRUMENTS[row["instrument"]]
    mode, mood = row["mode"], MOODS[row["mode"], row["tempo"]]
    tonic = instrument.home + KEYS.index(row["key"]) - (12 if KEYS.index(row["key"]) > 6 else 0)
    melody_octave = 12 * (mood.octave if instrument.home < 70 and row["instrument"] != "bass" else 0)
    progression = PROGRESSIONS[mode][int(rng.integers(4))]
    bars = round(beats / 2)
    notes: list[Note] = []
    degree = int(rng.choice([0, 2, 4]))
    for bar in range(bars):
        last = bar == bars - 1
        root = 0 if last else progression[bar % 4]
        chord = (root, root + 2, root + 4)
        lengths = (2.0,) if last else RHYTHMS[row["tempo"]][int(rng.integers(4))]
        at = 2.0 * bar
        for position, length in enumerate(lengths):
            if last:
                degree = 0 if degree < 4 else 7
            elif position == 0:
                degree = min(
                    (tone + 7 * octave for tone in chord for octave in (-1, 0, 1)),
                    key=lambda tone: (abs(tone - degree) + (9 if tone == degree else 0), tone),
                )
            else:
                step = int(rng.choice([-1, 1])) * (int(rng.integers(2, 5)) if rng.random() < mood.leap else 1)
                degree += step if -3 <= degree + step <= 9 else -step
            pitch = tonic + melody_octave + degree_pitch(degree, mode)
            accent = mood.velocity + (0.1 if position == 0 else 0.0)
            notes.append(Note(at, length * (1.0 if last else mood.length), pitch, accent))
            at += length
        notes += accompany(instrument.chords, 2.0 * bar, [tonic + degree_pitch(tone, mode) for tone in chord], mood)
    return notes


def accompany(style: str, start: float, chord: list[int], mood: Mood) -> list[Note]:
    """Notes of a chord below the melody for two beats."""
    velocity = 0.55 * mood.velocity
    low = [pitch - 12 for pitch in chord]
    if style == "block":
        return [Note(start, 2 * mood.length, pitch, velocity) for pitch in [low[0] - 12, *low]]
    if style == "broken":
        return [Note(start + 0.5 * k, 1.0, low[index], velocity) for k, index in enumerate((0, 1, 2, 1))]
    if style == "root":
        return [Note(start, 2.0, pitch, velocity) for pitch in (low[0], low[2])]
    return []


def plan(seed: int, times: int = 1) -> Iterator[Row]:
    """Metadata rows of all pieces, without making their audio; of train pieces there are ``times`` as many."""
    for name in INSTRUMENTS:
        combinations = list(product(range(len(KEYS)), SCALES, TEMPI))
        order = np.random.default_rng(seed_of(seed, "music", name)).permutation(len(combinations))
        left = [combinations[index] for index in order]
        parts = {}
        for split, count in PER_INSTRUMENT.items():
            parts[split], left = left[:count], left[count:]
        # More takes are other tunes of the same keys and tempi, and of those that no split has.
        parts["train"] = list(islice(cycle(parts["train"] + left), times * PER_INSTRUMENT["train"]))
        for split, part in parts.items():
            for number, (key, mode, tempo) in enumerate(part):
                clip = f"music-{split}-{name.replace(' ', '')}-{number:02d}"
                yield row(seed, clip, split, name, KEYS[key], mode, tempo)


def row(seed: int, name: str, split: str, instrument: str, key: str, mode: str, tempo: str) -> Row:
    """The metadata line of a piece."""
    rng = np.random.default_rng(seed_of(seed, name, "words"))
    mood = str(rng.choice(MOODS[mode, tempo].words))
    bpm = int(rng.integers(TEMPI[tempo][0], TEMPI[tempo][1] + 1))
    bars = max(3, int(4.7 / (120 / bpm)))  # of two beats, so that a piece takes about five seconds
    return {
        "file_name": f"music/{name}.flac",
        "id": name,
        "caption": captions(rng, instrument, key, mode, tempo, mood),
        "domain": "music",
        "split": split,
        "licence": LICENCE,
        "seconds": round(bars * 120 / bpm + 0.6, 2),
        "instrument": instrument,
        "key": key,
        "mode": mode,
        "tempo": tempo,
        "bpm": bpm,
        "mood": mood,
    }


def captions(rng: Rng, instrument: str, key: str, mode: str, tempo: str, mood: str) -> list[str]:
    """CAPTIONS different sentences; each names the instrument and the mood."""
    plays = "play" if instrument == "strings" else "plays"
    home = f"{key} {mode}"
    found = [
        f"A {tempo}, {mood} {instrument} melody in {home}",
        f"A {mood} piece for {instrument} in {home}, played at a {tempo} pace",
        f"The {instrument} {plays} a {tempo} and {mood} tune",
        f"{tempo.capitalize()} and {mood} {instrument} music in a {mode} key",
        f"{mood.capitalize()} music in {home} with a {tempo} beat, played on {instrument}",
        f"A {tempo} and {mood} passage for {instrument}",
    ]
    return [str(text) for text in rng.permutation(found)[:CAPTIONS]]


def render(row: Row, seed: int) -> Signal:
    """Audio of a metadata row: [samples] at 24 kHz, peaks below 1."""
    rng = np.random.default_rng(seed_of(seed, row["id"], "audio"))
    beat = 60 / row["bpm"]
    out = np.zeros(seconds_to_samples(row["seconds"]))
    play = INSTRUMENTS[row["instrument"]].play
    for note in compose(rng, row, (row["seconds"] - 0.6) / beat):
        frequency = 440 * 2 ** ((note.pitch - 69) / 12)
        sound = play(rng, frequency, note.length * beat, note.velocity)
        sound = sound / (np.max(np.abs(sound)) + 1e-9)
        add(out, sound, note.start * beat + abs(rng.normal(0, 0.004)), note.velocity)
    return finish(rng, room(rng, out, 0.7, 0.15))
