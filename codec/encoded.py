"""The codes of one clip in a file of their own; needs no torch.

Encoded(codes, samples, tokenizer.describe()).save("a.safetensors")
Encoded.load("a.safetensors").codes             # [frames, levels] int64
found, refused = find_codes("folder")           # {"sub/a": Path("folder/sub/a.safetensors")}, and a sentence per fault
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from codec.errors import TokenizerError
from training.checkpoint import write_file
from training.identity import without_faults

SUFFIX = ".safetensors"  # of a file of codes


@dataclass(frozen=True)
class Encoded:
    """The codes of one clip.

    Attributes:
        codes: ``[frames, levels]`` int64.
        samples: of the clip, at the rate of the tokenizer.
        tokenizer: what `AudioTokenizer.describe` says of the one that made them; its ``fingerprint`` among it.
    """

    codes: np.ndarray
    samples: int
    tokenizer: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Duration of the clip."""
        return self.samples / float(self.tokenizer["sample_rate"])

    def check(self, fingerprint: str) -> None:
        """Refuse codes that another tokenizer than that of ``fingerprint`` made. Raises TokenizerError."""
        own = str(self.tokenizer.get("fingerprint"))
        if own != fingerprint:
            raise TokenizerError(
                f"these codes are of the tokenizer {own[:12]} and not of {fingerprint[:12]}: open the codec that made "
                "them, with its window and levels."
            )

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: the tensor ``codes``, int32, and the rest as its metadata.

        Raises:
            ValueError: a path of another suffix.
        """
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise ValueError(f"{path}: give a file that ends in {SUFFIX}.")
        kept = {"samples": str(self.samples), "tokenizer": json.dumps(self.tokenizer)}
        write_file(path, save({"codes": np.ascontiguousarray(self.codes, np.int32)}, kept))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Encoded:
        """What `save` wrote.

        Raises:
            TokenizerError: no such file, or none of codes.
        """
        try:
            with safe_open(path, "np") as file:
                said = file.metadata() or {}
                codes, samples, tokenizer = (
                    file.get_tensor("codes"),
                    int(said["samples"]),
                    json.loads(said["tokenizer"]),
                )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise TokenizerError(f"{path} is no file of codes, as `almkit encode` writes them ({error}).") from None
        whole = codes.ndim == 2 and codes.size and codes.dtype.kind in "iu"
        rate = tokenizer.get("sample_rate") if isinstance(tokenizer, dict) else None
        if not whole or not isinstance(rate, int | float) or not 0 < rate < math.inf or samples < 1:
            raise TokenizerError(f"{path} is no file of codes, as `almkit encode` writes them.")
        return cls(codes.astype(np.int64), samples, tokenizer)


def find_all(
    sources: Iterable[str | Path], find: Callable[[Path], tuple[dict[str, Path], list[str]]]
) -> tuple[dict[str, Path], list[str]]:
    """What ``find`` (`find_codes`, `codec.audio.folder.find_audio`) finds of all ``sources``, and what it refuses.

    Raises:
        FileNotFoundError: of a source there is nothing.
        ValueError: two files would become one.
    """
    found: dict[str, Path] = {}
    refused: list[str] = []
    for source in map(Path, sources):
        new, faults = find(source)
        for name, path in new.items():
            if name in found:
                cure = "name it once" if path.samefile(found[name]) else "take them one by one"
                raise ValueError(f"{found[name]} and {path} would both become '{name}': {cure}")
        found.update(new)
        refused += faults
    return found, refused


def find_codes(source: Path) -> tuple[dict[str, Path], list[str]]:
    """The file ``source``, or all files of codes below a folder, by path without suffix; and why some cannot be used.

    Raises:
        FileNotFoundError: there is none.
    """
    if source.is_file():
        return without_faults({source.stem: source})
    files = sorted(file for file in source.rglob(f"*{SUFFIX}") if not file.is_dir())
    if not files:
        raise FileNotFoundError(f"{source} holds no files of codes ({SUFFIX})")
    return without_faults({file.relative_to(source).with_suffix("").as_posix(): file for file in files})
