"""MAE, AR, the pitch's axis and the semantic prior: known answers, and which parameters their gradients reach."""

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tiny_models import tiny_codec

from codec.network.patchify import pulse_train
from codec.network.quantizer import ResidualQuantizer, SemanticCodebook
from codec.objectives.auxiliary import LevelPredictor, MaskedAutoencoder, draw_mask
from codec.objectives.losses import OtherLosses, StagedCodec
from training.config import compose


@pytest.mark.parametrize(("octaves", "scale"), [(0.0, 5), (1.0, 5), (-0.5, 5), (1.0, 15)])
def test_the_pitch_axis_says_octaves_from_the_middle_of_the_range(octaves: float, scale: float) -> None:
    """Whatever the other axes say, and whatever is quantised: the error is that of the last one before it is."""
    cfg = compose("codec_train", ["loss.pitch_axis=1", f"loss.pitch_scale={scale}"])
    staged = StagedCodec(tiny_codec(pitch_low=50.0, pitch_high=450.0), cfg)  # the middle is 150 Hz
    source = 0.1 * pulse_train(torch.full((1, 60), 150.0), 320, 24_000)
    made = staged(source, 6)
    made.quantized.projected = torch.randn(1, 10, staged.codec.config.code_dim)
    made.quantized.projected[..., -1] = octaves * scale
    losses = OtherLosses(made, source, staged, Accelerator(cpu=True), cfg.loss, [])
    assert losses.pitch_axis().item() == pytest.approx(abs(octaves), abs=0.02)


@pytest.mark.parametrize(("drowned", "expected"), [(False, 0.0), (True, 1.0)])
@pytest.mark.parametrize(("kind", "counts"), [("voice", 1.0), ("noise", 0.0), ("whistle", 0.0)])
def test_what_drowns_a_pitch_counts_where_pulses_can_say_it(
    drowned: bool, expected: float, kind: str, counts: float
) -> None:
    """Tones and direct spectrum far below the excitation, or far above it."""
    cfg = compose("codec_train", ["loss.unpitched=1"])
    staged = StagedCodec(tiny_codec(excitation=True, tonal=True), cfg).train()
    ends = staged.codec.unpatchify
    torch.manual_seed(0)
    with torch.no_grad():
        for head in (ends.spectra, ends.tones):
            head.weight.zero_()
            head.bias.view(-1, ends.bins)[:] = -3.0
            head.bias.view(-1, ends.bins)[0] = 5.0 if drowned else -15.0
    time = torch.arange(60 * 320)[None] / 24_000
    source = {
        "voice": 0.1 * pulse_train(torch.full((1, 60), 150.0), 320, 24_000),
        "noise": 0.1 * torch.randn(1, 60 * 320),
        "whistle": 0.1 * torch.sin(2 * torch.pi * 1400 * time),
    }[kind]
    made = staged(source, 6)
    loss = OtherLosses(made, source, staged, Accelerator(cpu=True), cfg.loss, []).unpitched()
    assert loss.item() == pytest.approx(expected * counts, abs=0.02)


def test_the_mask_has_the_drawn_share() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = draw_mask(3, 75, 0.25, generator)
    assert mask.sum(1).tolist() == [19, 19, 19]
    assert not torch.equal(mask[0], mask[1])
    again = draw_mask(3, 75, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)


def test_mae_sees_no_masked_frame_and_reaches_patchify_through_the_others() -> None:
    torch.manual_seed(0)
    mae = MaskedAutoencoder(16, 1, 1, 8, 12)
    frames = torch.randn(2, 30, 16, requires_grad=True)
    mask = draw_mask(2, 30, 0.25, torch.Generator().manual_seed(0))
    mae(frames, mask).backward()
    assert (frames.grad[mask] == 0).all(), "the target is detached, the input zeroed"
    assert frames.grad[~mask].abs().sum() > 0
    codec = tiny_codec()
    mae.zero_grad()
    wav = torch.randn(1, 320 * 30) * 0.1
    mae(codec.patchify(wav), mask[:1]).backward()
    reached = {name.split(".")[0] for name, p in codec.named_parameters() if p.grad is not None}
    assert reached == {"patchify"}
    assert all(p.grad is not None for p in mae.parameters())


