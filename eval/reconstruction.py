"""Reconstruction: what a tokenizer keeps of the clips of a corpus.

    python eval/reconstruction.py                                    # test speech of data/mini, codec that ships
    python eval/reconstruction.py window=10 recognisers=[ctc-mini]
    python eval/reconstruction.py speakers=[slt]
    python eval/reconstruction.py resynthesis=FOLDER    # <id>.wav of any other codec, as codec/classical.py makes them
    python eval/reconstruction.py data.root=VCTK protocol=almtokenizer2    # the columns of its table, and their values
    python eval/reconstruction.py data.root=FOLDER domains=[sound,music] recognisers=[] concat=[]

Rows: reference and resynthesis; silence, shuffled (another clip's resynthesis) and reference-at-codec-rate bound the
paired metrics, and of a flow decoder random-codes and true-target (eval/harness/anchors.py). Writes results.json,
items.jsonl, wavs/<row>/<id>.wav and sheets/*.png with the spectrograms of every clip. A delay of the codec is measured
and taken out before reference and resynthesis are compared (``delay``; an ALMTokenizer has none by construction), and
the result says how long it was.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.classical import RECORD
from codec.corpus import Clip, spread
from codec.interface import AudioTokenizer
from codec.model import ALMTokenizer
from codec.shards import ShardError, iterate_shards, read_index
from codec.shards.token_source import shipped_shards
from eval.comparison.published import read_published
from eval.embedders import NAMES as EMBEDDERS
from eval.harness.anchors import ANCHORS, anchors, bounds_of_flow
from eval.harness.audio import RESAMPLER, CannotScore, resample
from eval.harness.clips import heard_at, read_generated, read_reference, row_like, text_of
from eval.harness.coding import resynthesise
from eval.harness.processes import is_main
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Run
from eval.harness.scored import ScoredClip
from eval.harness.spectrogram_sheet import write_sheets
from eval.judges.judging import (
    how_texts,
    judge_by_networks,
    judge_mos,
    judge_words,
    known_scores,
    one_by_one,
    score_clips,
)
from eval.judges.recognisers.interface import NAMES
from eval.judges.sounds import judge_frechet
from eval.metrics.delay import Delay, find_delay, undelayed
from eval.metrics.signal import PAIRED, PESQ, stoi
from eval.metrics.texture import TEXTURE
from eval.metrics.visqol import NAMES as VISQOL
from eval.metrics.visqol import ViSQOL
from training.config import ConfigError, hydra_entry
from training.identity import file_hash

LENGTH_BITS = 32  # of a clip's number of samples, which no code holds
OF_PAIRS = {**PAIRED, **TEXTURE}
PROTOCOLS = {"almtokenizer2": ("ALMTokenizer2", ["pesq-wb", "pesq-nb", "stoi", "stft-distance"])}
METRICS = (*OF_PAIRS, "pesq-wb", "pesq-nb", *VISQOL)


def choose_clips(cfg: DictConfig, corpus: Sequence[Clip]) -> list[Clip]:
    """The clips of the chosen splits, domains and speakers, in the order of the corpus."""
    chosen = [clip for clip in corpus if clip.split in cfg.splits and clip.domain in cfg.domains]
    if not chosen:
        raise ConfigError(
            f"{cfg.data.root} has no clips with splits={list(cfg.splits)} and domains={list(cfg.domains)}."
        )
    if cfg.speakers is not None:
        known = sorted({clip.speaker for clip in chosen if clip.speaker is not None})
        if strangers := [name for name in cfg.speakers if name not in known]:
            raise ConfigError(
                f"speakers: no such clip is spoken by {strangers[0]}; they have {', '.join(known) or 'none'}."
            )
        chosen = [clip for clip in chosen if clip.speaker in cfg.speakers]
    return spread(chosen, cfg.limit)


@dataclass
class Coded:
    """What became of the clips, by a tokenizer or elsewhere.

    Attributes:
        row: ``resynthesis``.
        rate: Hz; of clips from elsewhere the highest of theirs.
        how: what a result records about what made them.
        bits: seconds of audio → bits per second of it, by the way of counting.
        codes: of each clip, ``[frames, levels]``.
        seconds: that coding took.
    """

    row: list[ScoredClip]
    rate: int
    how: dict[str, Any]
    bits: Callable[[float], dict[str, float]]
    codes: list[NDArray[np.int64]] = field(default_factory=list)
    seconds: float = 0.0


def code_clips(references: list[ScoredClip], tokenizer: AudioTokenizer) -> Coded:
    """The clips through a tokenizer."""
    waves = heard_at(references, tokenizer.sample_rate)
    begun = time.monotonic()
    made = resynthesise(tokenizer, waves)
    seconds = time.monotonic() - begun
    outputs = {name: wav for name, (wav, _) in made.items()}
    codes = [found for _, found in made.values()]
    row = row_like("resynthesis", references, outputs, tokenizer.sample_rate)
    bits = partial(bits_of_codes, codes, tokenizer)
    return Coded(row, tokenizer.sample_rate, tokenizer.describe(), bits, codes, seconds)


def read_coded(cfg: DictConfig, clips: list[Clip]) -> Coded:
    """The clips as another codec left them in the folder ``resynthesis``, and what its codec.json says of its bits, if
    it has one (codec/classical.py).

    Raises:
        ConfigError: no such folder, none of the clips in it, or a codec.json of another kind.
    """
    folder = Path(cfg.resynthesis)
    row, record = read_generated(folder, clips, row="resynthesis")
    rate = max(clip.rate for clip in row)
    for clip in row:
        clip.rate = clip.rate or rate  # of what is not there
    how = {"name": folder.name, **record}
    rates: dict[str, float] = {}
    if (folder / RECORD).is_file():
        try:
            said = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            rates = {"nominal": float(said["bitrate"]), "entropy": float(said["bits"]) / float(said["seconds"])}
            how |= {"name": str(said["name"]), "bitrate": rates["nominal"]}
        except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError) as error:
            raise ConfigError(
                f"resynthesis: {folder / RECORD} is none that codec/classical.py wrote ({type(error).__name__}: "
                f"{error}): write it again, or remove it."
            ) from None

    def bits(seconds: float) -> dict[str, float]:
        delivered = sum(clip.wav is not None for clip in row)
        return rates and {**rates, "whole": rates["entropy"] + LENGTH_BITS * delivered / seconds}

    return Coded(row, rate, how, bits)


def code_usage(codes: list[NDArray[np.int64]], sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Per level: share of the codebook that occurs, and perplexity exp(entropy), over codes ``[frames, levels]``."""
    everything = np.concatenate(codes)
    found = []
    for level, size in enumerate(sizes):
        counts = np.bincount(everything[:, level], minlength=size)
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        found.append({"usage": float((counts > 0).mean()), "perplexity": math.exp(entropy)})
    return found


