"""Speed and memory of the codec beside EnCodec, Mimi and DAC, all in one run: prints a Markdown table.

    python scripts/bench_codec.py                                   # CPU, two threads
    python scripts/bench_codec.py --threads 1 2 --shapes 1x10 16x10 --repeats 7
    python scripts/bench_codec.py --codecs mini flow-1 flow-8 --shapes 1x3 1x600      # a flow decoder by evaluations
    python scripts/bench_codec.py --device cuda --codecs mini small encodec

Weights are random: speed does not depend on them. EnCodec, Mimi and DAC are the models of transformers in their
published 24 kHz configurations, at 1.5, 1.1 and 1.5 kbit/s. In each round every model encodes and decodes once, so that
whatever else the machine does falls upon all of them alike; ratios are medians of the rounds' ratios. RTF is the time
taken over the length of the audio: lower is faster. Memory is what a process of its own takes beyond the loaded model.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from codec.model import ALMTokenizer
from codec.network.architecture import architecture_of
from codec.network.flow import Sampling
from codec.recipe.initialise import flow_of
from training.arguments import at_least
from training.config import compose, ending_plainly

PRESETS = ("mini", "mini_causal", "small", "base")
FLOWS = tuple(f"flow-{steps}" for steps in (1, 2, 4, 8, 16))  # codec=mini with stage 3's decoder, by evaluations
PEERS = ("encodec", "mimi", "dac")
SAMPLE_RATE = 24_000
WARM_UP = 10.0  # s


@dataclass
class Contestant:
    """A model with its two directions; ``parameters`` in millions."""

    name: str
    encode: Callable[[Tensor], object]
    decode: Callable[[object], object]
    parameters: float


def preset(name: str, device: str, steps: int = 0) -> Contestant:
    """ALMTokenizer of configs/codec/<name>.yaml with random weights; wav ``[batch, samples]``.

    Args:
        steps: evaluations of a flow decoder of stage 3's sizes; 0: none.
    """
    cfg = compose("codec_train", [f"codec={name}"])
    config = architecture_of(cfg.codec)
    if steps:
        config.flow = flow_of(cfg, config, None)
    model = ALMTokenizer(config).eval().to(device)
    if steps and model.flow is not None:
        model.flow.choose(Sampling(steps=steps, solver="midpoint" if steps > 1 else "euler"))
    name = f"codec={name}, flow of {steps}" if steps else f"codec={name}"
    return Contestant(name, model.encode, model.decode, millions(model))


def peer(name: str, device: str) -> Contestant:
    """A model of transformers in its published 24 kHz configuration with random weights."""
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

    if name == "encodec":
        encodec = EncodecModel(EncodecConfig()).eval().to(device)
        return Contestant(
            "EnCodec, 2 levels", lambda x: encodec.encode(x[:, None], bandwidth=1.5).audio_codes,
            lambda codes: encodec.decode(codes, [None]), millions(encodec),
        )  # fmt: skip
    if name == "mimi":
        mimi = MimiModel(MimiConfig()).eval().to(device)
        return Contestant(
            "Mimi, 8 levels", lambda x: mimi.encode(x[:, None], num_quantizers=8).audio_codes, mimi.decode,
            millions(mimi),
        )  # fmt: skip
    config = DacConfig(
        sampling_rate=SAMPLE_RATE, downsampling_ratios=[2, 4, 5, 8], upsampling_ratios=[8, 5, 4, 2], n_codebooks=32
    )
    dac = DacModel(config).eval().to(device)
    return Contestant(
        "DAC, 2 levels",
        lambda x: dac.encode(x[:, None], n_quantizers=2).audio_codes,
        lambda codes: dac.decode(audio_codes=codes),
        millions(dac),
    )


def millions(model: torch.nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def build(name: str, device: str) -> Contestant:
    """The contestant that ``--codecs`` names."""
    torch.manual_seed(0)
    if name in FLOWS:
        return preset("mini", device, int(name.removeprefix("flow-")))
    return preset(name, device) if name in PRESETS else peer(name, device)


@torch.inference_mode()
def run(contestant: Contestant, wav: Tensor) -> tuple[float, float]:
    """Seconds that encode and decode of ``wav [batch, samples]`` take."""
    times = []
    value: object = wav
    for direction in (contestant.encode, contestant.decode):
        started = time.perf_counter()
        value = direction(value)  # type: ignore[operator]
        if wav.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times[0], times[1]


def peak_resident() -> int:
    """Bytes of memory that this process held at its peak."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def _peak(name: str, shape: tuple[int, float], threads: int, answer: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(threads)
    contestant = build(name, "cpu")
    loaded = psutil.Process().memory_info().rss
    run(contestant, signal(shape, "cpu"))
    answer.put(peak_resident() - loaded)


