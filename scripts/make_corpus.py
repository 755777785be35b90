"""Build the embedded corpus, or a bigger one of the same kind.

    python scripts/make_corpus.py                                  # what is missing in data/mini
    python scripts/make_corpus.py --hours 8.5 --times 8 --out data/mini-full  # the shipped tokens, as audio
    python scripts/make_corpus.py --what speech --sentences my.txt --voices slt awb --out data/mine
    python scripts/make_corpus.py --what speech --sentences my.txt --words 2 16 --out data/clauses
    python scripts/make_corpus.py --what notes --out data/notes    # single notes

Speech needs flite, or piper for voices by path (FOLDER/NAME.onnx); sounds and music need nothing.
A build that was interrupted goes on where it stopped when the same command is given again; where all is there, nothing
is written or locked. See docs/corpus.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from mini_corpus import grammar, rendering, speech, voices
from mini_corpus.bigram import Bigram
from mini_corpus.layout import CorpusError, check_stamp, remove_leftovers, write_atomically, write_stamp
from training.arguments import at_least
from training.config import ending_plainly
from training.lock import hold, release
from training.progress import progress
from training.streams import say

MINI = Path(__file__).resolve().parents[1] / "data" / "mini"
SEED = 7
VOICES = ["slt", "rms"]
MINI_TEST, MINI_VALID, MINI_TRAIN_SECONDS = 80, 60, 420.0  # what ships as audio; see data/mini/README.md
SECONDS_PER_CLIP = 2.4  # of the grammar's sentences, for the progress bar only
BIGRAM_SENTENCES = 20_000  # train sentences that the recogniser's language model is estimated on


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line -> options; refuses combinations that would spoil the shipped corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--out", type=Path, default=MINI, help="corpus folder (default: data/mini)")
    add("--what", nargs="+", choices=["speech", "sounds", "music", "notes"], default=["sounds", "music", "speech"],
        help="parts to build (default: all but notes)")  # fmt: skip
    add("--hours", type=float, help="hours of train speech, beside 400 valid and 400 test sentences")
    add("--times", type=at_least(1), default=1, help="so many times as many train clips but speech (default: 1)")
    add(
        "--voices",
        nargs="+",
        default=VOICES,
        metavar="VOICE",
        help="in turn: flite voices, or Piper voices by path, FOLDER/NAME.onnx (default: slt rms)",
    )
    add(
        "--sentences",
        type=Path,
        metavar="FILE",
        help="speak this text, one sentence per line, not the grammar's",
    )
    add(
        "--words",
        nargs=2,
        type=at_least(1),
        metavar=("LEAST", "MOST"),
        help="with --sentences: those of so many words, and clauses of so many, in their sentence's split",
    )
    add("--jobs", type=at_least(1), default=2, help="clips made at the same time (default: 2)")
    add("--seed", type=at_least(0), default=SEED, help=f"another seed, another corpus (default: {SEED})")
    options = parser.parse_args(arguments)
    if options.hours is not None and options.hours <= 0:
        parser.error(f"--hours must be above 0, not {options.hours:g}")
    if options.words is not None and (options.sentences is None or options.words[0] > options.words[1]):
        parser.error("--words LEAST MOST chooses among the clauses of --sentences FILE, LEAST not above MOST")
    if options.out.resolve() == MINI and "notes" in options.what:
        parser.error("notes are a corpus of their own; name its folder with --out data/notes")
    changed = options.hours is not None or options.sentences is not None or options.times != 1
    if options.out.resolve() == MINI and (changed or options.voices != VOICES or options.seed != SEED):
        parser.error("--hours, --times, --sentences, --voices and --seed make another corpus than the shipped one; "
                     "name its folder with --out")  # fmt: skip
    return options


def make_speech(options: argparse.Namespace) -> None:
    """Speak the grammar's sentences, or those of a file."""
    names = voices.names_of(options.voices)
    settings: dict[str, Any] = {"source": "grammar", "seed": options.seed, "voices": names}
    if options.sentences is not None:
        sentences = speech.read_sentences(options.sentences)
        texts = {text: speech.split_of(text) for text in sentences}
        if options.words is not None:
            texts, left_out = speech.cut(sentences, *options.words)
            if not texts:
                raise CorpusError(f"--sentences {options.sentences} holds no text of --words {options.words}.")
            counts = Counter(texts.values())
            shares = ", ".join(f"{split} {counts[split]}" for split in ("test", "valid", "train"))
            print(f"speech: {len(texts)} texts of {len(sentences)} sentences: {shares}")
            if left_out:
                print(
                    f"speech: left out {len(left_out)} held-out texts, of which a train sentence holds "
                    f"{speech.COMMON_WORDS} words in a row, or all: {left_out[:5]}"
                )
        plan: Iterable[speech.Utterance] = speech.plan_sentences(texts, names)
        digest = hashlib.sha256("\n".join(f"{clip.id} {clip.text}" for clip in plan).encode()).hexdigest()[:12]
        settings = {"source": f"sentences {digest}", "seed": None, "voices": names, "words": options.words}
        seconds, total = None if options.hours is None else options.hours * 3600, len(texts)
    elif options.hours is None:
        plan = speech.plan_grammar(options.seed, names, MINI_TEST, MINI_VALID)
        seconds = MINI_TRAIN_SECONDS
        total = MINI_TEST + MINI_VALID + int(seconds / SECONDS_PER_CLIP)
    else:
        plan = speech.plan_grammar(options.seed, names, speech.SPLIT_SIZE, speech.SPLIT_SIZE)
        seconds = options.hours * 3600
        total = 2 * speech.SPLIT_SIZE + int(seconds / SECONDS_PER_CLIP)
    check_stamp(options.out, "speech", settings)
    if options.sentences is None:
        write_grammar(options)
    amount = {"train_seconds": seconds, "clips_planned": total}
    if speech.is_complete(options.out, {**settings, **amount}):
        print(f"speech: all there in {options.out}")
        return
    hold(options.out, "--out")
    opened = voices.open_voices(options.voices)
    remove_leftovers(options.out, "speech")
    write_stamp(options.out, "speech", {**settings, **amount, "complete": False})
    summary = speech.SpeechSummary()
    built = speech.build_speech(plan, options.out, seconds, opened, options.jobs, summary)
    try:
        for _ in progress(built, total, "speech"):
            pass
    finally:
        for voice in opened.values():
            voice.close()
    if not summary.clips:
        raise CorpusError("nothing was said at all; try: flite -voice slt -t hello -o hello.wav")
    write_stamp(options.out, "speech", {**settings, **amount, "complete": True})
    parts = (f"{split} {summary.clips[split]} clips {summary.seconds[split] / 60:.1f} min" for split in summary.clips)
    print(f"speech: {', '.join(parts)} in {options.out}")
    if summary.silent:
        print(f"speech: left out {len(summary.silent)} sentences that are not spoken: {summary.silent[:5]}")


