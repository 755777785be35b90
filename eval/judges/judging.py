"""Runs judges over rows of clips, through the content-addressed cache, and files their scores in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from codec.corpus import spread
from eval.harness.audio import RESAMPLER, CannotScore, Wave
from eval.harness.cost import measured
from eval.harness.endings import says_again
from eval.harness.networks import NetworkError
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Rows, Run
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip, split_usable
from eval.harness.worker_pool import WorkerError
from eval.judges.recognisers.ctc import GreedyCTC
from eval.judges.recognisers.fast_whisper import FastWhisper, is_ctranslate2
from eval.judges.recognisers.interface import NAMES, OPEN, Recogniser, RecogniserError
from eval.judges.recognisers.networks import HubertCTC, Whisper
from eval.judges.recognisers.sphinx import Sphinx
from eval.metrics.distillmos import DistillMOS, distillmos_path
from eval.metrics.mos import DNSMOS, SCORES
from eval.metrics.speaker import SpeakerSimilarity
from eval.metrics.utmos import UTMOS
from eval.metrics.voice_encoder import VoiceEncoder, voice_encoder_path
from eval.metrics.wer import ErrorRate, describe_normaliser
from tasks.text import headline, scoring_normaliser
from training.config import ConfigError, refusing
from training.places import beside_code

Score = Callable[[list[ScoredClip]], Iterable[Any]]
"""The scores, or `CannotScore`, of clips of one sample rate, in their order."""


def load_recogniser(
    name: str,
    grammar: Path,
    ctc: Path,
    processes: int = 2,
    device: str = "cpu",
    weights: Mapping[str, str | None] | None = None,
    language: str | None = "en",
) -> Recogniser:
    """The recogniser called ``name``.

    Args:
        grammar: folder with the corpus' ``grammar.arpa`` and ``words.txt`` (pocketsphinx-grammar).
        ctc: folder of the CTC recogniser (ctc-mini).
        processes: worker processes of pocketsphinx and of faster-whisper.
        device: of the networks.
        weights: folders or hub ids of the recognisers ``whisper`` and ``hubert-ctc``.
        language: that is spoken, for recognisers that know several; None: they find out.

    Raises:
        RecogniserError: an unknown name, or a package or file that is missing.
    """
    if name == "pocketsphinx":
        return Sphinx(None, processes)
    if name == "pocketsphinx-grammar":
        return Sphinx(grammar, processes)
    if name == "ctc-mini":
        return GreedyCTC(ctc, device)
    if name in ("whisper", "hubert-ctc"):
        path = (weights or {}).get(name)
        if not path:
            raise RecogniserError(f"{name} needs its weights: give weights.{name}=FOLDER or a hub id.")
        if name == "hubert-ctc":
            return HubertCTC(path, device)
        return (
            FastWhisper(path, device, language, processes) if is_ctranslate2(path) else Whisper(path, device, language)
        )
    raise RecogniserError(f"there is no recogniser '{name}'; choose from {', '.join(NAMES)}.")


def open_recogniser(run: Run, name: str) -> Recogniser:
    """The recogniser called ``name`` for the corpus of a run, by its settings. Raises as `load_recogniser`."""
    cfg, grammar = run.cfg, beside_code(run.root)
    return load_recogniser(name, grammar, Path(cfg.ctc), cfg.processes, run.device, dict(cfg.weights), cfg.language)


def transcribe(judge: Recogniser, clips: Sequence[ScoredClip], known: ScoreCache) -> None:
    """Set ``item["hypotheses"][judge.name]`` of every usable clip, or ``item["judge_failures"][judge.name]``."""
    usable, _ = split_usable(clips)
    for clip, text in zip(usable, find_scores(known, together(judge.transcribe), usable, 16), strict=True):
        if isinstance(text, CannotScore):
            clip.item.setdefault("judge_failures", {})[judge.name] = text.reason
        else:
            clip.item.setdefault("hypotheses", {})[judge.name] = text


def rate_words(
    report: Report, row: str, judge: str, clips: Sequence[ScoredClip], normaliser: str, original: bool = False
) -> None:
    """File word and character error rates of ``judge``'s hypotheses against the clips' texts.

    A clip that the system did not deliver says none of its words: all are deleted (``undelivered`` counts them). A clip
    without a source, a clip that the judge failed on and a clip without words to say are failures, in no rate.

    Args:
        original: against ``item["original_text"]`` instead, as ``wer-original`` (``cer-original`` where characters are
            counted): what shuffled texts are not.
    """
    first = report.how.get("headline", "wer")
    _, unusable = split_usable(clips)
    missing = {c.id: unusable[c.id] for c in clips if c.id in unusable and not c.undelivered()}
    for name in (f"{first}-original",) if original else ("wer", "cer"):
        metric = ErrorRate("word" if name.startswith("wer") else "character", normaliser=normaliser)
        found, failed = {}, dict(missing)
        for clip in (clip for clip in clips if clip.id not in missing):
            if reason := clip.item.get("judge_failures", {}).get(judge):
                failed[clip.id] = f"{judge}: {reason}"
                continue
            said = "" if clip.id in unusable else clip.item["hypotheses"][judge]
            try:
                found[clip.id] = metric.add(said, clip.item["original_text"] if original else clip.text)
            except CannotScore as error:
                failed[clip.id] = error.reason
                continue
            clip.item.setdefault(name.replace("-", "_"), {})[judge] = found[clip.id].rate
        substitutions, deletions, insertions, units = metric.counts().sum(0).tolist()
        report.rate(
            row, f"{name}/{judge}", {clip: (float(e.errors), float(e.units)) for clip, e in found.items()}, failed,
            substitutions=substitutions, deletions=deletions, insertions=insertions, units=units,
            undelivered=len(found.keys() & unusable.keys()),
            mean_of_clips=float(np.mean([e.rate for e in found.values()])) if found else None,
        )  # fmt: skip


def rate_repeats(report: Report, row: str, judge: str, clips: Sequence[ScoredClip], normaliser: str) -> None:
    """File the share of clips in which ``judge`` heard words again that the text does not say again."""
    normalise = scoring_normaliser(normaliser)
    heard = {clip.id: clip.item["hypotheses"].get(judge) for clip in clips if "hypotheses" in clip.item}
    again = {
        clip.id: float(says_again(normalise(words), normalise(clip.text)))
        for clip in clips
        if (words := heard.get(clip.id)) is not None
    }
    failed = {clip.id: "nobody heard it" for clip in clips if clip.id not in again}
    report.mean(row, f"repeated-words/{judge}", again, failed)


def chosen_clips(cfg: DictConfig, rows: Rows, judge: str) -> Rows:
    """The clips of each row that ``judge`` gets: none of the rows in ``skip``, of others ``judge_clips``."""
    count = int(cfg.get("judge_clips", {}).get(judge) or 0)
    skipped = cfg.get("skip", {})
    return {  # all clips of a row are alike to `spread`
        row: spread(clips, count, attrgetter("row")) for row, clips in rows.items() if judge not in skipped.get(row, ())
    }


def check_skipped(cfg: DictConfig) -> None:
    """Refuse unknown judges in ``skip``. Raises ConfigError."""
    judges = (*NAMES, "dnsmos")
    for row, names in cfg.skip.items():
        if unknown := [name for name in names if name not in judges]:
            raise ConfigError(f"skip.{row}: there is no '{unknown[0]}'; choose from {', '.join(judges)}.")


def judge_words(run: Run, rows: Rows) -> None:
    """Let the recognisers of the configuration write down the rows, and file their error rates."""
    cfg, report = run.cfg, run.report
    chosen = list(cfg.recognisers) if any(rows.values()) else []
    if chosen and not set(chosen) & set(OPEN) and not (Path(run.root) / "grammar.arpa").is_file():
        print(
            f"{', '.join(chosen)}: made for the corpus that ships, nobody here knows the words of others: give "
            "weights.whisper=FOLDER or a hub id (docs/evaluation.md, Who judges).",
            flush=True,
        )
    for name in chosen:
        judged = chosen_clips(cfg, rows, name)
        try:
            with open_recogniser(run, name) as judge:
                how = report.how["recognisers"][name] = judge.how()
                known = known_scores(name, how, run.cache)
                transcribe(judge, [clip for clips in judged.values() for clip in clips], known)
        except (RecogniserError, WorkerError, ModuleNotFoundError) as error:
            print(f"{name}: not computed: {error}", flush=True)
            for row, clips in judged.items():
                failures = {clip.id: f"not computed: {error}" for clip in clips}
                report.rate(row, f"{report.how['headline']}/{name}", {}, failures)
            continue
        for row, clips in judged.items():
            rate_words(report, row, name, clips, cfg.normaliser)
            if row.startswith("generated") and report.how["headline"] == "wer":
                rate_repeats(report, row, name, clips, cfg.normaliser)
            if any("original_text" in clip.item for clip in clips):
                rate_words(report, row, name, clips, cfg.normaliser, original=True)


def judge_mos(run: Run, rows: Rows) -> None:
    """File the four DNSMOS scores of the rows."""
    judged = chosen_clips(run.cfg, rows, "dnsmos")
    try:
        with DNSMOS(run.cfg.processes) as mos:
            how = run.report.how["dnsmos"] = mos.how()
            known = known_scores("dnsmos", how, run.cache)
            for row, clips in judged.items():
                scores, failures = score_clips(known, together(mos.score), clips, 8 * run.cfg.processes)
                for name in SCORES:
                    values = {clip: found[name] for clip, found in scores.items()}
                    run.report.mean(row, f"dnsmos/{name}", values, failures)
    except (CannotScore, WorkerError) as error:
        print(f"dnsmos: {error}", flush=True)
        for row, clips in judged.items():
            run.report.mean(row, "dnsmos/p808", {}, {clip.id: str(error) for clip in clips})


by_hash: Callable[[ScoredClip], str] = attrgetter("hash")
"""The key of a score that the audio alone makes."""


def known_scores(name: str, how: Mapping[str, Any], folder: Path | None) -> ScoreCache:
    """The scores that ``name`` gave, which ``how`` describes; reads a file in ``folder`` (None: nothing is kept)."""
    return ScoreCache(folder, name, {**how, "resampler": RESAMPLER})


def find_scores(
    known: ScoreCache,
    score: Score,
    clips: Sequence[ScoredClip],
    batch: int,
    key: Callable[[ScoredClip], str] = by_hash,
) -> list[Any]:
    """The score or `CannotScore` of each usable clip; what is not known is scored, and known from then on."""
    shortest_first = sorted(clips, key=lambda clip: len(clip.usable()))
    parts = {key(clip): clip for clip in shortest_first}
    failed = known.fill(parts, score, known.kind, batch, lambda clip: clip.rate, partial(measured, known.kind))
    return [CannotScore(failed[place]) if place in failed else known[place] for place in map(key, clips)]


def score_clips(
    known: ScoreCache,
    score: Score,
    clips: Sequence[ScoredClip],
    batch: int = 1,
    key: Callable[[ScoredClip], str] = by_hash,
) -> tuple[dict[str, Any], dict[str, str]]:
    """``{id: score}``, also set by its judge's name in each clip's item, and ``{id: reason}`` of clips without a score.

    Args:
        batch: clips that ``score`` gets at a time.
        key: what else makes the score besides the audio, for metrics that also look at a reference or a caption.
    """
    usable, failures = split_usable(clips)
    values = {}
    for clip, value in zip(usable, find_scores(known, score, usable, batch, key), strict=True):
        if isinstance(value, CannotScore):
            failures[clip.id] = value.reason
        else:
            values[clip.id] = clip.item[known.kind] = value
    return values, failures


def one_by_one(score: Callable[[ScoredClip], Any]) -> Score:
    """A metric that scores a clip, or raises CannotScore, for `score_clips`."""

    def tried(clip: ScoredClip) -> Any:
        try:
            return score(clip)
        except CannotScore as error:
            return error

    return lambda part: map(tried, part)


def together(score: Callable[[list[Wave], int], Iterable[Any]]) -> Score:
    """A judge of several waves of one sample rate, for `score_clips`."""
    return lambda part: score([clip.usable() for clip in part], part[0].rate)


def key_of_pair(originals: Mapping[str, ScoredClip]) -> Callable[[ScoredClip], str]:
    """The key of a clip's score beside the clip of its id in ``originals``."""

    def key(clip: ScoredClip) -> str:
        original = originals[clip.id]
        return record_hash([original.hash if original.wav is not None else None, clip.hash])

    return key