def report_usage(report: Report, codes: list[NDArray[np.int64]], tokenizer: AudioTokenizer, of: str = "") -> None:
    """File the usage of each level; ``of`` is appended to the metrics' names."""
    frames = sum(len(part) for part in codes)
    for level, found in enumerate(code_usage(codes, tokenizer.codebook_sizes), 1):
        for name, value in found.items():
            report.number("resynthesis", f"{name}{of}/level-{level}", value, frames)


def bits_of_codes(codes: list[NDArray[np.int64]], tokenizer: AudioTokenizer, seconds: float) -> dict[str, float]:
    """Bits per second of ``seconds`` of audio, counted in three ways: ``nominal``, as papers do, frame rate times log2
    of the codebooks; ``entropy``, by the frequencies of the codes of each level in these clips, which an entropy coder
    would come near to (few frames flatter it: see N of the usage); ``whole``, all that decoding needs, each clip's
    started frames and its number of samples.
    """
    frames = sum(len(part) for part in codes)
    coded = sum(math.log2(found["perplexity"]) for found in code_usage(codes, tokenizer.codebook_sizes))
    whole = frames * sum(map(math.log2, tokenizer.codebook_sizes)) + LENGTH_BITS * len(codes)
    return {"nominal": tokenizer.bitrate, "entropy": frames * coded / seconds, "whole": whole / seconds}


def report_shards(report: Report, cfg: DictConfig, tokenizer: AudioTokenizer) -> None:
    """File the usage of each level in the tokens that ship with the corpus, where this tokenizer made them."""
    shipped = shipped_shards(cfg.data)
    if shipped is None:
        return
    try:
        if read_index(shipped).is_of(tokenizer):
            stored = [row.codes.astype(np.int64) for row in iterate_shards(shipped, None, list(cfg.domains))]
            report_usage(report, stored, tokenizer, "-shards")
    except ShardError as error:
        print(f"code usage of {shipped}: not computed: {error}", flush=True)


