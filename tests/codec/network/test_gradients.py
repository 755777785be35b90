"""Which parts of the codec each objective teaches, in each stage: exactly those, through the real training pass."""

import pytest
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from tiny_models import tiny_codec

from codec.objectives.adversarial import Adversary
from codec.objectives.losses import OtherLosses, Pass, Resolution, StagedCodec, WaveformLosses
from codec.recipe.crops import draw_masking
from training.config import compose

ENDS = {"patchify", "unpatchify.spectra", "unpatchify.tones"}
WHOLE = ENDS | set("query mask pool spread encoder decoder quantizer.project_in quantizer.project_out".split())
PITCH = WHOLE - {"unpatchify.spectra", "unpatchify.tones"} | {"unpatchify.pitch"}
TONES = WHOLE - {"unpatchify.spectra"}
TO_CODES = {"patchify", "query", "pool", "encoder", "quantizer.project_in"}
OF_SOUND = ("mel", "convergence", "adversarial", "features", "unpitched")

# stage → objective → what its gradient reaches. Objectives that a stage does not have are left out.
REACHED: dict[int | None, dict[str, set[str]]] = {
    None: {
        **dict.fromkeys(OF_SOUND, WHOLE),
        "pitch": PITCH,
        "tones": TONES,
        "commitment": TO_CODES,
        "pitch_axis": TO_CODES,
        "ar": TO_CODES | {"ar"},
        "prior": {"quantizer.books.0"},
        "mae": {"patchify", "mae"},
    },
    1: {
        **dict.fromkeys(OF_SOUND, ENDS),
        "pitch": {"patchify", "unpatchify.pitch"},
        "tones": {"patchify", "unpatchify.tones"},
        "mae": {"patchify", "mae"},
    },
}
REACHED[2] = {name: parts - {"patchify"} for name, parts in REACHED[None].items() if name != "mae"}


def configuration(stage: int | None) -> DictConfig:
    small = ["ar.width=16", "ar.layers=1", "gan.start=0", "gan.sizes=[64,256]", "gan.channels=[8,8]"]
    ours = ["loss.mae=1", "loss.ar=1", "loss.pitch_axis=1", "loss.unpitched=1"]
    return compose("codec_train", [f"stage={stage or 'null'}", *ours, *small])


def one_pass(stage: int | None, **changes: object) -> tuple[StagedCodec, Adversary, dict[str, torch.Tensor]]:
    cfg = configuration(stage)
    torch.manual_seed(0)
    codec = tiny_codec(excitation=True, tonal=True, semantic_dim=6, **changes)
    staged = StagedCodec(codec, cfg).train()
    accelerator = Accelerator(cpu=True)
    adversary = Adversary(cfg.gan, 24_000, accelerator, 0)
    samples = 320 * 6 * 12
    t = torch.arange(samples) / 24_000
    pulses = (torch.sin(torch.pi * 150 * t) ** 64)[None] * torch.tensor([[0.5], [0.3]])  # periodic: pitch counts
    wav = pulses + 0.01 * torch.randn(2, samples)
    result: Pass = staged(wav, 6, masking=draw_masking(0, cfg))
    seen = (result, wav, staged, accelerator, cfg.loss, [Resolution(512, 64)])
    losses = WaveformLosses(*seen, adversary, adversary.draw(0, samples)).all() | OtherLosses(*seen).all()
    return staged, adversary, losses


def part(name: str) -> str:
    """The part of the codec that a parameter belongs to, ``quantizer`` and ``unpatchify`` one level deeper."""
    words = name.removeprefix("codec.").split(".")
    depth = {"quantizer": 3 if words[1:2] == ["books"] else 2, "unpatchify": 2}.get(words[0], 1)
    return ".".join(words[:depth])


def reached(loss: torch.Tensor, staged: StagedCodec) -> set[str]:
    """The parts whose parameters a loss teaches."""
    staged.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {part(n) for n, p in staged.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [None, 1, 2])
def test_each_objective_reaches_exactly_its_parameters(stage: int | None) -> None:
    staged, adversary, losses = one_pass(stage)
    assert losses.keys() == REACHED[stage].keys(), "an objective is missing, or one takes part that should not"
    for name, loss in losses.items():
        assert reached(loss, staged) == REACHED[stage][name], name
        assert all(p.grad is None for p in adversary.core.parameters()), f"{name} teaches the discriminators"


def test_in_stage_one_a_bridge_joins_ends_of_unequal_widths() -> None:
    staged, _, losses = one_pass(1, decoder_dim=24)
    for name, loss in losses.items():
        assert reached(loss, staged) == REACHED[1][name] | ({"bridge"} if name != "mae" else set()), name
    assert one_pass(1)[0].bridge is None and one_pass(2, decoder_dim=24)[0].bridge is None


def test_what_the_discriminators_learn_does_not_reach_the_codec() -> None:
    staged, adversary, _ = one_pass(None)
    wav = torch.randn(2, 320 * 6 * 12) * 0.1
    output = staged(wav, 6).wav
    before = [p.detach().clone() for p in adversary.core.parameters()]
    judged = adversary.draw(1, wav.shape[1])
    assert judged is not None
    adversary.train([(output, wav)], judged, 1.0)
    assert all(p.grad is None for p in staged.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, adversary.core.parameters(), strict=True))
