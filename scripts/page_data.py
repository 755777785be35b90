"""What the demo page shows, read from evaluation folders (``results.json`` and ``items.jsonl``).

An evaluation has *rows* (reference, resynthesis, generated, …): the systems that are compared, one column
each on the page. A *sentence* is one id with its clip in every row. Nothing here touches audio.
"""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from eval.report import SHARES

ROW_TITLES = {
    "reference": ("Reference", "the recording"),
    "resynthesis": ("Resynthesis", "the recording through the codec: the ceiling"),
    "generated": ("Generated", "the language model speaks the text"),
    "generated-shuffled": ("Shuffled text", "the same voice and seed, another sentence's text"),
}
LABELS = {
    "wer": "WER",
    "cer": "CER",
    "wer-original": "WER against the sentence it is not",
    "ctc-mini": "CTC",
    "pocketsphinx": "pocketsphinx, open vocabulary",
    "pocketsphinx-grammar": "pocketsphinx, grammar",
    "dnsmos": "DNSMOS",
    "ovrl": "overall",
    "sig": "signal",
    "bak": "background",
    "p808": "P.808",
    "limit": "clips that reached the length limit",
    "legal": "clips with legal tokens only",
    "silent": "silent clips",
    "duration-ratio": "length against the recording",
    "real-time-factor": "real-time factor",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "pesq-wb": "PESQ-WB",
    "pesq-nb": "PESQ-NB",
    "si-sdr": "SI-SDR, dB",
}
HIGHER_IS_BETTER = ("dnsmos", "stoi", "estoi", "pesq-wb", "pesq-nb", "si-sdr", "legal", "usage")
LOWER_IS_BETTER = ("wer", "cer", "limit", "silent", "mel-distance", "stft-distance", "fad", "kl", "real-time-factor")


class PageError(SystemExit):
    """An evaluation that no page can be made of; printed as one sentence, exit status 1."""


@dataclass
class Clip:
    """One clip of one row; ``audio`` is None where there is none, and ``problem`` then says why."""

    row: str
    text: str
    audio: Path | None
    seconds: float | None
    wer: dict[str, float]
    heard: dict[str, list[tuple[str, str]]]
    scores: list[tuple[str, str]]
    flags: list[str]
    problem: str | None


@dataclass
class Sentence:
    """One test item with its clips, in the order of the evaluation's rows."""

    number: int
    id: str
    text: str
    speaker: str
    clips: list[Clip]
    rank: float  # mean WER of the generated clip, infinite without one: what best and worst mean


@dataclass
class Evaluation:
    """One evaluation folder."""

    folder: Path
    name: str
    task: str
    rows: list[str]
    sentences: list[Sentence]
    table: dict[str, dict[str, dict[str, Any]]]  # row → metric → {value, low, high, n, n_failed, failures}
    differences: list[dict[str, Any]]  # {metric, row, against, value, low, high, n}
    how: dict[str, Any]
    sample: list[int] = field(default_factory=list)  # sentence numbers drawn by the seed

    @property
    def metrics(self) -> list[str]:
        """The metrics of all rows, in the order of their first appearance."""
        return list(dict.fromkeys(metric for row in self.rows for metric in self.table.get(row, {})))

    @property
    def recognisers(self) -> list[str]:
        """The recognisers of all clips, in the order of their first appearance."""
        clips = (clip for sentence in self.sentences for clip in sentence.clips)
        return list(dict.fromkeys(name for clip in clips for name in clip.wer))