def compare(
    report: Report,
    metrics: list[str],
    references: list[ScoredClip],
    outputs: list[ScoredClip],
    rate: int,
    row: str = "resynthesis",
    delay: float = 0.0,
) -> None:
    """File the paired metrics of ``row``; both sides at ``rate`` (0: the lower of the two rates).

    Args:
        delay: of the outputs in seconds, which is taken out first.
    """
    for name in metrics:
        score: Any = OF_PAIRS.get(name) or (ViSQOL(name) if name in VISQOL else PESQ(name.removeprefix("pesq-")))
        report.mean(row, name, *paired(name, score, references, outputs, rate, delay))
        if isinstance(score, PESQ):
            score.close()


def paired(
    name: str,
    score: Callable[..., float],
    references: Sequence[ScoredClip],
    outputs: Sequence[ScoredClip],
    rate: int,
    delay: float,
) -> tuple[dict[str, float], dict[str, str]]:
    """As `score_clips`, the ``score`` of each output against the reference of its id; the rest as in `compare`."""
    of = {clip.id: clip for clip in references}

    def aligned(output: ScoredClip) -> float:
        reference = of[output.id]
        wanted = rate or min(reference.rate, output.rate)
        pair = [resample(clip.usable(), clip.rate, wanted) for clip in (reference, output)]
        length = min(map(len, pair))  # rates that do not divide round to lengths one sample apart
        if max(map(len, pair)) - length > 1:
            raise CannotScore("lengths differ")
        return score(*undelayed(pair[0][:length], pair[1][:length], delay, wanted), wanted)

    return score_clips(known_scores(name, {}, None), one_by_one(aligned), outputs, key=lambda clip: clip.id)


def length_check(
    report: Report,
    clips: list[ScoredClip],
    tokenizer: AudioTokenizer,
    crop_seconds: float,
    factors: list[int],
    delay: float = 0.0,
) -> None:
    """STOI of the same clips when they are coded in pieces of 1, 3, 30 ... training crops.

    All clips are joined to one stream, which is cut into pieces of each length and coded; the outputs are joined again
    and each clip is scored at its own place. Only the length that the codec sees differs.
    """
    rate = tokenizer.sample_rate
    waves = [resample(clip.usable(), clip.rate, rate) for clip in clips]
    stream = np.concatenate(waves)
    edges = np.cumsum([0, *map(len, waves)])
    for factor in factors:
        size = int(factor * crop_seconds * rate)
        starts = list(range(0, len(stream), size))
        if len(starts) > 1 and len(stream) - starts[-1] < rate:  # no crumb at the end
            starts.pop()
        pieces = [stream[a:b] for a, b in zip(starts, [*starts[1:], len(stream)], strict=True)]
        joined = np.concatenate([wav for wav, _ in resynthesise(tokenizer, dict(enumerate(pieces))).values()])
        heard = [
            ScoredClip(clip.id, clip.row, clip.text, joined[start : start + len(wav)], rate)
            for clip, wav, start in zip(clips, waves, edges[:-1], strict=True)
        ]
        values, failures = paired(f"pieces {factor}x", stoi, clips, heard, rate, delay)
        longest = max(map(len, pieces)) / rate
        report.mean(
            "resynthesis", f"stoi-pieces/{factor}x", values, failures, piece_seconds=longest, pieces=len(pieces)
        )
        if factor != factors[0]:
            report.difference_of_metrics("resynthesis", f"stoi-pieces/{factor}x", f"stoi-pieces/{factors[0]}x")