def how_texts(normaliser: str, texts: Iterable[str | None]) -> dict[str, str]:
    """What a result says about text and resampling; ``headline`` is the rate to look at first, ``wer`` or ``cer``."""
    return {
        "headline": headline(text or "" for text in texts),
        "normaliser": describe_normaliser(normaliser),
        "resampler": RESAMPLER,
        "samples": "as stored, 16 bit",
    }


def network_metrics(report: Report) -> list[str]:
    """The metrics of a report that `judge_by_networks` filed."""
    return [name for name in report.metrics() if name.startswith(("utmos", "distillmos", "speaker-similarity"))]


def _rate_speakers(run: Run, part: str, judge: Any, rows: Rows, voices: Mapping[str, ScoredClip]) -> None:
    """Similarity of every clip to that of its id in ``voices``; the judge is part of its metric's name, and
    ``how[part]``. Voices are not compared with themselves.
    """
    name = f"speaker-similarity/{judge.description['id']}"
    run.report.how[part] = judge.description
    known = known_scores(name, judge.description, run.cache)
    embedded: dict[str, Any] = {}  # of the recordings, which every row is compared with

    def embed(clip: ScoredClip) -> Any:
        return judge.embed(clip.usable(), clip.rate)

    def similarity(clip: ScoredClip) -> float:
        if clip.id not in embedded:
            embedded[clip.id] = embed(voices[clip.id])
        return float(embedded[clip.id] @ embed(clip))

    for row, clips in rows.items():
        if any(voices.get(clip.id) is not clip for clip in clips):
            found = score_clips(known, one_by_one(similarity), clips, key=key_of_pair(voices))
            run.report.mean(row, name, *found)


