"""Memory and time of an encoding as a corpus grows: very many very short clips, made on the spot, into token shards.

    python scripts/bench_encode.py --clips 100000                                        # a tokenizer that does nothing
    python scripts/bench_encode.py --clips 10000 --tokenizer checkpoints/codec-mini      # a real one

What is measured is `codec.encode.encode_corpus`, in a process of its own, whose memory (resident set) is looked at
whenever the tokenizer is called. The corpus takes 4 KB of disk per clip and is removed at the end.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from codec.encode import encode_corpus
from codec.interface import AudioTokenizer, Codes
from codec.load import load
from codec.shards import iterate_shards
from training.arguments import at_least
from training.config import ending_plainly

SAMPLE_RATE = 16_000
MARKS = (1_000, 10_000, 50_000)  # clips after which memory and time are reported, and after the last one


class Trivial(AudioTokenizer):
    """One code per 80 ms, its loudness: what it costs is the reading, the batching and the writing."""

    name = "trivial"
    sample_rate = SAMPLE_RATE
    codebook_sizes = (64,)
    causal = True
    samples_per_frame = 1_280
    fingerprint = "0" * 64

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        """``wav [batch, samples]`` → codes ``[batch, 1, frames]``."""
        lengths = torch.full((len(wav),), wav.shape[1]) if lengths is None else lengths
        frames = -(-lengths // self.samples_per_frame)
        padded = torch.nn.functional.pad(wav, (0, int(frames.max()) * self.samples_per_frame - wav.shape[1]))
        loudness = padded.unflatten(1, (-1, self.samples_per_frame)).abs().mean(-1)
        return Codes((loudness * 63).long().clamp(0, 63)[:, None], frames, lengths)

    def decode(self, codes: Codes) -> Tensor:
        """``[batch, samples]``."""
        return (codes.codes[:, 0] / 63).repeat_interleave(self.samples_per_frame, dim=1)


def make_corpus(root: Path, clips: int, seconds: float) -> None:
    """``clips`` files of noise, each another, a thousand to a folder, with texts."""
    random, samples = np.random.default_rng(0), round(seconds * SAMPLE_RATE)
    sizes = (36 + 2 * samples, 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16, 2 * samples)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", sizes[0], b"WAVE", b"fmt ", *sizes[1:8], b"data", sizes[8])
    with (root / "metadata.jsonl").open("w") as lines:
        for start in range(0, clips, 1000):
            folder = f"{start // 1000:04d}"
            (root / folder).mkdir()
            noise = random.integers(-8_000, 8_000, (min(1000, clips - start), samples), dtype=np.int16)
            for number, wav in enumerate(noise, start):
                name = f"{folder}/{number:07d}.wav"
                with open(f"{root}/{name}", "wb") as file:
                    file.write(header + wav.tobytes())
                lines.write(f'{{"file_name": "{name}", "text": "clip number {number}"}}\n')


@dataclass
class Watch:
    """Memory, time and processor time when so many clips had been sent to the tokenizer."""

    clips: int
    seconds: float
    processor: float  # seconds of all threads
    resident: int  # bytes


def watch(tokenizer: AudioTokenizer) -> list[Watch]:
    """The list that fills while ``tokenizer`` encodes."""
    process, encode = psutil.Process(), tokenizer.encode
    started, used = time.monotonic(), time.process_time()

    def now(clips: int) -> Watch:
        return Watch(clips, time.monotonic() - started, time.process_time() - used, process.memory_info().rss)

    watched = [now(0)]

    def encode_watched(wav: Tensor, lengths: Tensor | None = None) -> Codes:
        codes = encode(wav, lengths)
        watched.append(now(watched[-1].clips + len(wav)))
        return codes

    tokenizer.encode = encode_watched  # type: ignore[method-assign]
    return watched


def table(watched: list[Watch], clips: int) -> str:
    """Markdown: the highest memory up to each mark, and the times at it."""
    rows = ["| clips encoded | highest memory so far | time | processor time |", "|---|---|---|---|"]
    rows.append(f"| 0 (the tokenizer is loaded) | {watched[0].resident / 1e6:.0f} MB | | |")
    for mark in [*(mark for mark in MARKS if mark < clips), clips]:
        past = [moment for moment in watched if moment.clips <= mark]
        peak = max(moment.resident for moment in past)
        rows.append(f"| {mark:,} | {peak / 1e6:.0f} MB | {past[-1].seconds:.0f} s | {past[-1].processor:.0f} s |")
    return "\n".join(rows)


@ending_plainly()
def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 when clips are missing from the shards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--clips", type=at_least(1), default=100_000, help="number of clips (100000)")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of each (0.1)")
    parser.add_argument("--tokenizer", help="folder of an audio tokenizer; without, one that does next to nothing")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="audio per batch (120)")
    parser.add_argument("--workers", type=at_least(1), help="threads that read; default one per core, at most 8")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench_encode_") as scratch:
        root, out = Path(scratch) / "corpus", Path(scratch) / "tokens"
        root.mkdir()
        make_corpus(root, options.clips, options.seconds)
        tokenizer: AudioTokenizer = load(options.tokenizer) if options.tokenizer else Trivial()
        watched = watch(tokenizer)
        summary = encode_corpus(root, tokenizer, out, batch_seconds=options.batch_seconds, workers=options.workers)
        end = psutil.Process().memory_info().rss
        shards = sum(path.stat().st_size for path in out.iterdir())
        identities = [row.id for row in iterate_shards(out)]
    whole = len(identities) == len(set(identities)) == options.clips == summary.encoded
    print(f"{options.clips:,} clips of {options.seconds} s, {tokenizer.name}, {os.cpu_count()} cores\n")
    print(table(watched, options.clips))
    print(f"\nfinished after {summary.seconds:.0f} s with {end / 1e6:.0f} MB; {shards / 1e6:.1f} MB of shards; every")
    print(f"clip is in them {'exactly once' if whole else 'NOT exactly once'}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
