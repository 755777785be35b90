"""Sentences spoken by a synthesiser (voices.py), as a corpus folder.

The order is fixed: all test sentences, all valid sentences, then train sentences until there is enough audio.
A build with more hours therefore begins with the clips of a build with fewer, under the same ids.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile

from mini_corpus.grammar import sentence_stream
from mini_corpus.layout import CorpusError, Row, read_metadata, read_stamp, replace_rows, seed_of, write_flac
from mini_corpus.voices import Voice
from tasks.pauses import NO_TITLE
from tasks.text import plain

LEVEL = 10 ** (-28 / 20)  # RMS of every clip; lower levels cost fewer bytes in FLAC, 16 bits leave 68 dB below it
PEAK = 0.95
# Not within a number (3,500 or 12:30), and not behind a title or an initial.
CLAUSE_ENDS = re.compile(rf"[;()\[\]\"“”«»…—–]+|(?<!\d)[,:]+|[,:]+(?!\d)|{NO_TITLE}[.!?]+\s|\s-+\s|--+")
COMMON_WORDS = 5  # in a row, that a held-out clause may not share with a text of the train split
SPLIT_SIZE = 400  # test and valid sentences that are set aside before the first train sentence


@dataclass(frozen=True)
class Utterance:
    """One clip to be spoken."""

    id: str
    text: str
    speaker: str
    split: str

    @property
    def file_name(self) -> str:
        return f"speech/{self.id}.flac"

    def silence(self, rate: int) -> tuple[int, int]:
        """(lead, trail) samples of silence at ``rate``, 0-120 and 0-60 ms: speech starts anywhere in a token window."""
        seed = seed_of("silence", self.id)
        return (
            seed % 1000 * rate * 120 // 1_000_000,
            seed // 1000 % 1000 * rate * 60 // 1_000_000,
        )


def plan_grammar(seed: int, voices: list[str], test: int = SPLIT_SIZE, valid: int = SPLIT_SIZE) -> Iterator[Utterance]:
    """Endless plan over the grammar: ``test`` test clips, ``valid`` valid clips, then train clips.

    Whatever part of them is asked for, SPLIT_SIZE sentences are set aside for each of test and valid, so that
    a sentence is in the same split, under the same id, in every build with this seed.
    """
    for split, size in (("test", test), ("valid", valid)):
        if size > SPLIT_SIZE:
            raise CorpusError(f"at most {SPLIT_SIZE} {split} sentences are set aside, {size} were asked for.")
    stream = sentence_stream(seed)
    set_aside = {split: list(islice(stream, SPLIT_SIZE)) for split in ("test", "valid")}
    for split, size in (("test", test), ("valid", valid)):
        for number, text in enumerate(set_aside[split][:size]):
            yield Utterance(f"speech-{split}-{number:04d}", text, voices[number % len(voices)], split)
    for number, text in enumerate(stream):
        yield Utterance(f"speech-train-{number:06d}", text, voices[number % len(voices)], "train")


def read_sentences(path: Path) -> list[str]:
    """Distinct sentences of a text file, one per line; blank lines and repetitions are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"--sentences {path} cannot be read as UTF-8 text ({error}).") from error
    sentences = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    for sentence in sentences:
        if not sentence.isprintable():
            raise CorpusError(f"--sentences {path} holds unprintable characters in {sentence!r}; remove them.")
    if not sentences:
        raise CorpusError(f"--sentences {path} holds no sentence; write one per line.")
    return sentences


def split_of(sentence: str) -> str:
    """The split that a hash of the sentence's words gives it, however they are written: 5 % test, 5 % valid."""
    return {0: "test", 1: "valid"}.get(seed_of("split", plain(sentence)) % 20, "train")


def runs_of_words(words: list[str], length: int) -> set[tuple[str, ...]]:
    """All runs of ``length`` words in a row."""
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def cut(sentences: list[str], least: int, most: int) -> tuple[dict[str, str], list[str]]:
    """Sentences, and their clauses (between marks), of ``least`` to ``most`` words: what a voice learns to read from.

    A text has the split of the sentence it stands in. A test or valid text is left out where a train sentence holds
    five of its words in a row (of a shorter one all), so that none was heard in training.

    Returns:
        text → split, and the held-out texts that are left out.
    """
    heard: set[tuple[str, ...]] = set()
    for sentence in sentences:
        if split_of(sentence) == "train":
            words = plain(sentence).split()
            for length in range(1, COMMON_WORDS + 1):
                heard |= runs_of_words(words, length)
    texts: dict[str, str] = {}
    kept: set[str] = set()
    left_out: dict[str, None] = {}
    for sentence in sentences:
        split = split_of(sentence)
        for part in (sentence, *CLAUSE_ENDS.split(sentence)):
            text = part if part is sentence else part.strip(" .!?'‘’-")
            words, said = plain(text).split(), sum(map(bool, map(plain, text.split())))
            if not least <= said <= most or " ".join(words) in kept:
                continue
            if split != "train" and runs_of_words(words, min(COMMON_WORDS, len(words))) & heard:
                left_out[text] = None
            else:
                kept.add(" ".join(words))
                texts[text] = split
    return texts, list(left_out)


