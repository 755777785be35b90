"""Which weights a comparison needs, where they lie, how large they are and what their hash is; nothing is fetched."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig

from eval.comparison.plan import Plan, text
from eval.harness.tables import Table
from eval.metrics import distillmos, voice_encoder
from training.config import compose
from training.identity import file_hash, folder_hash

INSIDE = {"distillmos": distillmos.find_weights, "resemblyzer": voice_encoder.find_weights}  # in their packages


def weights_needed(plan: Plan, c: DictConfig) -> Table:
    """A line for the weights of every tokenizer that is not made here, and of every judge."""
    lines = {}
    for name, row in plan.rows.items():
        if row.get("train") or row.get("untrained") or row.get("classical"):
            continue
        options = [f"tokenizer.{key}={text(value)}" for key, value in (row.get("options") or {}).items()]
        tokenizer = compose("eval_reconstruction", [f"tokenizer={row['tokenizer']}", *options]).tokenizer
        lines[name] = (tokenizer.get("path"), public(tokenizer._target_))
    judges = compose("eval_reconstruction", list(c.judges)).weights
    for key, path in judges.items():
        if path == "installed" and key in INSIDE:
            lines[f"judge {key}"] = (str(INSIDE[key]() or path), f"pip install --no-deps {key}")
        elif isinstance(path, str):
            lines[f"judge {key}"] = (path, "")
    body = [[name, str(path), *here(path, otherwise)] for name, (path, otherwise) in lines.items() if path]
    return Table(["weights of", "folder, file or hub id", "MB", "sha256"], body)


def public(target: str) -> str:
    """Size and licence of the public weights that an adapter of ours reads, in words; empty where it says none."""
    try:
        weights: Any = getattr(importlib.import_module(target.rpartition(".")[0]), "WEIGHTS", None)
    except ImportError:  # a tokenizer of one's own, which says so itself when its turn comes
        return ""
    return f"{weights.size}; {weights.licence}" if weights else ""


def here(path: str, otherwise: str) -> tuple[str, str]:
    """Size in MB and SHA-256 of what is at ``path``; what is known of weights that are not here."""
    place = Path(path)
    if not place.exists():
        try:
            place = Path(snapshot_download(path.partition("@")[0], local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return "not here", otherwise or "fetched when its turn comes, if it is a hub id"
    files = [file for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:.1f}", folder_hash(place) if place.is_dir() else file_hash(place)
