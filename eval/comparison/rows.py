"""What a comparison of tokenizers may say (configs/comparison/*.yaml): its rows, and the commands they can be given.

Everything that could not work is refused here, before the first cell runs.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codec.classical import CODECS
from eval.comparison.published import read_published
from training.config import ConfigError, check_values, compose, composed, group_options, refusing
from training.identity import first_line

EVALUATIONS = {
    "tts": ("eval/tts.py", "eval_tts"),
    "asr": ("eval/asr.py", "eval_asr"),
    "text_to_sound": ("eval/text_to_audio.py", "eval_text_to_audio"),
    "text_to_music": ("eval/text_to_audio.py", "eval_text_to_audio"),
    "audio_captioning": ("eval/captioning.py", "eval_captioning"),
    "music_captioning": ("eval/captioning.py", "eval_captioning"),
}
ROW_KEYS = ("tokenizer", "classical", "options", "each", "stage1", "prior", "train", "untrained", "control", "pattern")


def read_file(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``cfg.comparison`` with what ``cfg.file`` changes; of that, ``overrides`` of the command line are kept.

    Raises:
        ConfigError: no such file, no YAML dictionary, an unknown key, or a value that it cannot hold.
    """
    if not cfg.file:
        return cfg.comparison
    try:
        changes = OmegaConf.load(cfg.file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"file={cfg.file} cannot be read: {error}") from None
    if not isinstance(changes, DictConfig):
        raise ConfigError(f"file={cfg.file} must hold keys of the comparison, as rows: {{…}}.")
    for key in map(str, changes):
        if key not in cfg.comparison:
            near = difflib.get_close_matches(key, list(map(str, cfg.comparison)), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{cfg.file}: '{key}' is not a key of the comparison.{hint}")
    merged = OmegaConf.create(OmegaConf.to_container(cfg.comparison))
    try:
        merged.merge_with(changes)
    except OmegaConfBaseException as error:
        raise ConfigError(f"file={cfg.file} does not fit the comparison: {first_line(error)}.") from None
    assert isinstance(merged, DictConfig)
    for override in overrides:
        key, _, _ = override.lstrip("+").partition("=")
        if key.startswith("comparison."):
            OmegaConf.update(merged, key.removeprefix("comparison."), OmegaConf.select(cfg, key), merge=False)
    check_values("eval_compare", OmegaConf.create({"comparison": merged}), overrides)
    return merged


def each(name: str, row: Any) -> dict[str, Any]:
    """A row whose ``each`` gives options several values, as a row for every combination: ``ours-window2-levels1`` …

    Raises:
        ConfigError: it is no dictionary of lists.
    """
    if not isinstance(row, dict) or not row.get("each"):
        return {name: row}
    values = row["each"]
    if not isinstance(values, dict) or not all(isinstance(some, list) and some for some in values.values()):
        raise ConfigError(f"comparison.rows.{name}.each must give options lists of values, as {{window: [3, 6, 10]}}.")
    rest = {key: value for key, value in row.items() if key != "each"}
    found = {}
    for chosen in itertools.product(*values.values()):
        options = dict(zip(values, chosen, strict=True))
        full = "-".join([name, *(f"{key}{value}" for key, value in options.items())])
        if full in found:
            raise ConfigError(f"comparison.rows.{name}.each names {full} twice.")
        found[full] = {**rest, "options": {**(row.get("options") or {}), **options}, "family": name}
    return found


def check(cfg: DictConfig, only: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """The rows of the comparison, after everything that could not work was refused."""
    with refusing(OmegaConfBaseException, key="comparison.rows"):
        given: Any = OmegaConf.to_container(cfg.rows, resolve=True) or {}
    rows = {str(name): row for name, row in given.items() if row}
    rows = {name: row for base, of_base in rows.items() for name, row in each(base, of_base).items()}
    if not rows:
        raise ConfigError("comparison.rows is empty: name at least one tokenizer.")
    for name, row in rows.items():
        if not re.fullmatch(r"[\w.+-]+", name):
            raise ConfigError(f"comparison.rows: '{name}' names a folder; use letters, digits, '.', '_', '+' and '-'.")
        if not isinstance(row, dict):
            raise ConfigError(f"comparison.rows.{name} must be a dictionary, as {{tokenizer: mimi}}.")
        for key in row:
            if key not in (*ROW_KEYS, "family"):
                near = difflib.get_close_matches(str(key), ROW_KEYS, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise ConfigError(f"comparison.rows.{name}.{key} is not a key of a row ({', '.join(ROW_KEYS)}).{hint}")
        for key in ("train", "untrained", "stage1"):
            if row.get(key) and not (isinstance(row[key], list) and all(isinstance(one, str) for one in row[key])):
                raise ConfigError(f"comparison.rows.{name}.{key} must be a list of overrides, as [codec=mini].")
        if not isinstance(row.get("options") or {}, dict):
            raise ConfigError(f"comparison.rows.{name}.options must be a dictionary, as {{window: 10}}.")
        if row.get("classical"):
            if set(row) - {"classical", "control"} or row["classical"] not in CODECS or cfg.tasks:
                raise ConfigError(
                    f"comparison.rows.{name}: classical is one of {', '.join(CODECS)}, which have no tokens for a "
                    "language model (tasks=[]) and no other key than control."
                )
            continue
        if row.get("tokenizer") not in group_options("tokenizer"):
            raise ConfigError(
                f"comparison.rows.{name}.tokenizer={row.get('tokenizer')}: choose one of "
                f"{', '.join(group_options('tokenizer'))}."
            )
        options = row.get("options") or {}
        if row["tokenizer"] == "custom" and not options.get("_target_"):
            raise ConfigError(f"comparison.rows.{name}.options needs _target_, as my_module.MyCodec.")
        if row["tokenizer"] != "custom":
            known = compose("eval_reconstruction", [f"tokenizer={row['tokenizer']}"]).tokenizer
            if others := [str(key) for key in options if str(key).partition(".")[0] not in known]:
                raise ConfigError(
                    f"comparison.rows.{name}.options.{others[0]}: tokenizer {row['tokenizer']} has no such key; it has "
                    f"{', '.join(str(key) for key in known if key != '_target_')}."
                )
        if row.get("train") and row.get("untrained"):
            raise ConfigError(f"comparison.rows.{name} has both train and untrained: leave one out.")
        if (row.get("stage1") or row.get("prior")) and not row.get("train"):
            raise ConfigError(f"comparison.rows.{name}: stage1 and prior come before train, which is missing.")
        if ("stage=2" in (row.get("train") or []) or row.get("prior")) and not row.get("stage1"):
            raise ConfigError(f"comparison.rows.{name} needs stage1, the overrides of the first stage.")
    for task in cfg.tasks:
        if task not in EVALUATIONS:
            raise ConfigError(f"comparison.tasks: there is no '{task}'; choose from {', '.join(EVALUATIONS)}.")
    for task, before in cfg.after.items():
        if task not in EVALUATIONS or (before and (before not in EVALUATIONS or cfg.after.get(before))):
            raise ConfigError(
                f"comparison.after.{task}={before}: the model of a task may begin with that of another one, which "
                f"itself begins from scratch; tasks are {', '.join(EVALUATIONS)}."
            )
    read_published(cfg.published)
    if cfg.match == "flops" and not cfg.flops:
        raise ConfigError("comparison.match=flops needs comparison.flops, the budget of every language model.")
    if unknown := [name for name in only or () if name not in rows]:
        raise ConfigError(f"only: there is no row '{unknown[0]}'; choose from {', '.join(rows)}.")
    return rows


def check_commands(c: DictConfig, tasks: Sequence[str]) -> None:
    """Refuse overrides that a script does not take now, and not when it is the script's turn."""
    lists = {"lm": ("lm_train", c.lm), "codec_training": ("codec_train", c.codec_training)}
    for name in (*tasks, "likelihood", "reconstruction", "semantics", "words"):
        config = EVALUATIONS[name][1] if name in EVALUATIONS else f"eval_{'semantics' if name == 'words' else name}"
        lists[f"evaluations.{name}"] = (config, c.evaluations.get(name) or [])
    for name in (*tasks, "reconstruction"):
        lists[f"judges, in {name}"] = (lists[f"evaluations.{name}"][0], c.judges)
    for key, (config, overrides) in lists.items():
        if isinstance(why := composed(config, list(overrides)), str):
            raise ConfigError(f"comparison.{key}: {why}")