def _rate_quality(run: Run, name: str, mos: UTMOS | DistillMOS, rows: Rows) -> None:
    """File a predicted opinion score of every row; the judge is ``how[name]``."""
    how = run.report.how[name] = mos.how()
    known = known_scores(name, how, run.cache)
    rate = one_by_one(lambda clip: mos.rate(clip.usable(), clip.rate))
    for row, clips in rows.items():
        run.report.mean(row, name, *score_clips(known, rate, clips))


def judge_by_networks(run: Run, rows: Rows, voices: Mapping[str, ScoredClip] | None = None) -> None:
    """UTMOS and DistillMOS of every row, and speaker similarity of every row to ``voices``, clip by clip; what has no
    weights in the configuration (configs/weights/paths.yaml) is left out.

    Args:
        voices: id → the clip whose voice is wanted; None: the row ``reference``.

    Raises:
        ConfigError: a network cannot be loaded.
    """
    weights = run.cfg.weights
    if voices is None:
        voices = {clip.id: clip for clip in rows.get("reference", [])}
    with refusing(NetworkError):
        if weights["utmos"]:
            _rate_quality(run, "utmos", UTMOS(Path(weights["utmos"]), run.device), rows)
        if weights["distillmos"]:
            _rate_quality(run, "distillmos", DistillMOS(distillmos_path(weights["distillmos"]), run.device), rows)
        if weights["speaker"] and voices:
            _rate_speakers(run, "speaker", SpeakerSimilarity(weights["speaker"], run.device), rows, voices)
        if weights["resemblyzer"] and voices:
            judge = VoiceEncoder(voice_encoder_path(weights["resemblyzer"]))
            _rate_speakers(run, "voice_encoder", judge, rows, voices)
