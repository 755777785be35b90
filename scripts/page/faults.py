"""What is wrong with items.jsonl, points.json and grid.json, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.harness.results import is_number
from training.identity import fault_of_id

# What the fields of a line of items.jsonl hold; all others are scores, or of no use here.
FIELDS: dict[str, tuple[type, tuple[str, ...]]] = {
    "a text": (str, ("id", "row", "text", "speaker", "domain", "audio", "error", "caption", "of", "heard")),
    "true or false": (bool, ("ended", "legal")),
    "a list of texts": (list, ("captions", "classes_named", "requested")),
    "a record": (dict, ("hypotheses", "class", "failures")),
}
NUMBERS = ("seconds", "probability")


def is_pair(value: Any) -> bool:
    """Whether ``value`` is two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def fault_of_item(item: dict[str, Any]) -> str | None:
    """The first field of a line that does not hold what it should, null apart; None where all do."""
    for what, (kind, names) in FIELDS.items():
        for name in names:
            value = item.get(name)
            right = value is None or isinstance(value, kind)
            if not right or isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
                return f"{name} must be {what}"
    if item.get("audio") and (fault := fault_of_id(item["audio"])):
        return f"audio cannot be {item['audio'][:80]!r}: {fault}"
    for name in NUMBERS:
        if item.get(name) is not None and not is_number(item[name]):
            return f"{name} must be a number"
    if not isinstance(holds := item.get("holds") or [], list) or not all(map(is_pair, holds)):
        return "holds must be pairs of numbers"
    if not all(isinstance(said, str | None) for said in (item.get("hypotheses") or {}).values()):
        return "hypotheses must be texts"
    judged = item.get("class")
    return judged and (fault := fault_of_item(judged)) and f"class: {fault}"


def fault_of_space(space: Any) -> str | None:
    """What is not as eval/latents.py writes it in points.json; None where all is."""
    try:
        labels, recordings, maps = space["labels"], space["recordings"], space["maps"]
        texts = [text for r in recordings for text in (r["id"], *r["labels"].values())]
        texts += [drawn[key] for drawn in maps for key in ("name", "row", "caption")]
        right = (
            bool(labels and recordings and maps)
            and all(isinstance(text, str) for text in texts)
            and all(list(r["labels"]) == labels for r in recordings)
            and all(len(drawn["points"]) == len(recordings) for drawn in maps)
            and all(is_pair(pair) for drawn in maps for pair in drawn["points"])
        )
    except (AttributeError, KeyError, TypeError):
        right = False
    return None if right else "is not what eval/latents.py writes"


def fault_of_grid(grid: Any, folder: Path) -> str | None:
    """What is not as eval/sound_space.py writes it in grid.json, or which file ``folder`` lacks; None where all is."""
    try:
        moved = [(cell, step) for cell in grid["cells"] for row in grid["rows"] for step in cell["moved"][row]]
        texts = [grid["label"], *grid["classes"], *grid["rows"]]
        texts += [cell[key] for cell in grid["cells"] for key in ("source", "target", "text", "audio")]
        texts += [step["audio"] for _, step in moved]
        right = (
            bool(grid["rows"] and grid["amounts"])
            and all(isinstance(text, str) for text in texts)
            and all(map(is_number, grid["amounts"]))
            and all(len(cell["moved"][row]) == len(grid["amounts"]) for cell in grid["cells"] for row in grid["rows"])
            and all({cell["source"], cell["target"]} <= set(grid["classes"]) for cell in grid["cells"])
            and all(is_number(part["posterior"]) for part in (*grid["cells"], *(step for _, step in moved)))
            and all(step["cents"] is None or is_number(step["cents"]) for _, step in moved)
        )
    except (AttributeError, KeyError, TypeError):
        right = False
    if not right:
        return "is not what eval/sound_space.py writes"
    for name in (*(cell["audio"] for cell in grid["cells"]), *(step["audio"] for _, step in moved)):
        inside = not fault_of_id(name) and (folder / name).resolve().is_relative_to(folder.resolve())
        if not inside or not (folder / name).is_file():
            return f"names {name[:80]!r}, which is no file of its folder"
    return None
