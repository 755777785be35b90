"""Weights that any program can make again: NumPy's generator seeded by each key's name, scaled by its kind.

The golden values of ``tests/codec/baselines`` were made by the published implementations with these weights.
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor


def seeded_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """A tensor for each key of a checkpoint, float32."""
    state = {}
    for key, shape in shapes.items():
        values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        if len(shape) > 1:  # matrices, kernels: keep the scale of what passes through
            values = values * 1.5 / math.sqrt(math.prod(shape[1:]))
        elif key.endswith(("bias", "beta", "shift.weight")):
            values = values * 0.1
        elif key.endswith("alpha"):  # frequency of a sine, as a logarithm: a fast one makes the network chaotic
            values = values * 0.1 - 2
        else:  # norms, scales
            values = 1 + 0.1 * values
        if key.endswith("weight_g"):
            values = 1 + 0.1 * np.abs(values)
        state[key] = torch.tensor(values, dtype=torch.float32)
    return state


def seeded_wav(samples: int) -> Tensor:
    """``[1, samples]``: noise that swells, from NumPy's generator seeded with 0."""
    noise = np.random.default_rng(0).standard_normal(samples)
    return torch.tensor(0.4 * noise * np.linspace(0, 1, samples), dtype=torch.float32)[None]
