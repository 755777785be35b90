"""Judges of speech that need public weights: UTMOS and speaker similarity, over rows of clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.harness.networks import NetworkError
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.judges.judging import score_each
from eval.metrics.speaker import SpeakerSimilarity
from eval.metrics.utmos import UTMOS
from eval.metrics.voice_encoder import VoiceEncoder, voice_encoder_path
from training.config import ConfigError

PREFIXES = ("utmos", "speaker-similarity")


def network_metrics(report: Report) -> list[str]:
    """The metrics of a report that come from here."""
    return [name for name in report.metrics() if name.startswith(PREFIXES)]


def _rate_speakers(
    part: str,
    judge: Any,
    rows: Mapping[str, list[ScoredClip]],
    report: Report,
    cache: Path | None,
    voices: Mapping[str, ScoredClip],
) -> None:
    """Similarity of every clip to that of its id in ``voices``; the judge is part of its metric's name, and
    ``how[part]``. Voices are not compared with themselves.
    """
    name = f"speaker-similarity/{judge.description['id']}"
    report.how[part] = judge.description
    known: dict[str, Any] = {}  # of the recordings, which every row is compared with

    def embed(clip: ScoredClip) -> Any:
        return judge.embed(clip.usable(), clip.rate)

    def similarity(clip: ScoredClip) -> float:
        if clip.id not in known:
            known[clip.id] = embed(voices[clip.id])
        return float(known[clip.id] @ embed(clip))

    def pair(clip: ScoredClip) -> str:
        original = voices[clip.id]
        return record_hash([original.hash if original.wav is not None else None, clip.hash])

    for row, clips in rows.items():
        if any(voices.get(clip.id) is not clip for clip in clips):
            report.mean(row, name, *score_each(name, similarity, judge.description, clips, cache, pair))


def judge_by_networks(
    weights: Mapping[str, Any],
    device: str,
    rows: Mapping[str, list[ScoredClip]],
    report: Report,
    cache: Path | None,
    voices: Mapping[str, ScoredClip] | None = None,
) -> None:
    """UTMOS of every row, and speaker similarity of every row to ``voices``, clip by clip.

    Args:
        weights: configs/weights/paths.yaml; what is null there is left out.
        voices: id → the clip whose voice is wanted; None: the row ``reference``.

    Raises:
        ConfigError: a network cannot be loaded.
    """
    if voices is None:
        voices = {clip.id: clip for clip in rows.get("reference", [])}
    try:
        if weights["utmos"]:
            mos = UTMOS(Path(weights["utmos"]), device)
            report.how["utmos"] = mos.how()
            for row, clips in rows.items():
                found = score_each("utmos", lambda clip: mos.rate(clip.usable(), clip.rate), mos.how(), clips, cache)
                report.mean(row, "utmos", *found)
        if weights["speaker"] and voices:
            _rate_speakers("speaker", SpeakerSimilarity(weights["speaker"], device), rows, report, cache, voices)
        if weights["resemblyzer"] and voices:
            judge = VoiceEncoder(voice_encoder_path(weights["resemblyzer"]))
            _rate_speakers("voice_encoder", judge, rows, report, cache, voices)
    except NetworkError as error:
        raise ConfigError(f"weights: {error}") from None