def newest_evaluation(runs: Path) -> Path:
    """The evaluation folder under ``runs`` whose ``results.json`` was written last."""
    found = sorted(runs.glob("*/eval-*/results.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise PageError(f"error: there is no evaluation under {runs}/ yet: run `python eval/tts.py` first.")
    return found[-1].parent


def read_evaluation(folder: Path, sample_size: int, seed: int) -> Evaluation:
    """Read one evaluation folder; a file that is missing or malformed is one sentence naming it."""
    results = _read_json(folder / "results.json")
    if not isinstance(results.get("rows"), dict):
        raise PageError(f"error: {folder / 'results.json'} has no 'rows': is it from this version's eval scripts?")
    items = _read_lines(folder / "items.jsonl")
    found = list(dict.fromkeys(item["row"] for item in items))
    known = [row for row in ROW_TITLES if row in found]
    rows = known + [row for row in found if row not in known]
    by_id: dict[str, dict[str, dict[str, Any]]] = {}
    for item in items:
        by_id.setdefault(str(item["id"]), {})[item["row"]] = item
    sentences = [_sentence(n, id, of_rows, rows, folder) for n, (id, of_rows) in enumerate(by_id.items(), 1)]
    task = folder.name.removeprefix("eval-")
    evaluation = Evaluation(
        folder=folder,
        name=folder.parent.name,
        task=task,
        rows=rows,
        sentences=sentences,
        table=results["rows"],
        differences=_between_rows(results.get("differences", [])),
        how=results.get("how", {}),
    )
    drawn = random.Random(seed).sample(range(1, len(sentences) + 1), min(sample_size, len(sentences)))
    evaluation.sample = sorted(drawn)
    return evaluation


def _between_rows(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paired differences of one metric between two rows, flattened; others belong to the report alone."""
    return [
        {**found, "metric": found["of"]["metric"], "row": found["of"]["row"], "against": found["minus"]["row"]}
        for found in differences
        if found["of"]["metric"] == found["minus"]["metric"]
    ]


def _sentence(number: int, id: str, of_rows: dict[str, dict[str, Any]], rows: list[str], folder: Path) -> Sentence:
    clips = [_clip(of_rows[row], folder) for row in rows if row in of_rows]
    first = next(iter(of_rows.values()))
    judged = "generated" if "generated" in rows else rows[-1]
    wer = next((clip.wer for clip in clips if clip.row == judged), {})
    rank = sum(wer.values()) / len(wer) if wer else math.inf
    return Sentence(number, id, str(first.get("text") or ""), str(first.get("speaker") or ""), clips, rank)


def _clip(item: dict[str, Any], folder: Path) -> Clip:
    text = str(item.get("text") or "")
    audio, problem = None, str(item["error"]) if item.get("error") else None
    if item.get("audio"):
        audio = folder / item["audio"]
        if not audio.resolve().is_relative_to(folder.resolve()):
            raise PageError(f"error: {folder / 'items.jsonl'}: '{item['audio']}' leads out of the evaluation folder.")
        if not audio.is_file():
            audio, problem = None, f"{item['audio']} is missing"
    elif problem is None:
        problem = "there is no audio"
    wer = {name: float(value) for name, value in (item.get("wer") or {}).items() if value is not None}
    heard = {name: word_changes(text, said or "") for name, said in (item.get("hypotheses") or {}).items()}
    scores = [(f"DNSMOS {label(k)}", f"{v:.2f}") for k, v in (item.get("dnsmos") or {}).items() if v is not None]
    flags = []
    if item.get("ended") is False:
        flags.append("cut off at the length limit")
    if item.get("legal") is False:
        flags.append("illegal tokens")
    return Clip(item["row"], text, audio, item.get("seconds"), wer, heard, scores, flags, problem)


def word_changes(text: str, heard: str) -> list[tuple[str, str]]:
    """What was heard, beside what the text says: (kind, words) with kind same, extra (heard, not in the
    text) or missing (in the text, not heard). Case and punctuation do not count."""
    want, got = (re.findall(r"[^\W_]+(?:'[^\W_]+)*", side.lower()) for side in (text, heard))
    changes: list[tuple[str, str]] = []
    for kind, i, j, k, m in SequenceMatcher(a=want, b=got, autojunk=False).get_opcodes():
        if kind == "equal":
            changes.append(("same", " ".join(got[k:m])))
            continue
        if j > i:
            changes.append(("missing", " ".join(want[i:j])))
        if m > k:
            changes.append(("extra", " ".join(got[k:m])))
    return changes


def label(name: str) -> str:
    """A metric's or recogniser's name for people: ``wer/ctc-mini`` → ``WER · CTC``."""
    return " · ".join(LABELS.get(part, part.replace("_", " ")) for part in name.split("/"))


def direction(metric: str) -> str:
    """An arrow for the better direction, empty where none is known."""
    family = metric.split("/")[0]
    return "↓" if family in LOWER_IS_BETTER else "↑" if family in HIGHER_IS_BETTER else ""


def show(metric: str, value: float | None) -> str:
    """A value with the digits that mean something: percent for shares, else two or three decimals."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric.split("/")[0].split("-")[0] in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PageError(f"error: {path} does not exist: name a folder that an eval script wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PageError(f"error: {path} is not JSON ({error}): run the evaluation again.") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise PageError(f"error: {path} does not exist: run the evaluation again.")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise PageError(f"error: {path}, line {number} is not JSON ({error}).") from error
        if "id" not in item or "row" not in item:
            raise PageError(f"error: {path}, line {number} has no 'id' or no 'row'.")
        items.append(item)
    return items
