"""The command-line entry of every script: Hydra with our rules.

``hydra_entry("lm_train")`` turns ``def main(cfg)`` into a program that reads ``configs/lm_train.yaml`` and
``key=value`` overrides, never changes the working directory, refuses unknown keys with the nearest match, and
prints the commented configuration for ``--help``. Texts and names arrive as they are typed (`training.typed`).
"""

from __future__ import annotations

import difflib
import errno
import functools
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from training.checkpoint import CheckpointError
from training.identity import printable
from training.lock import LockError
from training.log import PlainStream, quiet_environment
from training.typed import as_typed, kinds

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG_DIR = REPOSITORY / "configs"

NUMBERS = {
    "whole": "a whole number",
    "number": "a number",
    "wholes": "a whole number or a list of them",
    "numbers": "a number or a list of them",
}
SEED = (0, 2**32 - 1)  # what every generator of random numbers takes, also times a million
ABOVE_ZERO, BELOW_ONE = math.ulp(0.0), math.nextafter(1.0, 0.0)  # ends of ranges: see `check_ranges`


class ConfigError(SystemExit):
    """A configuration that cannot be run; printed as one sentence, exit status 2."""

    def __init__(self, message: str) -> None:
        print("\n".join(map(printable, f"error: {message}".split("\n"))), file=sys.stderr)
        super().__init__(2)


@contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds inside the ``with`` block are the configuration's: one sentence, exit status 2."""
    try:
        yield
    except kinds as error:
        raise ConfigError(str(error)) from None


# What a disk or its permissions refuse; whatever was being written then is not there, or as it was before.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def ending_plainly() -> Iterator[None]:
    """A full disk, a folder that cannot be written and Ctrl-C end a program in one sentence; all it prints is plain."""
    try:
        with redirect_stdout(cast(TextIO, PlainStream(sys.stdout))):
            yield
    except (CheckpointError, LockError) as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise ConfigError(
            f"{where}{os.strerror(error.errno)}. Make room or give another folder; what was finished stays, and the "
            "same command goes on from it."
        ) from None
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from what was finished.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def config_keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """All dotted keys of ``cfg``, inner nodes included."""
    for name in cfg:
        key = prefix + str(name)
        yield key
        node = OmegaConf.select(cfg, str(name), throw_on_missing=False) if not OmegaConf.is_missing(cfg, name) else None
        if isinstance(node, DictConfig):
            yield from config_keys(node, f"{key}.")


