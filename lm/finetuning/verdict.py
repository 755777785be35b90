"""What came of a fine-tuning, in sentences: the same held-out sentences before and after, with paired intervals.

differences = read_differences(work / "compare-voice")       # what eval/compare.py wrote
for sentence in verdict(differences, old): print(sentence)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# metric (its beginning): whether more of it is better
JUDGED = {
    "wer/": False, "cer/": False, "bits-per-second": False, "limit": False, "early-stop": False,
    "dnsmos/p808": True, "dnsmos/ovrl": True, "speaker-similarity/": True, "utmos": True, "distillmos": True,
}  # fmt: skip
MAY_LOSE = 0.05  # of the word error rate of the voices that the model knew
CARRIES = 0.3  # of the word error rate: what the tokenizer may add to recordings before no model can speak so


def read_differences(folder: Path) -> list[dict[str, Any]]:
    """The differences, after minus before, of the metrics that judge a voice."""
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))["differences"]
    return [part for part in found if part["value"] is not None and _more_is_better(part["metric"]) is not None]


def _more_is_better(metric: str) -> bool | None:
    return next((better for name, better in JUDGED.items() if metric.startswith(name)), None)


def _is_clear(part: dict[str, Any]) -> bool:
    """Whether the interval excludes zero."""
    return part["low"] is not None and (part["low"] > 0 or part["high"] < 0)


def shown(part: dict[str, Any]) -> str:
    """``wer/whisper: −0.121 [−0.180, −0.063] over 20 clips``."""
    interval = "" if part["low"] is None else f" [{part['low']:+.3f}, {part['high']:+.3f}]"
    return f"{part['metric']}: {part['value']:+.3f}{interval} over {part['n']} clips"


def verdict(voice: Sequence[dict[str, Any]], old: Sequence[dict[str, Any]]) -> list[str]:
    """What a person must hear, the worst first.

    Args:
        voice: differences over the held-out sentences of the new voice.
        old: those over sentences of the voices that the model knew; empty where there are none.
    """
    found = []
    clear = [part for part in voice if _is_clear(part)]
    worse = [part for part in clear if (part["value"] > 0) != _more_is_better(part["metric"])]
    better = [part for part in clear if part not in worse]
    lost = [part for part in old if part["metric"].startswith(("wer/", "cer/")) and part["value"] > MAY_LOSE]
    heard = [part for part in worse if part["metric"] != "bits-per-second"]
    if heard:
        found.append(f"THE VOICE GOT WORSE: {'; '.join(map(shown, heard))}")
    if len(heard) < len(worse):
        found.append(
            "LEARNT BY HEART: the held-out recordings are expected less than before "
            f"({'; '.join(shown(part) for part in worse if part not in heard)}): train less, or bring more speech"
        )
    if lost:
        found.append(
            f"THE OLD VOICES SUFFERED: {'; '.join(map(shown, lost))}: give rehearse a larger number, or train less"
        )
    if not any(part["low"] is not None for part in voice):
        found.append("NOTHING CAN BE SAID: fewer than ten held-out sentences could be judged, so there is no interval")
    elif not clear:
        found.append(
            "NOTHING CHANGED: every interval of a difference includes zero: train longer (steps), or bring more speech"
        )
    if better:
        found.append(f"better: {'; '.join(map(shown, better))}")
    return found


def ceiling(evaluation: Path) -> list[str]:
    """A sentence for each judge to whom the tokenizer alone makes the recordings unintelligible: nothing that is learnt
    on its tokens can sound better than they do.

    Args:
        evaluation: folder of eval/tts.py with the rows ``reference`` and ``resynthesis``.
    """
    rows = json.loads((evaluation / "results.json").read_text(encoding="utf-8"))["rows"]
    found = []
    for metric, cell in rows.get("resynthesis", {}).items():
        before = rows.get("reference", {}).get(metric, {}).get("value")
        if metric.startswith("wer/") and None not in (before, cell["value"]) and cell["value"] - before > CARRIES:
            found.append(
                f"THE TOKENIZER CANNOT CARRY THIS VOICE: {metric} of the recordings is {100 * before:.0f} %, and "
                f"{100 * cell['value']:.0f} % after its tokens alone: take a model of another tokenizer"
            )
    return found
