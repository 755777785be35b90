"""Recordings with labels, in splits that share no group: what every score of a space is counted over.

A recording is one vector. Pieces of one recording, takes of several microphones, a note at two dynamics: what sounds
alike for another reason than its label shares a value of the ``group`` column, and stands in one split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codec.corpus import Clip
from training.config import ConfigError

SPLITS = ("train", "valid", "test")
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHARP = {"#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1, "": 0}
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
STAMPS = ("attack", "decay", "sustain", "release", "offset")  # Good-sounds' five, in seconds here
SHARES = (0.5, 0.2)  # of the groups that train and choose, where the corpus has no splits of its own


@dataclass(frozen=True)
class Recording:
    """One recording. ``steady`` is what of it is looked at, from and to in seconds; None: its middle half."""

    clip: Clip
    split: str
    labels: dict[str, str]
    group: str
    midi: int | None
    steady: tuple[float, float] | None

    @property
    def id(self) -> str:
        return self.clip.id


def midi_of(note: str, octave: str | int) -> int:
    """``A``, 4 → 69; sharps as ``A#`` or ``As``, flats as ``Bb``. Raises ValueError: no such note."""
    step, sign = note[:1].upper(), note[1:]
    if step not in STEPS or sign not in SHARP:
        raise ValueError(f"'{note}' is no note: write A, A# or Bb")
    return 12 * (int(octave) + 1) + STEPS[step] + SHARP[sign]


def columns_of(clip: Clip, names: re.Pattern[str] | None) -> dict[str, Any]:
    """What is known about a clip: its columns, and what ``names`` finds in its id; notes in one spelling."""
    found = {"domain": clip.domain, "speaker": clip.speaker, "split": clip.split, **clip.extra}
    if names is not None and (match := names.search(clip.id)):
        found |= {key: value for key, value in match.groupdict().items() if value is not None}
    if found.get("note") and str(found.get("octave", "")).lstrip("-").isdigit():
        try:
            midi = midi_of(str(found["note"]), found["octave"])
        except ValueError:
            return found
        found |= {"midi": midi, "note": NAMES[midi % 12], "octave": midi // 12 - 1}
    return found


def steady_part(columns: dict[str, Any]) -> tuple[float, float] | None:
    """From the middle of the sustain to the middle of the release, as the reproduction's notebooks; None: unknown."""
    try:
        sustain, release, offset = (float(columns[key]) for key in STAMPS[2:])
    except (KeyError, TypeError, ValueError):
        return None
    return ((sustain + release) / 2, (release + offset) / 2) if 0 <= sustain < release < offset else None


def text_of(value: Any) -> str | None:
    """A label as text; a list with one entry counts as that entry, and one with several as none."""
    if isinstance(value, (list, tuple)):
        value = value[0] if len(value) == 1 else None
    return None if value in (None, "") else str(value)


def drawn_split(group: str, seed: int) -> str:
    """The split of a group that has none: by a hash, so that it does not depend on what else is there."""
    number = int.from_bytes(hashlib.sha256(f"{seed}/{group}".encode()).digest()[:8], "big") / 2**64
    return "train" if number < SHARES[0] else "valid" if number < sum(SHARES) else "test"


def read_recordings(
    clips: Sequence[Clip], labels: Sequence[str], group: str | None, names: str | None, draw: bool, seed: int
) -> tuple[list[Recording], dict[str, str]]:
    """The clips that have all ``labels``, and ``{id: why}`` of the others.

    Args:
        group: the column whose values must not be in two splits; None: every clip is its own, which must be said.
        names: a regular expression whose named groups are columns, read off the ids.
        draw: draw the splits by group, where the corpus has none of use.

    Raises:
        ConfigError: no label, no clip with one, no group column, a group in two splits, one class, nothing to train or
            test on.
    """
    if not labels:
        raise ConfigError("labels is empty: name at least one column to tell recordings apart by.")
    try:
        pattern = re.compile(names) if names else None
    except re.error as error:
        raise ConfigError(f"names: '{names}' is no regular expression ({error}).") from error
    rows = [(clip, columns_of(clip, pattern)) for clip in clips]
    for label in labels:
        if not any(text_of(columns.get(label)) for _, columns in rows):
            known = sorted({key for _, columns in rows for key, value in columns.items() if text_of(value)})
            raise ConfigError(f"labels: no clip has a column '{label}'; there are {', '.join(known)} (see also names).")
    if group is not None and not any(text_of(columns.get(group)) for _, columns in rows):
        raise ConfigError(
            f"group={group}: no clip has this column, so that pieces of one recording could be in two splits; name the "
            "column that says which clips belong together, or give group=null if each clip is a recording of its own."
        )
    kept, left_out = [], {}
    for clip, columns in rows:
        values = {label: text_of(columns.get(label)) for label in labels}
        own = text_of(columns.get(group)) if group is not None else clip.id
        lacking = next((label for label, value in values.items() if value is None), None if own else group)
        if lacking is not None:
            left_out[clip.id] = f"it has no {lacking}"
            continue
        split = drawn_split(str(own), seed) if draw else clip.split
        if split not in SPLITS:
            left_out[clip.id] = f"its split {split} is none of {', '.join(SPLITS)}"
            continue
        midi = columns.get("midi")
        number = int(midi) if isinstance(midi, (int, str)) and str(midi).isdigit() else None
        kept.append(
            Recording(clip, split, {k: str(v) for k, v in values.items()}, str(own), number, steady_part(columns))
        )
    check_splits(kept, group)
    for label in labels:
        if len(classes := {r.labels[label] for r in kept}) < 2:
            raise ConfigError(
                f"labels: all recordings have the {label} {', '.join(classes)}: there is nothing to tell apart."
            )
    return kept, left_out


def check_splits(recordings: Sequence[Recording], group: str | None) -> None:
    """Refuse recordings of which scores would mean nothing.

    Raises:
        ConfigError: a group in two splits (frames of one recording, say), or nothing to train or test on.
    """
    places: dict[str, set[str]] = {}
    for recording in recordings:
        places.setdefault(recording.group, set()).add(recording.split)
    if torn := [name for name, splits in places.items() if len(splits) > 1]:
        raise ConfigError(
            f"group={group}: {torn[0]} is in {' and '.join(sorted(places[torn[0]]))}, and {len(torn)} of {len(places)} "
            "are in several: what belongs to one recording must be in one split; give splits=group."
        )
    counts = Counter(recording.split for recording in recordings)
    for split in ("train", "test"):
        if not counts[split]:
            raise ConfigError(
                f"splits: none of the {len(recordings)} recordings is in the {split} split; give splits=group, which "
                "draws them by group (with one take of each note it asks for notes that were not heard)."
            )
