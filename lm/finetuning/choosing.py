"""Which clips a voice is learnt from and which are kept for the test, and what a person must know about them.

kept, rejects = choose(clips, labels, limits)
kept, rejects = hold_out(kept, 20)
for warning in warnings(kept, …): …
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from codec.corpus import Clip, Reject, spread
from lm.finetuning.gathering import Limits
from tasks.text import plain

LEAST = 10  # clips to learn from, beside those of the test
SHORT = 300.0  # s of speech below which a voice is not expected to come through
APART = 0.45  # octaves between the pitches of two people
FEW = 0.15  # share of a speaker's clips below which they are chance
UNSEEN = 0.02  # share of letters that a text tokenizer spells in bytes from which a language is new to it


def choose(
    clips: Sequence[Clip], labels: Mapping[str, Mapping[str, Any]], limits: Limits
) -> tuple[list[Clip], list[Reject]]:
    """The clips with a text, their own or the heard one, that sound good enough; and the others with the reason.

    Args:
        labels: by clip id, as eval/label.py writes them: ``text``, ``dnsmos``, ``pitch``.
    """
    kept, rejects = [], []
    for clip in clips:
        label = labels.get(clip.id)
        if label is None:
            reason = "it cannot be judged"
        elif clip.text is None and "text" not in label:
            reason = "no text: nobody heard what is said (weights.whisper=FOLDER or a hub id)"
        elif not plain(text := clip.text or label["text"]):
            reason = "no words are said in it"
        elif limits.dnsmos is not None and label.get("dnsmos", math.inf) < limits.dnsmos:
            reason = f"DNSMOS below {limits.dnsmos:g}"
        else:
            more = {**clip.extra, **{key: label[key] for key in ("dnsmos", "pitch") if key in label}}
            kept.append(dataclasses.replace(clip, text=text, extra=more))
            continue
        rejects.append(Reject(clip.id, str(clip.path), reason))
    return kept, rejects


def hold_out(clips: Sequence[Clip], count: int) -> tuple[list[Clip], list[Reject]]:
    """The clips with their splits: ``count`` sentences, of all speakers alike, are the test; no other clip says one.

    Sentences of the folder's own test split are taken where it has ``count``. A tenth of the rest, at most ``count``,
    becomes the valid split where the folder has none, or nothing else. The second list are the clips that say a
    sentence of the test.
    """
    sentence = {clip.id: plain(clip.text or "") for clip in clips}
    own = [clip for clip in clips if clip.split == "test"]
    others = own if len({sentence[clip.id] for clip in own}) >= count else clips
    first = {sentence[clip.id]: clip for clip in reversed(others)}  # one clip of each sentence
    tested = {clip.id for clip in spread(sorted(first.values(), key=lambda clip: clip.id), count)}
    said = {sentence[name] for name in tested}
    rest = [clip for clip in clips if clip.id not in tested and clip.split != "test" and sentence[clip.id] not in said]
    valid = {clip.id for clip in rest if clip.split == "valid"}
    if not 0 < len(valid) < len(rest):  # none, or nothing else to learn from
        valid = {clip.id for clip in spread(rest, min(count, len(rest) // 10))} if len(rest) >= 10 else set()
    found = [dataclasses.replace(clip, split="test") for clip in clips if clip.id in tested]
    found += [dataclasses.replace(clip, split="valid" if clip.id in valid else "train") for clip in rest]
    kept = {clip.id for clip in found}
    reason = "it says a sentence of the test, or is of the folder's own test split and more than is tested"
    return found, [Reject(clip.id, str(clip.path), reason) for clip in clips if clip.id not in kept]


def warnings(clips: Sequence[Clip], before: Sequence[Clip], unseen: float, normalise: str) -> list[str]:
    """What a person must know before training on ``clips``.

    Args:
        before: the clips with the splits of their folder.
        unseen: share of their letters that the text tokenizer has never seen (`unseen_letters`).
        normalise: how texts are read.
    """
    found = []
    seconds = sum(float(clip.extra.get("seconds", 0)) for clip in clips if clip.split == "train")
    if seconds < SHORT:
        found.append(
            f"TOO SMALL: {seconds / 60:.1f} minutes of speech to learn from; below {SHORT / 60:g} minutes a voice "
            "hardly comes through"
        )
    found += [f"TWO SPEAKERS under one name: {said}" for said in two_voices(clips)]
    if again := in_train_and_test(before):
        found.append(
            f"THE SAME SENTENCE in train and test: {len(again)} sentences of the folder's test split, as "
            f"'{again[0][:60]}', are also in another; those clips are not trained on"
        )
    if unseen > UNSEEN:
        found.append(
            f"A LANGUAGE THE MODEL NEVER SAW: its text tokenizer has not met {100 * unseen:.0f} % of the letters of "
            f"the texts (text.normalise={normalise}): it spells them in bytes, and will hardly learn to say them"
        )
    return found


def in_train_and_test(clips: Iterable[Clip]) -> list[str]:
    """The sentences that stand in the folder's test split and in another of its splits."""
    of_split: dict[bool, set[str]] = {True: set(), False: set()}
    for clip in clips:
        of_split[clip.split == "test"].add(plain(clip.text or ""))
    return sorted(of_split[True] & of_split[False])


def two_voices(clips: Sequence[Clip]) -> list[str]:
    """A sentence for each speaker whose clips have two pitches, as two people have; two alike voices are not told."""
    pitches: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        if "pitch" in clip.extra:
            pitches[str(clip.speaker)].append(float(clip.extra["pitch"]))
    found = []
    for speaker, heard in pitches.items():
        octaves = np.sort(np.log2(heard))
        few = max(2, math.ceil(FEW * len(octaves)))
        cuts = range(few, len(octaves) - few + 1)
        if not cuts:
            continue
        # Otsu's threshold: the cut that leaves the least variance inside both parts
        cut = min(cuts, key=lambda i: octaves[:i].var() * i + octaves[i:].var() * (len(octaves) - i))
        low, high = octaves[:cut], octaves[cut:]
        if high.mean() - low.mean() > APART and max(low.std(), high.std()) < APART / 2:
            found.append(
                f"of {speaker} {len(low)} clips are spoken at {2 ** low.mean():.0f} Hz and {len(high)} at "
                f"{2 ** high.mean():.0f} Hz; give each its name in a column 'speaker'"
            )
    return found


def unseen_letters(texts: Iterable[str], tokenizer: Any) -> float:
    """Share of the letters of ``texts`` that ``tokenizer`` spells in bytes, or not at all."""
    letters = Counter(letter for text in texts for letter in text if letter.isalpha())

    def unseen(letter: str) -> bool:
        pieces = tokenizer.tokenize(letter)
        return any(
            piece == tokenizer.unk_token or (piece.startswith("<0x") and piece.endswith(">")) for piece in pieces
        )

    return sum(count for letter, count in letters.items() if unseen(letter)) / max(1, letters.total())