def peak_memory(name: str, shape: tuple[int, float], threads: int) -> float:
    """Bytes beyond the loaded model that encode and decode need on a CPU, in a process of its own."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_peak, args=(name, shape, threads, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{name} with {shape[0]} x {shape[1]} s ended with status {process.exitcode}")
    return float(answer.get())


def signal(shape: tuple[int, float], device: str) -> Tensor:
    """Noise ``[batch, samples]``."""
    batch, seconds = shape
    wav = torch.randn(batch, int(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(0)) * 0.1
    return wav.to(device)


def compare(
    contestants: list[Contestant], shape: tuple[int, float], repeats: int, device: str
) -> list[list[tuple[float, float]]]:
    """Per contestant the times of each round, after one round of at most ``WARM_UP`` seconds that does not count."""
    for contestant in contestants:
        run(contestant, signal((shape[0], min(shape[1], WARM_UP)), device))
    wav = signal(shape, device)
    rounds: list[list[tuple[float, float]]] = [[] for _ in contestants]
    for _ in range(repeats):
        for place, contestant in enumerate(contestants):
            rounds[place].append(run(contestant, wav))
    return rounds


def table(
    contestants: list[Contestant],
    rounds: list[list[tuple[float, float]]],
    memory: list[float],
    shape: tuple[int, float],
    references: list[int],
) -> str:
    """Markdown: median RTFs with the range of their sum, ratios to the contestants ``references``, memory."""
    audio = shape[0] * shape[1]
    heads = [f"× {contestants[i].name.split(',')[0]}" for i in references]
    lines = [
        f"| model | parameters | encode RTF | decode RTF | both (range) | {''.join(f'{h} | ' for h in heads)}memory |",
        "|---|---|---|---|---|" + "---|" * len(heads) + "---|",
    ]
    for contestant, times, bytes_used in zip(contestants, rounds, memory, strict=True):
        both = [sum(pair) / audio for pair in times]
        middle = [statistics.median(pair[k] / audio for pair in times) for k in (0, 1)]
        ratios = [
            statistics.median(sum(theirs) / sum(ours) for theirs, ours in zip(rounds[i], times, strict=True))
            for i in references
        ]
        lines.append(
            f"| {contestant.name} | {contestant.parameters:.1f} M | {middle[0]:.4f} | {middle[1]:.4f} | "
            f"{statistics.median(both):.4f} ({min(both):.4f}–{max(both):.4f}) | "
            + "".join(f"{ratio:.2f} | " for ratio in ratios)
            + f"{bytes_used / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


def shape_of(text: str) -> tuple[int, float]:
    """``16x2.5`` → (16, 2.5): clips and seconds each."""
    batch, _, seconds = text.partition("x")
    try:
        shape = int(batch), float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form CLIPSxSECONDS, as 16x2") from None
    if shape[0] < 1 or shape[1] * SAMPLE_RATE < 1:
        raise argparse.ArgumentTypeError(f"'{text}' holds no audio")
    return shape


@ending_plainly()
def main(arguments: list[str] | None = None) -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = (*PRESETS, *FLOWS, *PEERS)
    parser.add_argument("--codecs", nargs="+", choices=names, default=["mini", "small", *PEERS], help="who takes part")
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=[(1, 10.0), (16, 2.0)], help="CLIPSxSECONDS")
    parser.add_argument(
        "--threads", nargs="+", type=at_least(1), default=[min(2, os.cpu_count() or 1)], help="CPU threads"
    )
    parser.add_argument("--repeats", type=at_least(1), default=5, help="rounds that count")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)

    cuda = options.device.startswith("cuda")
    memory: dict[tuple[int, float], list[float]] = {}
    if not cuda:  # first: a process that has computed with several threads must not fork
        for shape in options.shapes:
            memory[shape] = [peak_memory(name, shape, options.threads[0]) for name in options.codecs]
    contestants = [build(name, options.device) for name in options.codecs]
    references = [i for i, name in enumerate(options.codecs) if name in PEERS]
    for threads in [1] if cuda else options.threads:
        torch.set_num_threads(threads)
        for shape in options.shapes:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            rounds = compare(contestants, shape, options.repeats, options.device)
            if cuda:
                memory[shape] = []
                for contestant in contestants:
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                    run(contestant, signal(shape, options.device))
                    memory[shape].append(torch.cuda.max_memory_allocated() - before)
            where = torch.cuda.get_device_name() if cuda else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
            print(
                f"\n{shape[0]} clip{'s' if shape[0] > 1 else ''} of {shape[1]:g} s, {where}, {options.repeats} rounds, "
                f"torch {torch.__version__}, load before {load:.1f}\n"
            )
            print(table(contestants, rounds, memory[shape], shape, references), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