def write_grammar(options: argparse.Namespace) -> None:
    """words.txt and grammar.arpa: what a recogniser needs that knows these sentences only."""
    words, model = options.out / "words.txt", options.out / "grammar.arpa"
    vocabulary = grammar.vocabulary()
    if words.exists() and model.exists() and words.read_text(encoding="utf-8").split() == list(vocabulary):
        return
    hold(options.out, "--out")
    train = islice(
        grammar.sentence_stream(options.seed), 2 * speech.SPLIT_SIZE, 2 * speech.SPLIT_SIZE + BIGRAM_SENTENCES
    )
    write_atomically(model, Bigram(train, vocabulary).arpa().encode())
    write_atomically(words, ("\n".join(vocabulary) + "\n").encode())


def make_clips(options: argparse.Namespace, name: str, part: str) -> None:
    """Synthesise sounds, music or notes that are missing or that other code made."""
    rows = rendering.outstanding(part, options.seed, options.out, options.times)
    if not rows and rendering.rows_are_current(part, options.seed, options.out, options.times):
        print(f"{name}: all there in {options.out}")
        return
    hold(options.out, "--out")
    clips = rendering.build_clips(rows, part, options.seed, options.out, options.jobs, options.times)
    for _ in progress(clips, len(rows), name):
        pass
    print(f"{name}: {len(rows)} clips, {sum(row['seconds'] for row in rows) / 60:.1f} min in {options.out}")


@ending_plainly()
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be built (one sentence on stderr), 130 interrupted."""
    options = parse(arguments)
    try:
        for name, part in (("sounds", "sound"), ("music", "music"), ("notes", "notes")):
            if name in options.what:
                make_clips(options, name, part)
        if "speech" in options.what:
            make_speech(options)
    except CorpusError as error:
        say(f"make_corpus.py: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nmake_corpus.py: interrupted; the same command goes on from here.")
        return 130
    finally:
        release(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
