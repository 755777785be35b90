"""Embedders: what turns a clip into the points that a Fréchet distance compares.

    embedder = load_embedder("log-mel")                              # offline, ours
    embedder = load_embedder("clap", "laion/clap-htsat-unfused")     # folder or hub id
    embedder.embed(wav, sample_rate)                                 # float32 [frames, d]

The name and the weights are part of a result: distances of different embeddings are different metrics.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.embedders.clap import Clap
from eval.embedders.frames import EncodecFrames, SSLFrames
from eval.embedders.log_mel import LogMel
from eval.harness.audio import Wave
from eval.harness.networks import NetworkError

NAMES = ("log-mel", "clap", "encodec", "ssl")


class Embedder(Protocol):
    """What every embedder offers."""

    name: str

    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """``[frames, d]`` of one clip ``[samples]``; raises CannotScore for what it cannot embed."""
        ...

    def how(self) -> dict[str, Any]:
        """Model, weights and windows; equal records mean equal embeddings."""
        ...


def load_embedder(name: str, path: str | None = None, device: str = "cpu", layer: int = -1) -> Embedder:
    """The embedder called ``name``.

    Args:
        path: folder or hub id; ``log-mel`` needs none.
        layer: hidden layer of ``ssl`` (wav2vec 2.0, HuBERT, WavLM, MERT and their like); −1 is the last.

    Raises:
        NetworkError: an unknown name, or weights that are not there.
    """
    if name not in NAMES:
        raise NetworkError(f"there is no embedding '{name}'; choose from {', '.join(NAMES)}.")
    if name == "log-mel":
        return LogMel()
    if not path:
        raise NetworkError(f"the embedding '{name}' needs its weights: give weights.{name}=FOLDER or a hub id.")
    if name == "clap":
        return Clap(path, device)
    return EncodecFrames(path, device) if name == "encodec" else SSLFrames(path, device, layer)
