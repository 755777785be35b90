"""What a training run saves besides the weights, the checks before it goes on, and the newest run of a task."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf

from codec.load import shipped_codec
from codec.pretrained import find_folder
from lm.network.head import ModelError
from lm.sequences.vocabulary import AudioVocabulary, VocabularyError
from tasks.base import Task
from tasks.tts import TTS
from training.checkpoint import CheckpointError
from training.identity import file_hash
from training.places import beside_code

STATE_FILE = "state.json"
FILES = ("*.json", "*.safetensors", "*.model")  # of a model in a repository of the hub
OPTIMISER_FILE = "optimizer.pt"
# What task=all holds (configs/task/all.yaml; a test compares).
IN_ALL = ("tts", "asr", "text_to_sound", "text_to_music", "audio_captioning", "music_captioning")
# the first that knows a task is taken
SHIPPED = tuple(Path("checkpoints") / name for name in ("lm-tts-mini", "lm-all-mini", "lm-spoken-mini"))
# Keys that change no number of the curve.
FREE_KEYS = {"micro_rows", "log_every", "valid_every", "valid_clips", "save_every", "keep"}
FREE_KEYS |= {"workers", "attention", "valid_audio", "peak_tflops", "track"}  # "track": of older checkpoints
# Keys that came later, with the value that means what runs without them did: such runs can be continued.
LATER = {"head": "chunked", "loss_on": "target"}


def newest_model(task: str, runs: Path = Path("runs"), shipped: Sequence[Path] = SHIPPED) -> Path:
    """The final checkpoint of the newest finished run of ``task`` (or of a mixture with it), else one that ships.

    Raises:
        ModelError: there is neither.
    """

    found = [state for state in runs.glob(f"*/final/{STATE_FILE}") if task in tasks_of(state.parent)]
    if found:
        # the file's own time is of use for older runs only, which do not say theirs: a copy has another
        return max(found, key=lambda path: (read_state(path.parent).get("written", 0), path.stat().st_mtime)).parent
    for folder in map(beside_code, shipped):
        if task in tasks_of(folder):
            return folder
    ships = f" and in {', '.join(map(str, shipped))}" if shipped else ""
    raise ModelError(
        f"there is no trained model: no finished run of task={task} in {runs}/{ships}; "
        f"train one with `accelerate launch lm/train.py task={task}`, or give model=FOLDER."
    )


def tasks_of(folder: Path) -> tuple[str, ...]:
    """The tasks that the model in ``folder`` was trained for, as far as it records them."""
    path = Path(folder) / STATE_FILE
    trained = json.loads(path.read_text(encoding="utf-8")).get("task", "") if path.is_file() else ""
    return IN_ALL if trained == "all" else tuple(filter(None, trained.split("+")))


def model_folder(named: str | Path | None, task: str) -> Path:
    """The folder of the language model ``named``: a folder, what ships, or a hub id; None: `newest_model` of ``task``.

    Raises:
        ModelError: there is no trained model.
    """
    if not named:
        return newest_model(task)
    return find_folder(str(named), FILES) or Path(named)


def codec_of(named: str | Path) -> str | None:
    """The codec that ships and whose tokens the language model ``named`` speaks, as ``checkpoints/NAME``.

    None: it speaks those of another, or cannot be read, of which whoever opens it says why.
    """
    try:
        return shipped_codec(str(AudioVocabulary.load(model_folder(named, "tts")).tokenizer.get("fingerprint")))
    except VocabularyError:
        return None


def recipe(cfg: DictConfig, documents_hash: str, vocabulary_hash: str) -> dict[str, Any]:
    """What makes a run the same run: a checkpoint continues only under an equal recipe."""
    trainer = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(trainer, dict)
    weights = Path(cfg.init) / "model.safetensors" if cfg.init else None
    return {
        "seed": cfg.seed,
        "init": file_hash(weights) if weights and weights.is_file() else cfg.init,
        "lm": None if cfg.init else lm_recipe(cfg),
        "trainer": {
            str(key): value for key, value in trainer.items() if key not in FREE_KEYS and LATER.get(str(key)) != value
        },
        **tuning_recipe(cfg.tuning),
        "documents": documents_hash,
        "vocabulary": vocabulary_hash,
    }


def allowing_more_steps(stored: dict[str, Any], trainer: DictConfig, step: int) -> dict[str, Any]:
    """The ``stored`` recipe with the ``max_steps`` of ``trainer``, where the rate goes on at ``step`` without a jump:
    schedule constant, or wsd before it falls. Of older checkpoints, which do not tell it, it is not compared.
    """
    then = stored["trainer"].get("max_steps", trainer.max_steps)
    before: Any = OmegaConf.merge(trainer, {"max_steps": then})
    if learning_rate(step, before) != learning_rate(step, trainer):
        return stored
    return {**stored, "trainer": {**stored["trainer"], "max_steps": trainer.max_steps}}


def pattern_name(lm: DictConfig) -> str:
    """``lm.pattern``, with ``auto`` resolved."""
    if lm.pattern != "auto":
        return str(lm.pattern)
    return "one_frame_delay" if lm.variant == "depth" else "flat"


def tuning_recipe(tuning: DictConfig) -> dict[str, Any]:
    """What of ``cfg.tuning`` decides the numbers; nothing when the whole model trains from the first step."""
    if tuning.method == "full":
        return {"tuning": {"warmup_new_rows": tuning.warmup_new_rows}} if tuning.warmup_new_rows else {}
    return {"tuning": OmegaConf.to_container(tuning, resolve=True)}


def lm_recipe(cfg: DictConfig) -> dict[str, Any]:
    """What of ``cfg.lm`` decides the numbers."""
    options = OmegaConf.to_container(cfg.lm, resolve=True)
    assert isinstance(options, dict)
    options["pattern"] = pattern_name(cfg.lm)
    if cfg.lm.variant == "flat":
        del options["variant"], options["depth"]
    return {str(key): value for key, value in options.items()}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = checkpoint / STATE_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): give resume=none to start over.") from None


def recorded(folder: Path, key: str) -> Any:
    """What the training that made the model in ``folder`` recorded; None: nothing of this, or nothing at all."""
    return read_state(folder).get(key) if (Path(folder) / STATE_FILE).is_file() else None


def normalisation_of(folder: Path) -> str | dict[str, str]:
    """``text.normalise`` of the training that made the model in ``folder``; ``none`` where that is not recorded."""
    return recorded(folder, "normalise") or "none"


def speakers_of(folder: Path) -> list[str] | None:
    """The speakers that the prompts of the training of the model in ``folder`` named; None: that is not recorded."""
    return recorded(folder, "speakers")


def asked_of(folder: Path) -> dict[str, Any]:
    """How the training that made the model in ``folder`` asked (`lm.generation.asking.manner`), as far as it says."""
    return recorded(folder, "asked") or {}


def longest_texts_of(folder: Path) -> dict[str, int]:
    """Task → characters of the longest text that the model in ``folder`` has learnt to say, as far as it says."""
    found = recorded(folder, "longest_texts")
    known = found.items() if isinstance(found, dict) else ()
    return {task: length for task, length in known if isinstance(length, int)}


def longest_texts(rows: Sequence[Any], task: Task, init: str | None) -> dict[str, int]:
    """What `longest_texts_of` gives of a training on ``rows`` that goes on from the model ``init``."""
    longest = longest_texts_of(Path(init)) if init else {}
    for row in rows:
        own = task.task_of(row)
        if said := own.said(row):
            longest[own.name] = max(longest.get(own.name, 0), len(said))
    return longest


def named_speakers(rows: Sequence[Any], task: Task, init: str | None) -> list[str] | None:
    """What `speakers_of` gives of a training on ``rows``: theirs, and those that the model ``init`` knows. A prompt
    without ``{speaker}`` names nobody: a model of one voice is not asked by a name that it never read.
    """
    before = speakers_of(Path(init)) if init else []
    named = {
        row.speaker
        for row in rows
        if row.speaker and isinstance(own := task.task_of(row), TTS) and "{speaker}" in own.prompt
    }
    return None if before is None else sorted(named.union(before))


def versions() -> dict[str, str]:
    """Versions that can change numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def learning_rate(step: int, trainer: DictConfig) -> float:
    """Learning rate of ``step`` (0, 1, …): a function of the step alone."""
    if step < trainer.warmup_steps:
        return trainer.lr * (step + 1) / trainer.warmup_steps
    if trainer.schedule == "constant":
        return trainer.lr
    span = max(1, trainer.max_steps - trainer.warmup_steps)
    done = min(1.0, (step - trainer.warmup_steps) / span)
    if trainer.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = min(1.0, (1 - done) / trainer.decay_share)
    return trainer.lr * (trainer.min_lr + (1 - trainer.min_lr) * share)


def computes_in_bf16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether bf16 autocast is faster than fp32 here: GPUs that support it, CPUs with AMX, AMD's with AVX512-BF16.

    Intel's AVX512-BF16 alone, as in a virtual machine that hides AMX, takes 1.5 times as long as fp32 for ``nano``.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not cpuinfo.is_file():
        return False
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace")
    return "amx_bf16" in flags or ("AuthenticAMD" in flags and "avx512_bf16" in flags)
