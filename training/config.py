"""The command-line entry of every script: Hydra with our rules.

``hydra_entry("lm_train")`` turns ``def main(cfg)`` into a program that reads ``configs/lm_train.yaml`` and
``key=value`` overrides, never changes the working directory, refuses unknown keys with the nearest match and
values that their keys cannot hold (`training.schema`). Texts and names arrive as they are typed (`training.typed`).
"""

from __future__ import annotations

import difflib
import errno
import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from training.checkpoint import CheckpointError
from training.identity import first_line, printable
from training.lock import LockError
from training.log import OUTPUT, PlainStream, quiet_environment
from training.places import CONFIG_DIR as CONFIG_DIR
from training.places import REPOSITORY as REPOSITORY
from training.schema import composing, first_fault, nodes, options
from training.streams import Unbroken, say, settle
from training.typed import as_typed, groups_in


class ConfigError(SystemExit):
    """A configuration that cannot be run; printed as one sentence, exit status 2."""

    def __init__(self, message: str) -> None:
        say("\n".join(map(printable, f"error: {message}".split("\n"))))
        super().__init__(2)
        self.message = message

    def __str__(self) -> str:
        return self.message


@contextmanager
def refusing(*kinds: type[Exception], key: str = "") -> Iterator[None]:
    """Errors of these kinds inside the ``with`` block are the configuration's, or of one ``key`` of it: one sentence,
    exit status 2.
    """
    try:
        yield
    except kinds as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, a terminal
# What a disk or its permissions refuse; whatever was being written then is not there, or as it was before.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def ending_plainly() -> Iterator[None]:
    """A full disk, a folder that cannot be written, a reader that has gone (``| head``) and Ctrl-C end a program in one
    sentence; all it prints is plain. The exit status stays even where nothing can be printed."""
    try:
        with refusing(CheckpointError, LockError), redirect_stdout(cast(TextIO, PlainStream(sys.stdout))):
            yield
            sys.stdout.flush()
            if isinstance(sys.stdout, Unbroken) and sys.stdout.error:
                raise sys.stdout.error
    except OSError as error:
        if error.errno in GONE and error.filename == OUTPUT:  # and not another pipe, as one to a worker
            say("nobody reads the output any more; the same command goes on from what was finished.")
            raise SystemExit(128 + signal.SIGPIPE) from None
        if error.errno not in DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise ConfigError(
            f"{where}{os.strerror(error.errno)}. Make room or give another folder; what was finished stays, and the "
            "same command goes on from it."
        ) from None
    except KeyboardInterrupt:
        say("\ninterrupted; the same command goes on from what was finished.")
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        settle(sys.stdout)
        settle(sys.stderr)


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


