"""The presets of configs/codec: they build, have the documented sizes, and suit the paper's frame rate."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig, architecture_of
from training.config import CONFIG_DIR, REPOSITORY, compose

FILES = {path.stem: path for path in sorted(Path(CONFIG_DIR, "codec").glob("*.yaml"))}


RATES = {"mini_8": 1100, "base_flow": 1300}  # bit/s, where they are not the paper's


def preset(name: str) -> DictConfig:
    return compose("codec_train", [f"codec={name}"])


def build(cfg: DictConfig) -> ALMTokenizer:
    return ALMTokenizer(architecture_of(cfg.codec))


def million_parameters(name: str) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in build(preset(name)).parameters()) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_preset_has_every_key_and_the_rate_of_the_paper(name: str) -> None:
    cfg = preset(name)
    assert cfg.preset == name, "the run's folder is named after it"
    # the configuration takes unknown keys without a word, so a misspelt one would leave the default in its place
    known = set(inspect.get_annotations(ALMTokenizerConfig)) - {"flow"}  # which stage 3 adds, from keys of its own
    assert set(cfg.codec) == known
    with torch.device("meta"):
        codec = build(cfg)
    assert (codec.sample_rate, codec.frame_rate, codec.bitrate) == (24_000, 12.5, RATES.get(name, 412.5))


@pytest.mark.parametrize("name", FILES)
def test_crops_and_the_start_of_the_codebooks_have_enough_latents(name: str) -> None:
    """At 12.5 Hz short crops show too little context, and k-means of too few latents collapses the deeper levels."""
    train, codec = preset(name).trainer, preset(name).codec
    windows = int(train.crop_seconds * codec.sample_rate) // (codec.hop * codec.window)
    assert train.crop_seconds >= 3.0 and windows >= 37
    assert train.init_batches * train.batch_size * windows >= 10 * max(codec.codebook_sizes)


@pytest.mark.parametrize("name", FILES)
def test_documented_sizes_are_those_of_the_network(name: str) -> None:
    """In the preset's comments and in the table of docs/codec.md, to the digits that they print."""
    text = FILES[name].read_text(encoding="utf-8")
    row = re.search(rf"^\| `codec={name}` \|.*$", (REPOSITORY / "docs/codec.md").read_text(encoding="utf-8"), re.M)
    stated = re.findall(r"([\d.]+) M parameters", text)
    stated += re.findall(r"\| ([\d.]+) M \|", row[0]) if row else []
    assert stated or name in ("mini_causal",), "it has the parameters of mini"
    size = million_parameters(name)
    for figure in stated:
        digits = len(figure.partition(".")[2])
        assert round(size, digits) == float(figure), f"{figure} M is stated, {size:.3f} M are built"


def test_each_key_of_the_reproduction_has_a_place_of_today() -> None:
    """The table of docs/codec.md: what it names is a key here, and its command a codec."""
    page = (REPOSITORY / "docs/codec.md").read_text(encoding="utf-8")
    section = page.split("## Coming from the unofficial reproduction")[1].split("\n## ")[0]
    cells = [line.split(" | ")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`([\w.]+)", cell)]
    theirs = """
        device from_raw_audio window_size embed_dim n_heads n_layers dim_feedforward sliding_window_size
        requires_grad hop_lengths n_fft win_lengths filters filters_scale max_filters dilations dataset_path
        batch_size train_subset_size test_subset_size num_workers nsecs shuffle num_epochs
        discriminator_train_freq d_train_prob checkpoint_freq eval_freq start_checkpoint writer_dir
        checkpoint_dir lr_generator weight_decay lr_discriminator betas L_time L_freq L_adv L_feat L_mae
    """.split()
    told = " ".join(line.split(" | ")[0] for line in section.splitlines())
    assert not [name for name in theirs if not re.search(rf"\b{name}`", told)]
    command = re.search(r"codec/train.py (.*)", section)
    assert command is not None
    cfg = compose("codec_train", command[1].split())
    for name in named:
        assert OmegaConf.select(cfg, name, default="absent") != "absent", name
    with torch.device("meta"):
        assert build(cfg).config.patchify == "conv"


def test_variants_of_mini_have_as_many_parameters() -> None:
    assert million_parameters("mini_causal") == million_parameters("mini_8") == million_parameters("mini")
    assert million_parameters("mini_conv") == pytest.approx(million_parameters("mini"), rel=0.005)
    assert 0.85 < million_parameters("base") / 174 < 1.15, "near the paper's 174 M"


@pytest.mark.parametrize("name", ["mini", "mini_causal", "mini_conv"])
def test_small_presets_run(name: str) -> None:
    torch.manual_seed(0)
    codec = build(preset(name)).eval()
    codes = codec.encode(0.1 * torch.randn(1, 24_000))
    assert codes.codes.shape == (1, 3, 13)
    wav = codec.decode(codes)
    assert wav.shape == (1, 24_000) and torch.isfinite(wav).all()
    assert codec.causal == (name == "mini_causal")


@pytest.mark.parametrize("name", ["small", "base", "paper"])
def test_the_larger_presets_have_the_objectives_of_the_papers_stages(name: str) -> None:
    cfg = preset(name)
    assert cfg.loss.mae > 0 and cfg.loss.ar > 0 and cfg.gan.start is not None
    assert list(cfg.mae.share) == [0.2, 0.3]
    assert name == "small" or cfg.trainer.default_window_share == 0, "w is drawn at every step"
    if name == "paper":
        c = cfg.codec
        assert c.encoder_block_causal and not (c.window_basis or c.excitation or c.tonal or c.whiten)
        assert c.patchify == "conv" and c.semantic_dim == c.encoder_dim and c.encoder_layers == c.decoder_layers == 24
        assert not (cfg.trainer.level_dropout or cfg.loss.spread or cfg.loss.hearing)
