"""The one way by which every program loads a model of transformers, from a folder or from the hub.

    model, info = load_model(AutoModelForCausalLM, "ORG/NAME@REVISION")   # a folder, ORG/NAME, or pinned to a revision
    tokenizer = load_part(AutoTokenizer, "ORG/NAME@REVISION")

* Python code that a model brings is never run unasked. Where it is trusted, the model lies in a folder, or is pinned to
  a commit of the hub: a branch can be another program tomorrow.
* A config.json is read with suspicion: it may not describe more than the files of weights can hold, and is refused
  before memory is taken.

Everything that goes wrong is a `PretrainedError` of one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig
from transformers.utils import cached_file

from training.log import no_loading_report

HUB_ID = re.compile(r"\w[\w\-.]*(/[\w\-.]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
CODE_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# drawn at training only; several public checkpoints leave it out
UNUSED_IN_INFERENCE = ("masked_spec_embed",)
MOST_LAYERS, MOST_LABELS, MOST = 1000, 100_000, 10**8  # of layers, of classes, of anything that is counted
# What transformers raises over files that are damaged, of another kind, or not there.
ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)


class PretrainedError(RuntimeError):
    """A model that is not there, cannot be loaded, or is not to be loaded; with the cure."""


class OwnCode(PretrainedError):
    """It brings Python code of its own, which nobody asked to run."""


def pinned(path: str | Path) -> tuple[str, str | None]:
    """``ORG/NAME@REVISION`` → (``ORG/NAME``, ``REVISION``); a folder has no revision.

    Raises:
        PretrainedError: neither a folder nor of the form of a hub id.
    """
    if Path(path).is_dir():
        return str(path), None
    name, at, revision = str(path).partition("@")
    if not HUB_ID.fullmatch(name) or (at and not revision):
        raise PretrainedError(f"there is no folder '{path}', and a hub id is ORG/NAME, or pinned ORG/NAME@REVISION.")
    return name, revision or None


def load_model(kind: Any, path: str | Path, trusted: bool = False, **options: Any) -> tuple[Any, dict[str, list[str]]]:
    """``kind.from_pretrained`` in float32; the model, and ``missing_keys``, ``mismatched_keys``, ``unexpected_keys``.

    ``model.revision`` is the commit of the hub that it came from, None for a folder.

    Args:
        kind: a class of transformers, an Auto class or a model's own.
        trusted: run the Python code that comes with the model, if it needs any.

    Raises:
        OwnCode: it needs code of its own, and is not trusted.
        PretrainedError: it is not there, damaged, of another kind, described larger than it is, or trusted without pin.
    """
    name, revision = pinned(path)
    config = load_config(path, trusted, kind)
    if not trusted:
        check_size(kind, config, path)
    more = {"trust_remote_code": trusted} if is_auto(kind) else {}
    with telling(path, "the weights in "), no_loading_report():
        model, info = kind.from_pretrained(
            name, revision=revision, output_loading_info=True, dtype=torch.float32, **more, **options
        )
    check_finite(model, path, set(info["missing_keys"]))  # whose values are whatever stood in memory
    info = {key: sorted(map(str, keys)) for key, keys in info.items() if key.endswith("_keys")}
    info["missing_keys"] = [key for key in info["missing_keys"] if not key.endswith(UNUSED_IN_INFERENCE)]
    model.revision = getattr(config, "_commit_hash", None)
    return model, info


def check_finite(model: nn.Module, path: str | Path, without: Collection[str] = ()) -> None:
    """Refuse weights that are NaN or infinite: what is computed with them looks like a result (one code throughout).

    Raises:
        PretrainedError: naming the first of them.
    """
    for name, values in model.state_dict().items():
        if name not in without and values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise PretrainedError(
                f"the weights in '{path}' cannot be used: {name} holds values that are NaN or infinite, as a training "
                "that diverged or a damaged file leaves them."
            )


def load_part(kind: Any, path: str | Path, trusted: bool = False) -> Any:
    """``kind.from_pretrained`` of a tokenizer, processor or feature extractor; raises as `load_model`."""
    name, revision = pinned(path)
    check_code(path, trusted)
    more = {"trust_remote_code": trusted} if is_auto(kind) else {}
    with telling(path), no_loading_report():
        return kind.from_pretrained(name, revision=revision, **more)


def load_config(path: str | Path, trusted: bool = False, kind: Any = AutoConfig) -> Any:
    """The configuration of a model, none of its weights; raises as `load_model`."""
    name, revision = pinned(path)
    check_code(path, trusted)
    with telling(path):
        check_numbers(description(path), path)
        if is_auto(kind):
            return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trusted)
        return kind.config_class.from_pretrained(name, revision=revision)


def is_auto(kind: Any) -> bool:
    """Whether ``kind`` is one of the Auto classes of transformers: they alone look for code that a model brings."""
    return str(kind.__module__).startswith("transformers.models.auto")


def description(path: str | Path, file: str = "config.json") -> dict[str, Any]:
    """What a JSON file of a model says, as it stands."""
    name, revision = pinned(path)
    with telling(path):
        found = cached_file(name, file, revision=revision)
        data = json.loads(Path(str(found)).read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise PretrainedError(f"'{path}': its {file} is no JSON object: it is damaged.")
    return data


@contextmanager
def telling(path: str | Path, what: str = "") -> Iterator[None]:
    """What fails inside fails because of ``what`` is at ``path``: one sentence."""
    try:
        yield
    except PretrainedError:
        raise
    except ERRORS as error:
        said = str(error).strip()
        if "trust_remote_code" in said:
            raise OwnCode(
                f"'{path}' brings Python code of its own, which is not run unasked: take a model that transformers "
                "itself knows."
            ) from None
        lines = (said or type(error).__name__).splitlines()
        first = " ".join(lines) if isinstance(error, StrictDataclassError) else lines[0]
        reason = re.sub(r"\s+", " ", first).split(". ")[0].rstrip(". :")
        raise PretrainedError(f"{what}'{path}' cannot be loaded ({reason}).") from None


def check_code(path: str | Path, trusted: bool) -> None:
    """Refuse to trust code that can change: of a branch of the hub, or of another repository than the model's.

    Raises:
        PretrainedError: how to pin it.
    """
    if not trusted:
        return
    name, revision = pinned(path)
    if not Path(name).is_dir() and not COMMIT.fullmatch(revision or ""):
        raise PretrainedError(
            f"'{path}' runs code from the hub: pin the commit that you have read, as {name}@COMMIT with its 40 digits, "
            "or copy the repository into a folder."
        )
    for file in CODE_FILES:
        try:
            places = description(path, file).get("auto_map", {})
        except PretrainedError:
            continue  # it has no such file; that of the model itself is missed when it is loaded
        said = [str(place) for place in (places.values() if isinstance(places, dict) else [places])]
        if elsewhere := [place for place in said if "--" in place]:
            raise PretrainedError(
                f"'{path}': its {file} runs code of another repository ({elsewhere[0]}): copy that code into a folder "
                "with the model, and name it there."
            )


def check_numbers(node: Any, path: str | Path, key: str = "") -> None:
    """Refuse numbers of a configuration that no model has.

    Raises:
        PretrainedError: naming the key.
    """
    if isinstance(node, dict):
        for name, value in node.items():
            check_numbers(value, path, str(name))
    elif isinstance(node, list):
        for value in node:
            check_numbers(value, path, key)
    elif isinstance(node, int) and not isinstance(node, bool) and "theta" not in key:
        counted = "layer" in key or "depth" in key or "codebooks" in key
        most = MOST_LAYERS if counted else MOST_LABELS if key == "num_labels" else MOST
        least = 1 if key.endswith("_heads") else 0
        if node > most or (node < least and (counted or least)):
            raise PretrainedError(
                f"'{path}': its config.json says {key}={str(node)[:20]}, and no model has less than {least} or more "
                f"than {most:,}: it is damaged, or not meant well."
            )


def check_size(kind: Any, config: Any, path: str | Path) -> None:
    """Refuse a configuration that describes more values than the files of weights have bytes; takes no memory.

    Raises:
        PretrainedError: naming both.
    """
    with telling(path):
        with torch.device("meta"):
            shape: nn.Module = kind.from_config(config, trust_remote_code=False) if is_auto(kind) else kind(config)
        refuse_larger(shape, weight_bytes(path), path)


def refuse_larger(shape: nn.Module, held: int, path: str | Path, file: str = "config.json") -> None:
    """Refuse a model ``shape`` (on the device meta) of more values than ``held`` bytes; 0 bytes are told elsewhere.

    Raises:
        PretrainedError: naming both.
    """
    values = sum(value.numel() for value in {id(v): v for v in shape.state_dict(keep_vars=True).values()}.values())
    if held and values > held:
        raise PretrainedError(
            f"'{path}': its {file} describes {values:,} values, and its files of weights have {held:,} bytes: it is "
            "damaged, or another model's."
        )


def weight_bytes(path: str | Path) -> int:
    """Bytes of the files of weights; 0 where there are none, which is told when they are loaded."""
    name, revision = pinned(path)

    def size(file: str) -> int:
        found = cached_file(name, file, revision=revision)
        return Path(str(found)).stat().st_size

    for weights in WEIGHTS:
        try:
            return size(weights)
        except OSError:
            pass
        try:
            files = set(description(path, f"{weights}.index.json")["weight_map"].values())
        except PretrainedError:
            continue
        return sum(size(file) for file in files)
    return 0