def test_ar_reaches_the_encoder_and_not_the_decoder() -> None:
    codec = tiny_codec()
    ar = LevelPredictor(4, 3, 16, 1, 8)
    out = codec(torch.randn(1, 320 * 30) * 0.1)
    ar(out.quantized.inputs, out.quantized.per_level).backward()
    reached = {name.split(".")[0] for name, p in codec.named_parameters() if p.grad is not None}
    assert reached == {"patchify", "query", "pool", "encoder", "quantizer"}
    assert codec.quantizer.project_out.weight.grad is None
    assert codec.quantizer.project_in.weight.grad.abs().sum() > 0


def test_ar_context_is_the_shallower_levels_of_its_window() -> None:
    torch.manual_seed(0)
    ar = LevelPredictor(4, 3, 16, 2, 8)
    x = F.normalize(torch.randn(1, 6, 3, 4), dim=-1)
    changed = x.clone()
    changed[0, 3, 1] = F.normalize(torch.randn(4), dim=0)
    moved = (ar.predictions(x) - ar.predictions(changed)).abs().sum(-1)[0] > 1e-6
    expected = torch.zeros(6, 3, dtype=torch.bool)
    expected[3, 1:] = True  # its own prediction of level 3, and later levels of the window
    assert torch.equal(moved, expected)


def test_ar_with_one_level_is_zero_but_keeps_its_parameters_in_the_graph() -> None:
    ar = LevelPredictor(4, 3, 16, 1, 8)
    loss = ar(torch.randn(2, 5, 4), torch.randn(1, 2, 5, 4))
    loss.backward()
    assert loss == 0 and all(p.grad is not None for p in ar.parameters())


def semantic_quantizer() -> ResidualQuantizer:
    torch.manual_seed(0)
    rvq = ResidualQuantizer(6, 5, 4, (16, 16), decay=0.9, dead_below=0.1, semantic_dim=8)
    rvq.books[0].set_centres(torch.randn(16, 8) + 1.0)
    return rvq


def test_the_centres_stay_and_the_map_moves() -> None:
    rvq = semantic_quantizer()
    x = torch.randn(2, 40, 6)
    rvq.initialise(rvq(x, bypass=True).inputs.detach().flatten(0, 1), 5.0, 5, torch.Generator().manual_seed(0))
    centres, weight = rvq.books[0].centres.clone(), rvq.books[0].map.weight.clone()
    optimizer = torch.optim.AdamW(rvq.parameters(), lr=1e-2)
    for step in range(3):
        result = rvq(x)
        (result.latents.square().mean() + result.commitment + result.prior).backward()
        rvq.finish_step([result], torch.Generator().manual_seed(step))
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(rvq.books[0].centres, centres)
    assert not torch.equal(rvq.books[0].map.weight, weight)
    assert len(result.codes[:, 0].unique()) > 4, "aligned centres are used"


def test_semantic_lookup_compares_directions_and_returns_the_unnormalised_code() -> None:
    book = SemanticCodebook(16, 4, 8)
    x = torch.randn(30, 4)
    distance = torch.cdist(F.normalize(x, dim=1), F.normalize(book.embed, dim=1))
    assert torch.equal(book.assign(x), distance.argmin(1))
    assert torch.equal(book.assign(x * 7), book.assign(x))
    rvq = semantic_quantizer()
    result = rvq(torch.randn(1, 9, 6))
    torch.testing.assert_close(result.per_level[0, 0], rvq.books[0].embed[result.codes[0, 0]].detach())
    rvq.zero_grad()
    result.prior.backward()
    assert rvq.books[0].map.weight.grad.abs().sum() > 0 and rvq.project_in.weight.grad is None


def test_straight_through_passes_the_semantic_level() -> None:
    rvq = semantic_quantizer()
    x = torch.randn(1, 7, 6, requires_grad=True)
    result = rvq(x)
    direction = torch.randn_like(result.latents)
    (result.latents * direction).sum().backward()
    torch.testing.assert_close(x.grad, direction @ rvq.project_out.weight @ rvq.project_in.weight, atol=1e-5, rtol=1e-4)
    assert rvq.books[0].map.weight.grad is None