@hydra_entry("eval_reconstruction")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, metrics=METRICS, recognisers=NAMES, embeddings=EMBEDDERS)
    published = []
    if cfg.protocol:
        name, cfg.metrics = PROTOCOLS[cfg.protocol]
        tables = read_published("eval/comparison/published.yaml")
        published = [f"\n{of.title}\n{of.table.console()}" for of in tables if of.name == name]
    clips = choose_clips(cfg, run.corpus)
    coded = read_coded(cfg, clips) if cfg.resynthesis else None
    if coded is None:
        run.load_tokenizer(window=cfg.window, levels=cfg.levels)
    suffix = "".join(f"-{key[0]}{cfg[key]}" for key in ("window", "levels") if cfg[key] is not None)
    name = Path(cfg.resynthesis).name if coded else f"{run.tokenizer.name}{suffix}"
    run.take(name, "eval-reconstruction")
    told = coded.how["name"] if coded else f"{run.tokenizer.name} {run.tokenizer.bitrate:.1f} bit/s"
    run.say(f"{len(clips)} clips of {cfg.data.root}, {told}")

    # ---- reference and resynthesis -------------------------------------------------------------------------
    references = read_reference(clips)
    coded = coded or code_clips(references, run.tokenizer)
    resynthesis, rate = coded.row, coded.rate
    waves, outputs = heard_at(references, rate), heard_at(resynthesis, rate)
    both = [name for name in waves if name in outputs]
    rows = {"reference": references, "resynthesis": resynthesis}
    run.keep(rows, clips, "speaker", "domain")

    # ---- scores --------------------------------------------------------------------------------------------
    if cfg.delay == "auto":
        delay = find_delay([(waves[name], outputs[name]) for name in both], rate)
    else:
        delay = Delay(int(cfg.delay) / rate, int(cfg.delay), 0.0, "given")
    bounds = anchors(references, resynthesis, rate) if cfg.anchors else {}
    if cfg.anchors and isinstance(run.tokenizer, ALMTokenizer) and run.tokenizer.flow is not None:
        bounds |= bounds_of_flow(run.tokenizer, references, resynthesis, dict(zip(waves, coded.codes, strict=True)))
    codes = {"codes": record_hash([part.tolist() for part in coded.codes])} if coded.codes else {}
    report = run.begin(
        [*rows, *bounds],
        {
            "splits": list(cfg.splits),
            "domains": list(cfg.domains),
            **({} if cfg.speakers is None else {"speakers": list(cfg.speakers)}),
            "clips": record_hash([[clip.id, file_hash(clip.path)] for clip in clips if clip.path.is_file()]),
        },
        "torch numpy scipy soxr pystoi pesq jiwer",
        **how_texts(cfg.normaliser, map(text_of, clips)),
        tokenizer=coded.how | {"delay": asdict(delay)} | codes,
        comparison={
            "rate": cfg.rate or "the lower of the file's and the tokenizer's rate",
            "delay": "measured over all clips and taken out" if cfg.delay == "auto" else "as given, taken out",
            "distances": "descript-audiotools definition: windows 2048 and 512, hop window/4, clamp 1e-5",
            "resampler": RESAMPLER,
        },
        recognisers={},
    )  # fmt: skip
    if delay.seconds:
        print(f"the codec is {1000 * delay.seconds:.2f} ms late, which is taken out ({delay.reason})", flush=True)
    compare(report, list(cfg.metrics), references, resynthesis, cfg.rate or 0, delay=delay.seconds)
    if "tonality" in cfg.metrics:
        compare(report, ["tonality"], references, references, 0, "reference")
    originals = {clip.id: clip for clip in references}
    for row, bound in bounds.items():
        compare(report, list(cfg.metrics), [originals[clip.id] for clip in bound], bound, cfg.rate or 0, row)
    seconds = sum(len(waves[name]) for name in both) / rate
    frames = sum(map(len, coded.codes)) or len(both)
    for count, value in coded.bits(seconds).items():  # an entropy is as good as the number of its frames
        report.number("resynthesis", f"bitrate/{count}", value, frames if count == "entropy" else len(both))
    if run.tokenizer is not None:
        report_usage(report, coded.codes, run.tokenizer)
        report_shards(report, cfg, run.tokenizer)
        report.number("resynthesis", "real-time-factor", coded.seconds / seconds, len(both))
        if cfg.concat:
            readable = [clip for clip in references if clip.wav is not None]
            length_check(report, readable, run.tokenizer, cfg.crop_seconds, list(cfg.concat), delay.seconds)
    judge_words(run, {row: [clip for clip in found if clip.text] for row, found in rows.items()})
    for name in cfg.recognisers:
        report.difference(f"{report.how['headline']}/{name}", "resynthesis", "reference")
    if cfg.dnsmos:
        judge_mos(run, rows)
    judge_by_networks(run, rows)
    if cfg.embeddings:
        against = [clip for clip in run.corpus if clip.split == cfg.against and clip.domain in cfg.domains]
        judge_frechet(run, rows | {k: v for k, v in bounds.items() if k not in ANCHORS}, read_reference(against))
    if cfg.sheets and is_main():
        pairs = [
            (f"{a.id}: {a.text}" if a.text else a.id, resample(a.wav, a.rate, rate), resample(b.wav, b.rate, rate))
            for a, b in zip(references, resynthesis, strict=True)
            if a.wav is not None and b.wav is not None
        ]
        longest = max(len(pair[1]) / rate for pair in pairs)
        write_sheets(pairs, rate, min(10.0, longest), run.out / "sheets")
    second = {"wer": "cer", "cer": "wer"}[report.how["headline"]]
    shown = [name for name in report.metrics() if not name.startswith(second)]
    run.finish(shown=shown, notes=published, wrote="results.json, items.jsonl, wavs/, sheets/")


if __name__ == "__main__":
    main()
