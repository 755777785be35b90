"""SHA-256 over configuration and weights of a codec: of what its codes depend on, and of what its sound depends on.

Tokens and language models belong to the former. A flow decoder changes the latter alone, so they stay valid with it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping

from torch import Tensor

from codec.network.architecture import LATER_KEYS, ALMTokenizerConfig
from codec.network.flow import Sampling

DECODER_KEYS, DECODER_WEIGHTS = ("flow",), "flow."  # on which no code depends
STATISTICS = (".counts", ".sums")  # of the training, without effect on codes


def of_codes(config: ALMTokenizerConfig, weights: Mapping[str, Tensor]) -> str:
    """Equal ones mean equal codes."""
    own = inspect.get_annotations(ALMTokenizerConfig)  # what transformers adds differs between its versions
    values = {key: getattr(config, key) for key in own if key not in DECODER_KEYS}
    if config.experts:  # their folders may lie elsewhere: what is in them counts
        values["experts"] = [
            sorted((k, v) for k, v in expert.items() if k != "encoder" or not expert.get("sha256"))
            for expert in config.experts
        ]
    for key, default in LATER_KEYS.items():
        if values.get(key) == default:
            values.pop(key, None)
    return _sha256(values, {key: value for key, value in weights.items() if not key.startswith(DECODER_WEIGHTS)})


def of_decoder(codes: str, config: ALMTokenizerConfig, sampling: Sampling, weights: Mapping[str, Tensor]) -> str:
    """Equal ones mean equal sound; of a flow decoder behind codes of the fingerprint ``codes``."""
    values = {"codes": codes, "flow": sorted((config.flow or {}).items()), "sampling": sampling}
    return _sha256(values, {key: value for key, value in weights.items() if key.startswith(DECODER_WEIGHTS)})


def _sha256(config: Mapping[str, object], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(repr(sorted((k, str(v)) for k, v in config.items())).encode())
    for key, value in sorted(weights.items()):
        if not key.endswith(STATISTICS):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
