"""Everyday sounds with captions: sixteen classes, alone and two at a time.

No combination of classes is in two splits; clips of one class alone differ by their seed. A clip is a pure
function of (corpus seed, id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mini_corpus import machines, nature
from mini_corpus.layout import Row, seed_of
from mini_corpus.synthesis import Rng, Signal, finish, loudness

LICENCE = "MIT"
CAPTIONS = 3  # paraphrases per clip


@dataclass(frozen=True)
class SoundClass:
    """A class of sounds and how English names it.

    Attributes:
        generate: (rng, seconds, variant) -> [samples] at 24 kHz.
        variants: what the caption can say about it; each is an audibly different setting of the generator.
        clauses: "{v}" stands for the variant; each has a subject and a verb in the present tense.
        nouns: noun phrases.
        keyword: a word that is in every clause and noun phrase of the class and of no other class.
    """

    generate: Callable[[Rng, float, str], Signal]
    variants: tuple[str, ...]
    clauses: tuple[str, ...]
    nouns: tuple[str, ...]
    keyword: str


CLASSES: dict[str, SoundClass] = {
    "rain": SoundClass(
        nature.rain, ("light", "steady", "heavy"),
        ("{v} rain falls", "{v} rain patters on a roof", "{v} rain comes down"),
        ("{v} rain", "the patter of {v} rain"), "rain",
    ),
    "wind": SoundClass(
        nature.wind, ("gentle", "gusty", "howling"),
        ("a {v} wind blows", "a {v} wind sweeps by"), ("a {v} wind", "the rush of a {v} wind"), "wind",
    ),
    "waves": SoundClass(
        nature.waves, ("small", "big"),
        ("{v} waves break on a beach", "{v} waves roll ashore"), ("{v} waves", "the surf of {v} waves"), "waves",
    ),
    "thunder": SoundClass(
        nature.thunder, ("distant", "loud"),
        ("{v} thunder rumbles", "{v} thunder rolls across the sky"),
        ("{v} thunder", "the rumble of {v} thunder"), "thunder",
    ),
    "dog": SoundClass(
        nature.dog, ("small", "big"),
        ("a {v} dog barks", "a {v} dog is barking"), ("a barking {v} dog", "the barks of a {v} dog"), "dog",
    ),
    "birds": SoundClass(
        nature.birds, ("lively", "calm"),
        ("{v} birds chirp", "{v} birds are singing"), ("{v} birds", "the song of {v} birds"), "birds",
    ),
    "drops": SoundClass(
        nature.drops, ("slow", "quick"),
        ("{v} drops of water fall", "water falls in {v} drops"),
        ("{v} drops of water", "the plop of {v} drops of water"), "drops",
    ),
    "siren": SoundClass(
        machines.siren, ("slow", "rapid"),
        ("a {v} siren wails", "a {v} siren sounds"), ("a {v} siren", "the wail of a {v} siren"), "siren",
    ),
    "alarm": SoundClass(
        machines.alarm, ("shrill", "low"),
        ("a {v} alarm beeps", "a {v} alarm goes off"), ("a {v} alarm", "the beeps of a {v} alarm"), "alarm",
    ),
    "bell": SoundClass(
        machines.bell, ("small", "large"),
        ("a {v} bell rings", "a {v} bell is struck"), ("a {v} bell", "the strokes of a {v} bell"), "bell",
    ),
    "telephone": SoundClass(
        machines.telephone, ("vintage", "modern"),
        ("a {v} telephone rings", "a {v} telephone is ringing"),
        ("a {v} telephone", "the ringing of a {v} telephone"), "telephone",
    ),
    "clock": SoundClass(
        machines.clock, ("slow", "fast"),
        ("a {v} clock ticks", "a {v} clock is ticking"), ("a {v} clock", "the ticking of a {v} clock"), "clock",
    ),
    "footsteps": SoundClass(
        machines.footsteps, ("slow", "brisk"),
        ("{v} footsteps pass", "{v} footsteps sound on a floor"),
        ("{v} footsteps", "the sound of {v} footsteps"), "footsteps",
    ),
    "typing": SoundClass(
        machines.typing, ("slow", "fast"),
        ("somebody is typing at a {v} pace", "{v} typing clatters on a keyboard"),
        ("{v} typing", "{v} typing on a keyboard"), "typing",
    ),
    "engine": SoundClass(
        machines.engine, ("idling", "racing"),
        ("an engine is {v}", "an engine is heard {v}"), ("an engine {v}", "the noise of an engine {v}"), "engine",
    ),
    "helicopter": SoundClass(
        machines.helicopter, ("distant", "nearby"),
        ("a {v} helicopter flies", "a {v} helicopter hovers"),
        ("a {v} helicopter", "the throb of a {v} helicopter"), "helicopter",
    ),
}  # fmt: skip

ALONE = {"train": 13, "valid": 1, "test": 2}  # clips per class
TOGETHER = {"train": 2, "valid": 1, "test": 2}  # clips per combination
PAIRS = {"valid": 12, "test": 12}  # combinations that are held out; the rest is train


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def caption_alone(rng: Rng, name: str, variant: str) -> list[str]:
    """CAPTIONS different sentences about one sound."""
    sound = CLASSES[name]
    clauses = [clause.format(v=variant) for clause in sound.clauses]
    nouns = [noun.format(v=variant) for noun in sound.nouns]
    found = [capital(clause) for clause in clauses] + [capital(nouns[1])]
    found += [f"{capital(nouns[0])} can be heard", f"You can hear {nouns[0]}"]
    return [str(text) for text in rng.permutation(found)[:CAPTIONS]]


def caption_together(rng: Rng, front: tuple[str, str], back: tuple[str, str]) -> list[str]:
    """CAPTIONS different sentences about (class, variant) in the foreground and in the background."""
    near, far = (
        (
            str(rng.choice(CLASSES[name].clauses)).format(v=variant),
            str(rng.choice(CLASSES[name].nouns)).format(v=variant),
        )
        for name, variant in (front, back)
    )
    found = [
        f"{capital(near[0])} while {far[0]}",
        f"{capital(near[0])} with {far[1]} in the background",
        f"{capital(near[0])} and {far[0]}",
        f"{capital(near[1])} over {far[1]}",
        f"In the background {far[0]} while {near[0]}",
    ]
    return [str(text) for text in rng.permutation(found)[:CAPTIONS]]


def split_pairs(seed: int) -> dict[str, list[tuple[str, str]]]:
    """All combinations of two classes, each in exactly one split."""
    pairs = list(combinations(sorted(CLASSES), 2))
    order = np.random.default_rng(seed_of(seed, "sound pairs")).permutation(len(pairs))
    pairs = [pairs[index] for index in order]
    test, valid = PAIRS["test"], PAIRS["test"] + PAIRS["valid"]
    return {"test": pairs[:test], "valid": pairs[test:valid], "train": pairs[valid:]}


def plan(seed: int, times: int = 1) -> Iterator[Row]:
    """Metadata rows of all sound clips, without making their audio; of train clips there are ``times`` as many."""
    pairs = split_pairs(seed)
    for split in ("train", "valid", "test"):
        takes = times if split == "train" else 1
        for name in CLASSES:
            for number in range(ALONE[split] * takes):
                yield row(seed, f"sound-{split}-{name}-{number:02d}", split, (name,))
        for pair in pairs[split]:
            for number in range(TOGETHER[split] * takes):
                yield row(seed, f"sound-{split}-{pair[0]}-{pair[1]}-{number:02d}", split, pair)


def row(seed: int, name: str, split: str, classes: tuple[str, ...]) -> Row:
    """The metadata line of a clip; the first of ``classes`` is the foreground."""
    rng = np.random.default_rng(seed_of(seed, name, "words"))
    if len(classes) == 2 and rng.random() < 0.5:
        classes = classes[::-1]
    variants = [str(rng.choice(CLASSES[kind].variants)) for kind in classes]
    pairs = list(zip(classes, variants, strict=True))
    captions = caption_alone(rng, *pairs[0]) if len(pairs) == 1 else caption_together(rng, *pairs)
    return {
        "file_name": f"sounds/{name}.flac",
        "id": name,
        "caption": captions,
        "domain": "sound",
        "split": split,
        "licence": LICENCE,
        "seconds": round(float(rng.uniform(4.2, 5.8)), 2),
        "classes": list(classes),
        "variants": variants,
    }


def render(row: Row, seed: int) -> Signal:
    """Audio of a metadata row: [samples] at 24 kHz, peaks below 1."""
    rng = np.random.default_rng(seed_of(seed, row["id"], "audio"))
    layers = []
    for name, variant in zip(row["classes"], row["variants"], strict=True):
        layer = CLASSES[name].generate(rng, row["seconds"], variant)
        layers.append(layer / max(loudness(layer), 1e-9))
    mixed = layers[0]
    if len(layers) == 2:
        mixed = mixed + 10 ** (-rng.uniform(5, 11) / 20) * layers[1]
    return finish(rng, mixed)
