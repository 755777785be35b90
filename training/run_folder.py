"""A training's folder: which checkpoint it goes on from, under which settings, and what becomes of the rest.

checkpoint = choose_checkpoint(run_dir, resume, say)    # the newest whole one, the same in all processes
check_recipe(stored, current, checkpoint)               # other settings are refused
set_aside(run_dir, checkpoint, step, say)               # nothing newer than the start stays in its way
write_settings(cfg, run_dir, step, say)                 # config.yaml; earlier ones are kept
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from training.checkpoint import CheckpointError, damage, list_checkpoints, restore_folder, step_of, write_file
from training.identity import without_credentials
from training.launch import decide

SETTINGS = "config.yaml"


def _choose(run_dir: Path, resume: str, say: Callable[[str], object]) -> str | None:
    """As `choose_checkpoint`, in one process."""
    restore_folder(run_dir / "final")
    if resume == "none":
        return None
    if resume != "auto":
        path = Path(resume)
        if step_of(path) is None or not path.is_dir():
            raise CheckpointError(f"resume={resume} is not a checkpoint folder (…/checkpoints/step_NNNNNNN).")
        if reason := damage(path):
            raise CheckpointError(
                f"resume={resume} is damaged: {reason}; name another checkpoint, or resume=none to start over."
            )
        return str(path)
    found = list_checkpoints(run_dir)
    for path in reversed(found):
        reason = damage(path)
        if reason is None:
            return str(path)
        say(f"{path} is damaged ({reason}) and is left out.")
    if found:
        raise CheckpointError(f"no checkpoint of {run_dir} is whole: give resume=none to start over.")
    return None


def choose_checkpoint(run_dir: Path, resume: str, say: Callable[[str], object]) -> Path | None:
    """The checkpoint that ``resume=auto|none|PATH`` names; the first process looks, and all go on from the same.

    Raises:
        CheckpointError: in all processes: a path that is no whole checkpoint, or a run without one; never silently a
            fresh start.
    """
    chosen = decide(lambda: _choose(Path(run_dir), resume, say))
    return None if chosen is None else Path(chosen)


def set_aside(run_dir: Path, checkpoint: Path | None, step: int, say: Callable[[str], object]) -> Path | None:
    """Move what is newer than the start to ``run_dir/aside-N``: checkpoints, final/, and a copy of the log.

    Else the rotation would take the new checkpoints for the old ones, and the next start would go on from the old run.

    Args:
        checkpoint: that the run goes on from at ``step``; of another run or None: all that is there is of another
            training.
    """
    others = checkpoint is None or checkpoint.resolve().parent != (run_dir / "checkpoints").resolve()
    moved = [path for path in list_checkpoints(run_dir) if others or (step_of(path) or 0) > step]
    final = run_dir / "final"
    if final.is_dir() and (moved or others):
        moved.append(final)
    if not moved:
        return None
    number = 1
    while (run_dir / f"aside-{number}").exists():
        number += 1
    aside = run_dir / f"aside-{number}"
    aside.mkdir()
    if (run_dir / "log.jsonl").is_file():
        shutil.copy2(run_dir / "log.jsonl", aside)
    for path in moved:
        path.rename(aside / path.name)
    say(f"{', '.join(path.name for path in moved)} of an earlier training moved to {aside}.")
    return aside


def changes(before: object, after: object, prefix: str = "") -> list[str]:
    """``key: before → after`` of each value that differs."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{prefix}: {before} → {after}"]
    names = {key: f"{prefix}.{key}" if prefix else str(key) for key in [*before, *after]}
    return [text for key, name in names.items() for text in changes(before.get(key), after.get(key), name)]


def check_recipe(stored: dict, current: dict, checkpoint: Path) -> None:
    """Refuse to continue a checkpoint under another recipe: what decides the numbers of a training.

    Raises:
        CheckpointError: naming what differs.
    """
    differing = changes(stored, current)
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise CheckpointError(
            f"{checkpoint} was trained with other settings ({shown}): give those again, or name=OTHER (with init= to "
            "begin from its weights) for another training, or resume=none to start over."
        )


def write_settings(cfg: DictConfig, run_dir: Path, step: int, say: Callable[[str], object]) -> None:
    """Write the resolved configuration as ``run_dir/config.yaml``.

    One that says otherwise is kept as ``config-<step>.yaml``: the settings in force until that step.
    """
    path, text = Path(run_dir) / SETTINGS, without_credentials(OmegaConf.to_yaml(cfg, resolve=True))
    if path.is_file() and (earlier := path.read_text(encoding="utf-8")) != text:
        kept = path.with_name(f"config-{step}.yaml")
        if not kept.exists():  # of several starts at one step the first ends what was trained before
            path.replace(kept)
        before = OmegaConf.to_container(OmegaConf.create(earlier))
        differing = changes(before, OmegaConf.to_container(OmegaConf.create(text))) or ["their order"]
        say(f"settings that changed at step {step} (before: {kept.name}): {'; '.join(differing)}")
    write_file(path, text)
