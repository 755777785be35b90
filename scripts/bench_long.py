"""A long clip through the codec, in pieces, in one pass and from file to file: what differs, and what memory it takes.

    python scripts/bench_long.py                                        # the codec that ships, 10 minutes
    python scripts/bench_long.py --tokenizer runs/codec-small/final --minutes 60 --pieces-only

The clip is the speech of a corpus, one recording after the other. Each way runs in a process of its own; its memory is
the most that the process ever took, with Python, the libraries and the codec. In pieces and in one pass the waveform is
in memory; from file to file, as codec/reconstruct.py does it, only a piece of it is.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import math
import multiprocessing
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from bench_codec import peak_resident
from codec.corpus import read_audio, read_corpus
from codec.load import load
from codec.model import ALMTokenizer
from codec.reconstruct import reconstruct_files
from eval.metrics.signal import snr
from training.config import ending_plainly


@dataclass
class Passed:
    """One way through the codec: codes ``[levels, windows]``, wav ``[samples]``, seconds, and bytes at the most."""

    codes: NDArray[np.int64]
    wav: NDArray[np.float32]
    seconds: float
    memory: int


def long_clip(root: str, minutes: float, sample_rate: int) -> NDArray[np.float32]:
    """So many minutes of the corpus' speech, repeated where it is shorter: ``[samples]``."""
    wanted, length = int(60 * minutes * sample_rate), 0
    parts: list[NDArray[np.float32]] = []
    clips = [clip for clip in read_corpus(root)[0] if clip.domain == "speech"]
    if not clips:
        raise SystemExit(f"{root} has no speech.")
    while length < wanted:
        parts.append(read_audio(clips[len(parts) % len(clips)].path, sample_rate))
        length += len(parts[-1])
    return np.concatenate(parts)[:wanted]


def through(tokenizer: str, root: str, minutes: float, in_pieces: bool) -> Passed:
    """Encode and decode the clip in pieces or in one pass."""
    torch.set_num_threads(2)
    codec = load(tokenizer)
    if not isinstance(codec, ALMTokenizer):
        raise SystemExit(f"{tokenizer} is no ALMTokenizer.")
    if not in_pieces:
        codec.one_pass_seconds = math.inf
    wav = torch.from_numpy(long_clip(root, minutes, codec.sample_rate))
    started = time.perf_counter()
    codes = codec.encode(wav[None])
    again = codec.decode(codes)
    seconds = time.perf_counter() - started
    return Passed(codes.codes[0].numpy(), again[0].numpy(), seconds, peak_resident())


def file_to_file(tokenizer: str, source: str, target: str) -> tuple[float, int]:
    """Seconds and bytes that codec/reconstruct.py's way takes."""
    torch.set_num_threads(2)
    codec = load(tokenizer)
    started = time.perf_counter()
    reconstruct_files(source, target, codec)
    return time.perf_counter() - started, peak_resident()


@ending_plainly()
def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="checkpoints/codec-mini", help="folder of the codec")
    parser.add_argument("--corpus", default="data/mini", help="folder whose speech makes the clip")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--pieces-only", action="store_true", help="leave out the single pass, which needs the memory")
    arguments = parser.parse_args()
    found: dict[str, Passed] = {}
    context = multiprocessing.get_context("spawn")
    for name in ("in pieces",) if arguments.pieces_only else ("in pieces", "one pass"):
        with context.Pool(1) as pool:
            found[name] = pool.apply(
                through, (arguments.tokenizer, arguments.corpus, arguments.minutes, name == "in pieces")
            )
        passed = found[name]
        print(f"{name}: {passed.seconds:.1f} s, {passed.memory / 1e6:.0f} MB, {passed.codes.size:,} codes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/long.wav", f"{folder}/again.wav"
        soundfile.write(source, long_clip(arguments.corpus, arguments.minutes, 24_000), 24_000)
        with context.Pool(1) as pool:
            seconds, memory = pool.apply(file_to_file, (arguments.tokenizer, source, target))
        print(f"file to file: {seconds:.1f} s, {memory / 1e6:.0f} MB", flush=True)
    if "one pass" in found:
        pieces, whole = found["in pieces"], found["one pass"]
        differing = int((pieces.codes != whole.codes).sum())
        print(f"{differing} codes differ; the waveforms agree to {snr(whole.wav, pieces.wav):.0f} dB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