def plan_sentences(texts: Mapping[str, str], voices: list[str]) -> list[Utterance]:
    """Plan over given texts, text → split: test, valid, train, each in the given order."""
    numbers: Counter[str] = Counter()
    plan = []
    for text, split in texts.items():
        number = numbers[split]
        numbers[split] += 1
        plan.append(Utterance(f"speech-{split}-{number:06d}", text, voices[number % len(voices)], split))
    return sorted(plan, key=lambda utterance: ("test", "valid", "train").index(utterance.split))


def level(samples: np.ndarray) -> np.ndarray:
    """Scale to the corpus' level, [samples] -> [samples]; peaks stay below PEAK."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    peak = float(np.max(np.abs(samples)))
    return samples * min(LEVEL / max(rms, 1e-5), PEAK / max(peak, 1e-5))


def render(utterance: Utterance, folder: Path, voice: Voice) -> float:
    """Speak one clip unless its file is there; returns its length in seconds (0.0: nothing was said)."""
    path = folder / utterance.file_name
    if path.exists():
        return soundfile.info(path).duration
    samples, rate = voice.speak(utterance.text)
    if len(samples) < rate // 10 or not np.any(samples):
        return 0.0
    samples = np.pad(level(samples), utterance.silence(rate))
    write_flac(path, samples, rate)
    return len(samples) / rate


@dataclass
class SpeechSummary:
    """What a speech build holds."""

    clips: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    silent: list[str] = field(default_factory=list)


def in_order(
    plan: Iterable[Utterance], folder: Path, voices: Mapping[str, Voice], jobs: int
) -> Generator[tuple[Utterance, float], None, None]:
    """Render ``jobs`` clips at a time, give them back in the plan's order with their seconds.

    What was rendered ahead when the caller stops is deleted: no file lies in the folder that no metadata names.
    """
    ahead: deque[tuple[Utterance, Future[float], bool]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for utterance in plan:
                was_there = (folder / utterance.file_name).exists()
                ahead.append((utterance, pool.submit(render, utterance, folder, voices[utterance.speaker]), was_there))
                if len(ahead) > 2 * jobs:
                    first, seconds, _ = ahead.popleft()
                    yield first, seconds.result()
            while ahead:
                first, seconds, _ = ahead.popleft()
                yield first, seconds.result()
        finally:
            for utterance, future, was_there in ahead:
                if not future.cancel() and future.exception() is None and not was_there:
                    (folder / utterance.file_name).unlink(missing_ok=True)


def build_speech(
    plan: Iterable[Utterance],
    folder: Path,
    train_seconds: float | None,
    voices: Mapping[str, Voice],
    jobs: int,
    summary: SpeechSummary,
    every: float = 30.0,
) -> Iterator[str]:
    """Speak a plan into ``folder/speech`` and keep ``metadata.jsonl`` current; yields each id once it is there.

    Args:
        summary: is counted up.
        train_seconds: stop when the train split is this long, in seconds; None: speak the whole plan.
        every: seconds between two writings of the metadata, so that training can start on a growing corpus.
    """
    rows: list[Row] = []
    written = time.monotonic()
    clips = in_order(plan, folder, voices, jobs)
    for utterance, seconds in clips:
        if seconds == 0.0:
            summary.silent.append(utterance.text)
            continue
        rows.append(row_of(utterance, seconds, voices[utterance.speaker].licence))
        summary.clips[utterance.split] += 1
        summary.seconds[utterance.split] += seconds
        if time.monotonic() - written > every:
            replace_rows(folder, "speech", rows)
            written = time.monotonic()
        yield utterance.id
        if train_seconds is not None and summary.seconds["train"] >= train_seconds:
            clips.close()
            break
    replace_rows(folder, "speech", rows)


def is_complete(folder: Path, settings: dict[str, object]) -> bool:
    """Whether the folder holds a finished speech build of these settings with all of its files."""
    stamp = read_stamp(folder, "speech")
    if any(stamp.get(key) != value for key, value in settings.items()) or not stamp.get("complete"):
        return False
    rows = [row for row in read_metadata(folder) if row["domain"] == "speech"]
    return bool(rows) and all((folder / row["file_name"]).exists() for row in rows)


def row_of(utterance: Utterance, seconds: float, licence: str) -> Row:
    """The metadata line of a clip."""
    return {
        "file_name": utterance.file_name,
        "id": utterance.id,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "domain": "speech",
        "split": utterance.split,
        "licence": licence,
        "seconds": round(seconds, 3),
    }
