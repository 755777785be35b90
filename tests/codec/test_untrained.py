"""The control of comparisons: random weights whose codes are not all one."""

from training.help import CONFIG_DIR

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import tiny_codec

from codec.load import load
from codec.network.architecture import ALMTokenizerConfig
from codec.network.quantizer import usage
from codec.untrained import coloured_noise, untrained_codec

CONFIGS = CONFIG_DIR / "codec"


def small(**changes: object) -> ALMTokenizerConfig:
    config = tiny_codec().config.to_dict()
    keys = OmegaConf.load(CONFIGS / "mini.yaml").codec
    return ALMTokenizerConfig(**{key: config[key] for key in keys if key in config} | changes)


@pytest.mark.parametrize("changes", [{}, {"bottleneck": "strided"}, {"window": 10, "codebook_sizes": [64, 32]}])
def test_codes_are_not_dead(changes: dict[str, object]) -> None:
    codec = untrained_codec(small(**changes), 0)
    wav = coloured_noise(2, 100, codec.samples_per_frame, torch.Generator().manual_seed(5))
    codes = codec.encode(wav).codes
    for level, size in enumerate(codec.codebook_sizes):
        assert usage(codes[:, level], size)[1] > 4, f"level {level}"
    assert torch.isfinite(codec.decode(codec.encode(wav))).all()


def test_it_is_a_function_of_the_seed_and_survives_saving(tmp_path: Path) -> None:
    first, same, other = (untrained_codec(small(), seed) for seed in (1, 1, 2))
    assert first.fingerprint == same.fingerprint != other.fingerprint
    first.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    wav = coloured_noise(1, 20, loaded.samples_per_frame, torch.Generator().manual_seed(0))
    assert loaded.fingerprint == first.fingerprint and torch.equal(loaded.encode(wav).codes, first.encode(wav).codes)
