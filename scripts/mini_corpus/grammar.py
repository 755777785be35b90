"""A small grammar of English: about 150 words, short sentences, millions of distinct ones.

A language model of a few million parameters has to learn to speak these sentences from hours of audio on two
cores, so the vocabulary is closed, every content word is used about equally often, sentences are short
(3 to 8 words), and no two words of the vocabulary sound alike. Every word is in CMUdict, so that a recogniser
which never saw this corpus can spell it.

    stream = sentence_stream(seed=7)       # distinct sentences, the same for the same seed
    next(stream)                           # "peter carried the purple ladder"
"""

from __future__ import annotations

import random
from collections.abc import Iterator

CLASSES: dict[str, tuple[str, ...]] = {
    "PERSON": ("anna", "robert", "emma", "david", "susan", "oscar", "julia", "peter", "maria", "victor"),
    "ROLE": ("doctor", "teacher", "farmer", "captain", "sister", "brother"),
    "ANIMAL": (
        "rabbit",
        "monkey",
        "tiger",
        "spider",
        "turtle",
        "elephant",
        "horse",
        "pigeon",
        "camel",
        "dolphin",
        "puppy",
    ),
    "OBJECT": (
        "table",
        "window",
        "letter",
        "basket",
        "hammer",
        "bottle",
        "jacket",
        "pencil",
        "ladder",
        "blanket",
        "camera",
        "umbrella",
        "guitar",
    ),
    "THINGS": (
        "apples",
        "cookies",
        "tickets",
        "candles",
        "mushrooms",
        "potatoes",
        "bananas",
        "balloons",
        "sandwiches",
        "spoons",
    ),
    "FOOD": ("coffee", "butter", "honey", "soup", "water", "cheese"),
    "PLACE": (
        "kitchen",
        "garden",
        "market",
        "village",
        "river",
        "airport",
        "hospital",
        "station",
        "school",
        "forest",
        "office",
        "island",
        "castle",
        "museum",
    ),
    "DAY": ("monday", "friday", "sunday"),
    "SEASON": ("morning", "evening", "summer", "winter"),
    "COLOUR": ("yellow", "orange", "purple", "green", "black", "white", "silver", "brown"),
    "FEELING": ("happy", "hungry", "quiet", "angry", "lonely", "clever", "lazy"),
    "STATE": ("heavy", "broken", "empty", "dirty", "beautiful", "expensive"),
    "NUMBER": ("three", "five", "seven", "nine", "eleven", "twelve", "twenty", "fifty"),
    "DID": ("found", "carried", "painted", "wanted", "cleaned", "lost", "covered", "noticed", "borrowed"),
    "DOING": ("sleeping", "running", "singing", "dancing", "waiting", "jumping", "hiding", "working"),
    "DO": ("bring", "hide", "count", "send", "choose"),
    "NEAR": ("behind", "under", "near"),
    "SOON": ("today", "tomorrow", "tonight"),
}
"""Slot name -> words that fill it, each equally likely."""

PATTERNS: tuple[tuple[float, str], ...] = (
    (6.0, "PERSON DID the COLOUR OBJECT"),
    (1.0, "PERSON DID NUMBER COLOUR THINGS"),
    (1.5, "PERSON DID FOOD and THINGS"),
    (1.5, "PERSON was DOING yesterday"),
    (4.0, "PERSON DID THINGS on DAY"),
    (1.5, "PERSON is DOING NEAR the PLACE"),
    (3.0, "PERSON is FEELING and FEELING"),
    (2.5, "every SEASON PERSON DID THINGS"),
    (2.5, "PERSON has NUMBER THINGS and FOOD"),
    (3.0, "my ROLE is DOING in the PLACE"),
    (4.5, "my ROLE DID NUMBER COLOUR THINGS"),
    (0.5, "my ROLE is FEELING"),
    (2.0, "PERSON has COLOUR THINGS"),
    (1.0, "is my ROLE DOING SOON"),
    (2.5, "the ANIMAL is NEAR the OBJECT"),
    (3.5, "the ANIMAL DID NUMBER COLOUR THINGS"),
    (5.0, "the FEELING ANIMAL DID THINGS"),
    (0.5, "the ANIMAL is FEELING"),
    (1.5, "the ANIMAL is DOING SOON"),
    (3.0, "NUMBER COLOUR THINGS"),
    (5.5, "the ANIMAL is DOING NEAR the PLACE"),
    (2.0, "every SEASON the ANIMAL is FEELING"),
    (5.5, "the OBJECT in the PLACE is STATE"),
    (3.0, "my COLOUR OBJECT is STATE"),
    (3.0, "this OBJECT is STATE and COLOUR"),
    (0.5, "where is my STATE OBJECT"),
    (1.5, "where is the COLOUR OBJECT"),
    (3.5, "who DID the STATE OBJECT yesterday"),
    (1.5, "who DID NUMBER COLOUR THINGS"),
    (0.5, "who is DOING on DAY"),
    (1.5, "who is DOING NEAR the PLACE"),
    (4.0, "is PERSON DOING in the PLACE"),
    (2.0, "can PERSON DO the FOOD SOON"),
    (2.5, "can my ROLE DO FOOD SOON"),
    (2.5, "please DO the COLOUR OBJECT"),
    (0.5, "please DO FOOD SOON"),
    (2.0, "please DO NUMBER THINGS"),
    (3.5, "never DO FOOD NEAR the PLACE"),
    (2.5, "we DID the PLACE every SEASON"),
    (0.5, "every SEASON we DO FOOD"),
    (1.0, "the PLACE was STATE yesterday"),
    (3.5, "we DID the ANIMAL NEAR the PLACE"),
)
"""(relative weight, pattern): capitals are slots, the rest is spoken as it stands."""


def vocabulary() -> tuple[str, ...]:
    """All words that a sentence can contain, sorted."""
    words = {word for members in CLASSES.values() for word in members}
    for _, pattern in PATTERNS:
        words.update(part for part in pattern.split() if part not in CLASSES)
    return tuple(sorted(words))


def compose(pattern: str, rng: random.Random) -> str:
    """One sentence of a pattern; a slot that stands twice in it gets two different words."""
    sentence: list[str] = []
    for part in pattern.split():
        choices = [word for word in CLASSES.get(part, (part,)) if part not in CLASSES or word not in sentence]
        sentence.append(rng.choice(choices))
    return " ".join(sentence)


def sentence_stream(seed: int) -> Iterator[str]:
    """Endless stream of distinct lower-case sentences; equal seeds give equal streams.

    A sentence never comes twice, so that splits cut from one stream share none. Ends when the grammar is
    exhausted (millions of sentences later).
    """
    rng = random.Random(f"mini corpus sentences {seed}")
    patterns = [pattern for _, pattern in PATTERNS]
    weights = [weight for weight, _ in PATTERNS]
    seen: set[str] = set()
    misses = 0
    while misses < 100_000:
        sentence = compose(rng.choices(patterns, weights)[0], rng)
        if sentence in seen:
            misses += 1
            continue
        misses = 0
        seen.add(sentence)
        yield sentence
