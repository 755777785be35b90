"""Good-sounds: takes.json and sounds.json, and the takes' files sound_files/PACK/MICROPHONE/NNNN.wav.

The files are those of good-sounds.zip, whose folder good-sounds may lie beside the two lists or hold them. A sound that
several microphones recorded has several takes, and each is a clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preparation.recipe import Item, PreparationError, Recipe, first_file, require

KEPT = ("instrument", "note", "octave", "dynamics", "klass", "player", "semitone")


def read(root: Path) -> Iterator[Item]:
    """All takes. The set has no splits: all is train; ``sound`` tells which clips are the same performance."""
    folder = require(root, "takes.json", "sounds.json")
    sounds = table(folder / "sounds.json", ("instrument", "klass"))
    for name, take in table(folder / "takes.json", ("filename", "sound_id")).items():
        sound = sounds.get(str(take["sound_id"]))
        if sound is None:
            raise PreparationError(f"{folder / 'takes.json'}: sound {take['sound_id']} of take {name} is not there")
        place = [folder / take["filename"], folder / "good-sounds" / take["filename"]]
        kept = {key: sound[key] for key in KEPT if sound.get(key) is not None}
        yield Item(
            str(Path(take["filename"]).with_suffix("")).removeprefix("sound_files/"), first_file(place), "train",
            captions=[caption(sound)], domain="music",
            extra={**kept, "sound": take["sound_id"], "microphone": take.get("microphone")},
        )  # fmt: skip


def table(path: Path, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The entries of one of the set's lists, which are objects by number."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    for number, entry in entries.items():
        lacking = [key for key in keys if key not in entry]
        if lacking:
            raise PreparationError(f"{path}: entry {number} has no {', '.join(lacking)}")
    return entries


def caption(sound: dict[str, Any]) -> str:
    """``a note of an alto saxophone, C4``; klass says which recordings are scales."""
    kind, _, voice = sound["instrument"].partition("_")
    instrument = f"{voice} saxophone" if kind == "sax" else sound["instrument"].replace("_", " ")
    article = "an" if instrument[0] in "aeio" else "a"
    what = "scale" if "scale" in (sound["klass"] or "") else "note"
    pitch = f"{sound.get('note') or ''}{sound.get('octave') if sound.get('octave') is not None else ''}"
    return f"a {what} of {article} {instrument}" + (f", {pitch}" if pitch and what == "note" else "")


RECIPE = Recipe("Good-sounds", "https://doi.org/10.34810/DATA2314", "CC BY 4.0", read)