def group_options(group: str) -> list[str]:
    """The YAML files of the configuration group ``group`` (``configs/<group>/*.yaml``), without suffix."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def expand_lists(overrides: list[str]) -> list[str]:
    """``task=[tts,asr]`` → ``task=mixture +task@task.tasks.tts=tts +task@task.tasks.asr=asr``.

    A list of options is possible for a group with an option ``mixture``; its members stand below ``<group>.<group>s``.
    """
    expanded: list[str] = []
    for override in overrides:
        group, _, value = override.partition("=")
        options = group_options(group) if group.isidentifier() else []
        if "mixture" not in options or not (value.startswith("[") and value.endswith("]")):
            expanded.append(override)
            continue
        names = [name.strip() for name in value[1:-1].split(",") if name.strip()]
        single = [name for name in options if name not in ("mixture", "all")]
        for name in names:
            if name not in single:
                near = difflib.get_close_matches(name, single, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"{override}: there is no {group} '{name}'; choose from {', '.join(single)}.{hint}")
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"{override}: name at least one {group}, and each of them once.")
        expanded.append(f"{group}=mixture")
        expanded += [f"+{group}@{group}.{group}s.{name}={name}" for name in names]
    return expanded


def choose_custom(overrides: list[str]) -> list[str]:
    """``tokenizer._target_=my.load tokenizer.path=F`` → the same with ``tokenizer=custom`` and ``+tokenizer.path=F``.

    A target of one's own gets its own arguments, and none of the option that is the default. Holds for each group with
    an option ``custom``, where that is named or no option is.
    """
    named = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    targets = [key.removesuffix("._target_") for key in named if key.endswith("._target_")]
    groups = [group for group in targets if "custom" in group_options(group) and named.get(group, "custom") == "custom"]
    chosen = [f"{group}=custom" for group in groups if group not in named]
    for override in overrides:
        group, _, key = override.partition("=")[0].partition(".")
        chosen.append(f"+{override}" if group in groups and key not in ("", "_target_") else override)
    return chosen


def kind_of_value(default: object, value: object, said: str | None = None) -> str | None:
    """What a key with this default must be, where ``value`` is something else; null and interpolations always pass.

    Args:
        said: what its comment says (`training.typed.kinds`).
    """
    if value is None or isinstance(value, str) and "${" in value:
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    of_default = {int: "whole", float: "number"}.get(type(default))
    number = said if said in NUMBERS else of_default
    if number is not None:
        several = number.endswith("s") or said not in NUMBERS  # where nothing is said, it may be a value per level
        numbers: list[Any] = value if isinstance(value, list) and several else [value]
        if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
            return "finite"
        return None if all(fits_number(v, "whole" in NUMBERS[number]) for v in numbers) else NUMBERS[number]
    if isinstance(default, ListConfig):
        return None if isinstance(value, list) else "a list, as [a,b]"
    return None


def fits_number(value: object, whole: bool = False) -> bool:
    """Whether ``value`` is a finite number, and a whole one where that is asked for."""
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return math.isfinite(value)


def check_ranges(
    cfg: DictConfig, ranges: Mapping[str, float | tuple[float, float]], optional: Sequence[str] = ()
) -> None:
    """Refuse numbers outside their range ``{key: (least, most)}`` or ``{key: least}``; a list value by value.

    ``ABOVE_ZERO`` is a least value, ``BELOW_ONE`` a greatest one; what is not finite is in no range.

    Args:
        optional: the keys that may be null.

    Raises:
        ConfigError: naming the key and its range.
    """
    for key, limits in ranges.items():
        least, most = limits if isinstance(limits, tuple) else (limits, math.inf)
        given = OmegaConf.select(cfg, key)
        if given is None and key in optional:
            continue
        for value in given if isinstance(given, ListConfig) else [given]:
            if not fits_number(value) or not least <= value <= most:
                said = f"{key}={given} must be {range_in_words(least, most)}{' or null' if key in optional else ''}"
                raise ConfigError(f"{said}.")


def range_in_words(least: float, most: float) -> str:
    """``at least 1``, ``from 0 to 1``, ``above 0 and below 1`` …"""
    if least == -math.inf and most == math.inf:
        return "a finite number"
    if ABOVE_ZERO != least and most not in (BELOW_ONE, math.inf):
        return f"from {least:.10g} to {most:.10g}"
    low = "above 0" if least == ABOVE_ZERO else f"at least {least:g}"
    high = {math.inf: "", BELOW_ONE: " and below 1"}.get(most, f" and at most {most:g}")
    return low + high


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Refuse an override whose key or group option does not exist, naming the nearest match.

    Hydra refuses unknown keys too, but with a stack of advice; this is the one sentence a person needs.
    """
    pairs = []
    values: dict[str, object] = {}
    for override in expand_lists(overrides):
        if override.startswith(("-", "~")):  # an option of Hydra's, or a key to leave out
            continue
        if "=" not in override:
            raise ConfigError(f"'{override}' is not of the form key=value.")
        key, value = override.split("=", 1)
        try:
            parsed = OverridesParser.create().parse_override(override)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{override}: the value cannot be read ({reason}); write lists as [a,b], dictionaries as "
                "{key: value}, and put what contains '=', spaces or quotes into quotes inside them, as ['a=b']."
            ) from None
        pairs.append((key, value))
        if not parsed.is_sweep_override():
            values[key] = parsed.value()
    for key, value in pairs:
        options = group_options(key)
        if options and "/" not in value and "," not in value and not value.startswith("[") and value not in options:
            near = difflib.get_close_matches(value, options, n=1)
            hint = f" Did you mean {key}={near[0]}?" if near else ""
            raise ConfigError(f"there is no {key} '{value}'; choose one of {', '.join(options)}.{hint}")
    with hydra.initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR)):
        groups = [f"{k}={v}" for k, v in pairs if (group_options(k) or "@" in k) and "," not in v]
        cfg = hydra.compose(config_name, overrides=groups)
    known = list(config_keys(cfg))
    for key, _ in pairs:
        if key.startswith(("+", "~", "hydra.", "hydra/")) or key in known or group_options(key):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"'{key}' is not a key of configs/{config_name}.yaml.{hint}")
    said = kinds(CONFIG_DIR, config_name, tuple(groups))
    for key, chosen in values.items():
        if key in known and not group_options(key) and not OmegaConf.is_missing(cfg, key):
            kind = kind_of_value(OmegaConf.select(cfg, key), chosen, said.get(key))
            if kind is not None:
                raise ConfigError(f"{key}={dict(pairs)[key]} must be {kind}.")


