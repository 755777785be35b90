"""The control of comparisons: random weights whose codes are not all one."""

from training.help import CONFIG_DIR

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import tiny_codec

from codec.load import load
from codec.network.architecture import ALMTokenizerConfig
from codec.network.quantizer import usage
from codec.untrained import coloured_noise, main, untrained_codec
from training.config import compose

CONFIGS = CONFIG_DIR / "codec"


def small(**changes: object) -> ALMTokenizerConfig:
    config = tiny_codec().config.to_dict()
    keys = OmegaConf.load(CONFIGS / "mini.yaml").codec
    return ALMTokenizerConfig(**{key: config[key] for key in keys if key in config} | changes)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"bottleneck": "strided"}, {"window": 10, "codebook_sizes": [64, 32]}])
def test_codes_are_not_dead(changes: dict[str, object]) -> None:
    codec = untrained_codec(small(**changes), 0)
    wav = coloured_noise(2, 100, codec.samples_per_frame, torch.Generator().manual_seed(5))
    codes = codec.encode(wav).codes
    for level, size in enumerate(codec.codebook_sizes):
        assert usage(codes[:, level], size)[1] > 4, f"level {level}"
    assert torch.isfinite(codec.decode(codec.encode(wav))).all()


@pytest.mark.slow
def test_it_is_a_function_of_the_seed_and_survives_saving(tmp_path: Path) -> None:
    first, same, other = (untrained_codec(small(), seed) for seed in (1, 1, 2))
    assert first.fingerprint == same.fingerprint != other.fingerprint
    first.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    wav = coloured_noise(1, 20, loaded.samples_per_frame, torch.Generator().manual_seed(0))
    assert loaded.fingerprint == first.fingerprint and torch.equal(loaded.encode(wav).codes, first.encode(wav).codes)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("codec.encoder_dim=100", "width 100 is not a multiple of the head dimension 64."),
        ("codec.synthesis_fft=318", "synthesis_fft=318 must be even and at least the hop of 320."),
        ("codec.codebook_sizes=[]", "give at least one level"),
    ],
)
def test_an_architecture_that_cannot_be_is_one_sentence(
    override: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reason in refusal(main.__wrapped__, compose("codec_untrained", [override, "out=out"]))
