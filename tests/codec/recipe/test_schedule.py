"""What a step draws: functions of (seed, step), with the ranges and the shares that the configuration states."""

from collections import Counter

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tiny_models import tiny_codec

from codec.network.architecture import ALMTokenizerConfig
from codec.network.quantizer import Codebook, SemanticCodebook
from codec.objectives.auxiliary import draw_mask
from codec.objectives.losses import StagedCodec
from codec.recipe.crops import draw_masking, draw_step
from codec.recipe.run import parameter_groups
from training.config import compose

STEPS = 1000  # a share of one half is known to 0.016 (one standard deviation)


def configuration(*overrides: str) -> DictConfig:
    return compose("codec_train", list(overrides))


def drawn(codec: ALMTokenizerConfig, *overrides: str, steps: int = STEPS) -> list[tuple]:
    cfg = configuration(*overrides)
    return [draw_step(step, cfg, codec) for step in range(steps)]


@pytest.mark.slow
def test_windows_are_the_default_in_its_share_and_2_to_10_otherwise() -> None:
    windows = Counter(draw[0] for draw in drawn(ALMTokenizerConfig(), "trainer.default_window_share=0.8"))
    assert windows[6] / STEPS == pytest.approx(0.8 + 0.2 / 9, abs=0.03), "the others may draw it, too"
    assert set(windows) == set(range(2, 11))
    only = Counter(draw[0] for draw in drawn(ALMTokenizerConfig(), "trainer.default_window_share=0"))
    assert set(only) == set(range(2, 11))
    assert all(count / STEPS == pytest.approx(1 / 9, abs=0.03) for count in only.values())
    always = drawn(ALMTokenizerConfig(window=5), "trainer.default_window_share=1", steps=200)
    assert {draw[0] for draw in always} == {5}
    built_in = drawn(ALMTokenizerConfig(window=5, bottleneck="strided"), "trainer.default_window_share=0", steps=200)
    assert {draw[0] for draw in built_in} == {5}, "strided convolutions have one window"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_level_dropout_draws_every_number_of_levels_below_all(count: int) -> None:
    codec = ALMTokenizerConfig(codebook_sizes=(16,) * count)
    levels = Counter(draw[1] for draw in drawn(codec, "trainer.level_dropout=0.4"))
    assert set(levels) == {None, *range(1, count)}
    dropped = STEPS - levels[None]
    assert dropped / STEPS == pytest.approx(0.4 if count > 1 else 0.0, abs=0.04)
    assert all(levels[n] / dropped == pytest.approx(1 / (count - 1), abs=0.06) for n in range(1, count))
    assert {draw[1] for draw in drawn(codec, "trainer.level_dropout=0", steps=200)} == {None}


@pytest.mark.slow
def test_resolutions_are_drawn_without_bias_and_noise_moves() -> None:
    draws = drawn(ALMTokenizerConfig(), "loss.draw=2")
    assert all(len({r.fft_size for r in draw[2]}) == 2 for draw in draws)
    sizes = Counter(r.fft_size for draw in draws for r in draw[2])
    assert set(sizes) == {256, 512, 1024, 2048}
    assert all(count / STEPS == pytest.approx(0.5, abs=0.04) for count in sizes.values())
    offsets = {draw[3] for draw in draws}
    assert len(offsets) > 0.9 * STEPS and 0 <= min(offsets) and max(offsets) < 1 << 17


def test_draws_depend_on_seed_and_step_only() -> None:
    """Whatever came before them: a resumed run and every process must draw the same."""
    cfg, codec = configuration("trainer.default_window_share=0", "trainer.level_dropout=1"), ALMTokenizerConfig()
    first = {step: (draw_step(step, cfg, codec), draw_masking(step, cfg)[0]) for step in range(50)}
    np.random.seed(1)
    torch.manual_seed(1)
    assert {step: (draw_step(step, cfg, codec), draw_masking(step, cfg)[0]) for step in reversed(range(50))} == first
    cfg.seed = 1
    assert sum(draw_step(step, cfg, codec)[:2] == first[step][0][:2] for step in range(50)) < 25


def test_mae_masks_20_to_30_percent_drawn_anew_in_each_step() -> None:
    cfg = configuration()
    assert list(cfg.mae.share) == [0.2, 0.3], "the paper's"
    shares = np.array([draw_masking(step, cfg)[0] for step in range(500)])
    assert shares.min() >= 0.2 and shares.max() <= 0.3
    assert shares.min() < 0.205 and shares.max() > 0.295 and shares.mean() == pytest.approx(0.25, abs=0.005)
    masks = [draw_mask(2, 240, *draw_masking(step, cfg)) for step in range(20)]
    masked = [float(mask.float().mean()) for mask in masks]
    assert masked == pytest.approx(list(shares[:20]), abs=1 / 240)
    together = torch.stack(masks).float()
    # places that two steps have in common are as many as chance gives, not all of them
    common = (together[:-1] * together[1:]).mean((1, 2)) / together[:-1].mean((1, 2))
    assert common.max() < 0.45
    assert torch.equal(draw_mask(2, 240, *draw_masking(7, cfg)), masks[7])


@pytest.mark.parametrize("stage", [None, 1, 2])
def test_the_optimiser_has_each_trained_parameter_once_and_no_codebook(stage: int | None) -> None:
    """Codebooks follow by moving averages: weight decay or a gradient step would pull them away."""
    cfg = configuration(f"stage={stage or 'null'}", "loss.mae=1", "loss.ar=1", "ar.width=16", "ar.layers=1")
    staged = StagedCodec(tiny_codec(semantic_dim=6, decoder_dim=24), cfg)
    matrices, others = parameter_groups(staged, 0.01)
    assert matrices["weight_decay"] == 0.01 and others["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in matrices["params"]) and all(p.ndim < 2 for p in others["params"])
    held = [id(p) for p in matrices["params"] + others["params"]]
    names = {id(p): name for name, p in staged.named_parameters()}
    assert len(held) == len(set(held)) and {names[i] for i in held} == {
        name for name, p in staged.named_parameters() if p.requires_grad
    }
    memory = {p.data_ptr() for p in matrices["params"] + others["params"]}
    books = list(staged.codec.quantizer.books)
    assert isinstance(books[0], SemanticCodebook) and all(isinstance(book, Codebook) for book in books[1:])
    tensors = [books[0].centres, *(t for book in books[1:] for t in (book.embed, book.counts, book.sums))]
    assert all(t.data_ptr() not in memory and not t.requires_grad for t in tensors)
    assert ("codec.quantizer.books.0.map.weight" in {names[i] for i in held}) == (stage != 1), "the map does learn"
