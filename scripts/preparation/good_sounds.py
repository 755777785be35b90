"""Good-sounds: takes.json and sounds.json, and the takes' files sound_files/PACK/MICROPHONE/NNNN.wav.

The files are those of good-sounds.zip, whose folder good-sounds may lie beside the two lists or hold them. A sound that
several microphones recorded has several takes, and each is a clip.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codec.corpus import AudioError, audio_info
from preparation.recipe import Item, PreparationError, Recipe, first_file, require

KEPT = ("instrument", "dynamics", "klass", "player")
NOTE = ("note", "octave", "semitone")  # of a scale they would be those of its first note
STAMPS = ("attack", "decay", "sustain", "release", "offset")  # samples there, seconds here
SHARES = (0.6, 0.15)  # of the sounds that train and choose


def read(root: Path) -> Iterator[Item]:
    """All takes. The set has no splits: a hash of the performance, ``sound``, draws them, so that its microphones are
    in one."""
    folder = require(root, "takes.json", "sounds.json")
    sounds = table(folder / "sounds.json", ("instrument", "klass"))
    for name, take in table(folder / "takes.json", ("filename", "sound_id")).items():
        sound = sounds.get(str(take["sound_id"]))
        if sound is None:
            raise PreparationError(f"{folder / 'takes.json'}: sound {take['sound_id']} of take {name} is not there")
        place = [folder / take["filename"], folder / "good-sounds" / take["filename"]]
        path = first_file(place)
        keys = KEPT if is_scale(sound) else (*KEPT, *NOTE)
        kept = {key: sound[key] for key in keys if sound.get(key) is not None} | stamps(sound, path)
        yield Item(
            str(Path(take["filename"]).with_suffix("")).removeprefix("sound_files/"), path, split_of(take["sound_id"]),
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


def is_scale(sound: dict[str, Any]) -> bool:
    return "scale" in (sound["klass"] or "")


def split_of(sound: object) -> str:
    """The split of a performance, whatever else is there."""
    number = int.from_bytes(hashlib.sha256(str(sound).encode()).digest()[:8], "big") / 2**64
    return "train" if number < SHARES[0] else "valid" if number < sum(SHARES) else "test"


def stamps(sound: dict[str, Any], path: Path) -> dict[str, float]:
    """The five stamps in seconds; none where one is missing, or where they do not follow each other."""
    values = [float(v) for key in STAMPS if isinstance(v := sound.get(key), (int, float)) and math.isfinite(v)]
    if len(values) < len(STAMPS) or sorted(values) != values or values[0] < 0 or values[-1] <= 0:
        return {}
    try:
        rate = audio_info(path).sample_rate
    except AudioError:
        return {}  # left out with its reason when it is written
    return {key: round(value / rate, 5) for key, value in zip(STAMPS, values, strict=True)}


def caption(sound: dict[str, Any]) -> str:
    """``a note of an alto saxophone, C4``; klass says which recordings are scales."""
    kind, _, voice = sound["instrument"].partition("_")
    instrument = f"{voice} saxophone" if kind == "sax" else sound["instrument"].replace("_", " ")
    article = "an" if instrument[0] in "aeio" else "a"
    what = "scale" if is_scale(sound) else "note"
    pitch = f"{sound.get('note') or ''}{sound.get('octave') if sound.get('octave') is not None else ''}"
    return f"a {what} of {article} {instrument}" + (f", {pitch}" if pitch and what == "note" else "")


RECIPE = Recipe("Good-sounds", "https://doi.org/10.34810/DATA2314", "CC BY 4.0", read)