def arguments_of(config_name: str, overrides: list[str]) -> list[str]:
    """The arguments of a command line in Hydra's grammar."""
    return as_typed(config_name, choose_custom(expand_lists(overrides)), CONFIG_DIR)


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration that a script with ``hydra_entry(config_name)`` gets from these arguments."""
    running = GlobalHydra.instance().hydra  # of the script that asks; there can only be one at a time
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR)):
            return hydra.compose(config_name, overrides=arguments_of(config_name, overrides))
    finally:
        GlobalHydra.instance().hydra = running


def help_text(program: str, config_name: str, description: str) -> str:
    """The usage text: description, the commented YAML file of the script, and the groups it draws on."""
    source = (CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8")
    groups = re.findall(r"^\s*-\s+(?:override\s+)?([a-z_]+):\s*([\w\-]+)", source, flags=re.MULTILINE)
    lines = [
        f"usage: {program} [key=value ...]",
        "",
        description.strip(),
        "",
        f"Keys (configs/{config_name}.yaml):",
        "",
    ]
    lines += [f"  {line}" for line in source.splitlines()]
    for group, default in groups:
        options = group_options(group)
        if not options:
            continue
        lines += ["", f"{group}=… one of: {', '.join(options)} (default {default}); keys of {group}={default}:", ""]
        lines += [f"  {line}" for line in (CONFIG_DIR / group / f"{default}.yaml").read_text("utf-8").splitlines()]
    lines += ["", "-m key=a,b runs a sweep (Hydra multirun); --cfg job prints the resolved configuration."]
    return "\n".join(lines)


def hydra_entry(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Decorate ``main(cfg)``: called without arguments it runs under Hydra with ``configs/<config_name>.yaml``."""

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:
        guarded = ending_plainly()(function)  # inside Hydra, which has words of its own for what comes out

        @functools.wraps(function)
        def entry() -> None:
            if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
                module = sys.modules[function.__module__]
                print(help_text(Path(sys.argv[0]).name, config_name, module.__doc__ or function.__doc__ or ""))
                return
            with ending_plainly():
                arguments = arguments_of(config_name, sys.argv[1:])
                check_overrides(config_name, arguments)
                quiet_environment()
                # Hydra's own output folders would scatter runs; each script keeps its files in its run folder.
                sys.argv = [sys.argv[0], *arguments]
                sys.argv += [
                    "hydra.run.dir=.",
                    "hydra.output_subdir=null",
                    "hydra/job_logging=none",
                    "hydra/hydra_logging=none",
                ]
                sys.argv += ["hydra.sweep.dir=.", "hydra.sweep.subdir=."]
                hydra.main(version_base=None, config_path=str(CONFIG_DIR), config_name=config_name)(guarded)()

        return entry

    return decorate


def multirun_job() -> int | None:
    """The job number inside a sweep (``-m``), or None in a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return int(HydraConfig.get().job.num)