def fill_empty(config_name: str, overrides: list[str]) -> list[str]:
    """``class_synonyms={dog: [puppy]}`` → ``++class_synonyms={dog: [puppy]}``, where that is empty by default, and
    ``comparison.after={}`` → ``~comparison.after ++comparison.after={}``, where a comment says what its entries are:
    Hydra gives a dictionary neither new keys nor fewer.
    """
    try:
        known = options(CONFIG_DIR, config_name, groups_in(overrides, CONFIG_DIR))
    except HydraException:  # an option that does not exist: refused when the overrides are checked
        return overrides
    filled = {key.rpartition(".")[0] for key in known if not key.endswith(".*")}
    found = []
    for given in overrides:
        key, _, value = given.partition("=")
        is_dict = key in known and known[key].shape == "dict"
        if is_dict and key in filled and f"{key}.*" in known and value.replace(" ", "") == "{}":
            found.append(f"~{key}")
            given = f"++{given}"
        found.append(f"++{given}" if is_dict and key not in filled else given)
    return found


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Refuse an override whose key or group option does not exist, naming the nearest match.

    Hydra refuses unknown keys too, but with a stack of advice; this is the one sentence a person needs.
    """
    pairs: list[tuple[str, str]] = []
    inside: list[str] = []  # keys of dictionaries that are given
    for override in expand_lists(overrides):
        if override.startswith(("-", "~")):  # an option of Hydra's, or a key to leave out
            continue
        if "=" not in override[1:]:
            raise ConfigError(f"'{override}' is not of the form key=value.")
        key, value = override.split("=", 1)
        try:
            parsed = OverridesParser.create().parse_override(override).value()
        except HydraException as error:
            raise ConfigError(
                f"{override}: the value cannot be read ({first_line(error)}); write lists as [a,b], dictionaries as "
                "{key: value}, and put what contains '=', spaces or quotes into quotes inside them, as ['a=b']."
            ) from None
        pairs.append((key, value))
        inside += [f"{key}.{below}" for below, _ in nodes(parsed)]
    for key, value in pairs:
        there = group_options(key)
        if there and "/" not in value and "," not in value and not value.startswith("[") and value not in there:
            near = difflib.get_close_matches(value, there, n=1)
            hint = f" Did you mean {key}={near[0]}?" if near else ""
            raise ConfigError(f"there is no {key} '{value}'; choose one of {', '.join(there)}.{hint}")
    known = options(CONFIG_DIR, config_name, groups_in([f"{key}={value}" for key, value in pairs], CONFIG_DIR))
    for key in (*dict(pairs), *inside):
        if key.startswith(("+", "hydra.", "hydra/")) or key in known or group_options(key):
            continue
        above = list(itertools.accumulate(key.split("."), "{}.{}".format))
        if key in inside and any(part in known and known[part].shape != "dict" for part in above):
            continue  # the dictionary takes the place of another value, whose options it need not have
        if any(f"{part}.*" in known for part in above):
            raise ConfigError(f"'{key}' is not there yet: write +{key}=… to add it.")
        near = difflib.get_close_matches(key, [name for name in known if not name.endswith(".*")], n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"'{key}' is not a key of configs/{config_name}.yaml.{hint}")
    own = [override for override in overrides if not override.startswith("-")]
    sweeps = any(
        override == "-m" or override.startswith("--mult") or "hydra.mode=" in override for override in overrides
    )
    if not sweeps:
        compose(config_name, own)


def check_values(config_name: str, cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Refuse a value that the comment of its key does not allow (`training.schema`), wherever it comes from.

    Args:
        overrides: that ``cfg`` was composed with, for the groups that they choose.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    if fault := _fault(config_name, cfg, overrides):
        raise ConfigError(fault)


def _fault(config_name: str, cfg: DictConfig, overrides: Sequence[str]) -> str | None:
    """Why a value of ``cfg`` is refused."""
    try:
        return first_fault(cfg, options(CONFIG_DIR, config_name, groups_in(overrides, CONFIG_DIR)))
    except OmegaConfBaseException as error:
        return f"{first_line(error)} (a value that names another)."


def arguments_of(config_name: str, overrides: list[str]) -> list[str]:
    """The arguments of a command line in Hydra's grammar."""
    return as_typed(config_name, fill_empty(config_name, choose_custom(expand_lists(overrides))), CONFIG_DIR)


def composed(config_name: str, overrides: list[str]) -> DictConfig | str:
    """What `compose` gives, or why it is refused, in a sentence."""
    try:
        arguments = arguments_of(config_name, overrides)
        with composing(CONFIG_DIR):
            cfg = hydra.compose(config_name, overrides=arguments)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return f"{first_line(error)} (of {' '.join(overrides)})."
    return _fault(config_name, cfg, arguments) or cfg


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration that a script with ``hydra_entry(config_name)`` gets from these arguments.

    Raises:
        ConfigError: a key that is not there, or a value that its key cannot hold.
    """
    found = composed(config_name, overrides)
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def hydra_entry(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Decorate ``main(cfg)``: called without arguments it runs under Hydra with ``configs/<config_name>.yaml``."""

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:

        @ending_plainly()  # inside Hydra, which has words of its own for what comes out
        def guarded(cfg: DictConfig) -> object:
            check_values(config_name, cfg, HydraConfig.get().overrides.task)
            return function(cfg)

        @functools.wraps(function)
        def entry() -> None:
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
