"""Naming a tokenizer on the command line: what each config loads, at which rate, and what is said when it cannot."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tiny_baselines import tiny_dac, tiny_encodec, tiny_mimi, tiny_xcodec2
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Xcodec2Config,
    Xcodec2Model,
)

from codec.baselines import dac, encodec, mimi, speechtokenizer, stablecodec, wavtokenizer, xcodec2
from codec.baselines.baseline import BaselineTokenizer
from codec.baselines.taae import TAAEConfig
from codec.load import load_tokenizer
from training.config import CONFIG_DIR, REPOSITORY, ConfigError, compose

MODULES = (dac, encodec, mimi, speechtokenizer, stablecodec, wavtokenizer, xcodec2)
BASELINES = {module.WEIGHTS.name: module.WEIGHTS for module in MODULES}


def config_of(*overrides: str) -> DictConfig:
    """``cfg.tokenizer`` of ``python codec/encode.py overrides``."""
    return compose("encode", list(overrides)).tokenizer


def sentence(capsys: pytest.CaptureFixture[str], *overrides: str, **override: object) -> str:
    """The one line that a refused tokenizer ends with."""
    with pytest.raises(ConfigError) as refused:
        load_tokenizer(config_of(*overrides), "cpu", **override)
    assert refused.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "it/s]" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_every_baseline_has_a_config() -> None:
    names = {path.stem for path in (CONFIG_DIR / "tokenizer").glob("*.yaml")}
    assert names == {*BASELINES, "dac_16khz", "almtokenizer", "almtokenizer_real", "custom"}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["nowhere/at/all", "hub"])
@pytest.mark.parametrize("name", BASELINES)
def test_absent_weights_are_one_sentence(name: str, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = BASELINES[name]
    path = weights.repository if where == "hub" else where  # the hub is out of reach in tests
    printed = sentence(capsys, f"tokenizer={name}", f"tokenizer.path={path}")
    assert all(fact in printed for fact in (weights.repository, weights.size, weights.licence, f"'{path}'"))
    assert config_of(f"tokenizer={name}").path == weights.repository


def test_the_sentence_names_the_variant_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert config_of("tokenizer=dac_16khz").levels == 3
    assert "get descript/dac_16khz (about 300 MB" in sentence(capsys, "tokenizer=dac_16khz")


@pytest.mark.parametrize("name", BASELINES)
def test_the_page_lists_every_tokenizer(name: str) -> None:
    page = (REPOSITORY / "docs/tokenizers.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    size = BASELINES[name].size.split(",")[0].removeprefix("about ")
    assert f"`{BASELINES[name].repository}`" in row and size in row


@pytest.mark.parametrize("name", BASELINES)
def test_an_empty_folder_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = sentence(capsys, f"tokenizer={name}", f"tokenizer.path={tmp_path}")
    assert BASELINES[name].repository in printed and str(tmp_path) in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made"), [("encodec", tiny_encodec), ("dac", tiny_dac), ("mimi", tiny_mimi), ("xcodec2", tiny_xcodec2)]
)
def test_a_saved_folder_gives_the_same_codes(name: str, made: type[BaselineTokenizer], tmp_path: Path) -> None:
    original = made(levels=1)
    original.model.save_pretrained(tmp_path)
    loaded = load_tokenizer(config_of(f"tokenizer={name}", f"tokenizer.path={tmp_path}", "tokenizer.levels=1"), "cpu")
    assert loaded.fingerprint == original.fingerprint
    wav = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.encode(wav).codes, original.encode(wav).codes)


def test_another_models_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_dac().model.save_pretrained(tmp_path)
    printed = sentence(capsys, "tokenizer=encodec", f"tokenizer.path={tmp_path}")
    assert "model type 'dac' and not 'encodec'" in printed


@pytest.mark.parametrize(
    ("overrides", "override", "wanted"),
    [
        (["tokenizer=custom"], {}, "say which tokenizer"),
        (["tokenizer=custom", "tokenizer._target_=no_such_module.Codec"], {}, "on PYTHONPATH"),
        (["tokenizer=custom", "tokenizer._target_=builtins.dict"], {}, "gave a dict and not an AudioTokenizer"),
        (["tokenizer=mimi"], {"window": 3}, "window=3: codec.baselines.mimi.load has no window"),
        (["tokenizer.path=nowhere"], {}, "no codec checkpoint at 'nowhere'"),
        (["tokenizer.path=checkpoints/codec-mini"], {"window": 40}, "window=40 is outside"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    overrides: list[str], override: dict[str, object], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wanted in sentence(capsys, *overrides, **override)


# ---- the published sizes ---------------------------------------------------------------------------------------


def published(name: str, levels: int) -> BaselineTokenizer:
    """The tokenizer of the published configuration, without weights."""
    if name == "encodec":
        return encodec.EncodecTokenizer(EncodecModel(EncodecConfig()), levels)
    if name == "mimi":
        return mimi.MimiTokenizer(MimiModel(MimiConfig()), levels)
    if name.startswith("dac"):
        rate, books = (24000, 32) if name == "dac" else (16000, 12)
        config = DacConfig(
            sampling_rate=rate, downsampling_ratios=[2, 4, 5, 8], upsampling_ratios=[8, 5, 4, 2], n_codebooks=books
        )
        return dac.DacTokenizer(DacModel(config), levels)
    if name == "xcodec2":
        return xcodec2.Xcodec2Tokenizer(Xcodec2Model(Xcodec2Config()), levels)
    if name == "speechtokenizer":
        config = speechtokenizer.SpeechTokenizerConfig(64, [8, 5, 4, 2], 1024, True, 2, 3, 1, 2, "ELU", 1024, 8, 16000)
        return speechtokenizer.SpeechTokenizer(speechtokenizer.SpeechTokenizerModel(config), levels)
    if name == "wavtokenizer":
        sizes = wavtokenizer.WavTokenizerConfig([6, 5, 5, 4], 4096, 768, 2304, 12, 4, 32, 512, 2400, 600)
        return wavtokenizer.WavTokenizer(wavtokenizer.WavTokenizerModel(sizes), levels)
    half = TAAEConfig(128, 6, (1, 2), (1, 2), (1, 1))  # widths and depths stand in the gated checkpoint alone
    model = stablecodec.StableCodecModel(stablecodec.StableCodecConfig(half, half, 16000, 640, patch=320))
    return stablecodec.StableCodec(model, levels)


@pytest.mark.parametrize(
    ("name", "levels", "rate", "frames", "bitrate", "millions"),
    [
        ("encodec", 2, 24000, 75, 1500, 14.9),
        ("dac", 2, 24000, 75, 1500, 74.7),
        ("dac-16k", 3, 16000, 50, 1500, 74.1),
        ("mimi", 8, 24000, 12.5, 1100, 79.3),
        ("mimi", 3, 24000, 12.5, 412.5, 79.3),
        ("speechtokenizer", 3, 16000, 50, 1500, 102.9),  # 103.7 with the projection of its training
        ("wavtokenizer", 1, 24000, 40, 480, 72.1),
        ("stablecodec", 1, 16000, 25, 25 * 6 * math.log2(6), None),
        ("stablecodec", 2, 16000, 25, 25 * 12 * math.log2(5), None),
        ("stablecodec", 4, 16000, 25, 25 * 24 * math.log2(3), None),
        ("xcodec2", 1, 16000, 50, 800, 629.3),
    ],
)
def test_rates_of_the_published_sizes(
    name: str, levels: int, rate: int, frames: float, bitrate: float, millions: float | None
) -> None:
    with torch.device("meta"):  # shapes only: nothing is allocated
        tokenizer = published(name, levels)
    assert (tokenizer.sample_rate, tokenizer.frame_rate, tokenizer.levels) == (rate, frames, levels)
    assert tokenizer.bitrate == pytest.approx(bitrate, rel=1e-12)
    if millions is not None:
        parameters = sum(p.numel() for p in tokenizer.model.parameters()) / 1e6
        assert parameters == pytest.approx(millions, abs=0.06)
