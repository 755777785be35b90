"""Recognisers: the judges that turn speech into words.

    with load_recogniser("ctc-mini") as judge:
        judge.transcribe([wav], sample_rate=24_000)   # -> ["the quick brown fox"]
        judge.how()                                   # what a result must say about it

Two need weights from a folder or a hub: ``hubert-ctc`` and ``whisper``, by transformers (networks.py) or, where the
checkpoint is in the CTranslate2 format, by faster-whisper (fast_whisper.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eval.judges.recognisers.ctc import GreedyCTC
from eval.judges.recognisers.fast_whisper import FastWhisper, is_ctranslate2
from eval.judges.recognisers.interface import NAMES, Recogniser, RecogniserError
from eval.judges.recognisers.networks import HubertCTC, Whisper
from eval.judges.recognisers.sphinx import Sphinx


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
