"""Stage 3: a flow decoder for codes that stay; its gate, its draws, what it learns, exact resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from json_files import read_lines
from tiny_models import tiny_codec, tiny_flow_codec
from tiny_training import assert_equal, cut_short, losses, train

from codec.corpus import Clip
from codec.load import load
from codec.model import ALMTokenizer
from codec.network.architecture import architecture_of
from codec.network.ctc import CTCConfig, CTCRecogniser
from codec.network.flow import noise, stratified_times
from codec.objectives.auxiliary import ExpertPredictor
from codec.objectives.flow import FlowDraw, flow_losses, velocity_error
from codec.objectives.losses import StagedCodec
from codec.recipe.ceiling import check_ceiling
from codec.recipe.crops import CropSampler, draw_flow
from codec.recipe.diagnostics import CROPS, crops, diagnose
from codec.recipe.initialise import calibrate_flow, flow_of, measure_residual
from codec.recipe.run import learning_rates, parameter_groups, recipe_of
from training.config import ConfigError, compose

TINY_FLOW = ["stage=3", "init=runs/base/final", "flow.dim=16", "flow.layers=1", "flow.regression_steps=3"]
WAV = torch.stack([0.3 * torch.sin(2 * torch.pi * f * torch.arange(320 * 60) / 24_000) for f in (200.0, 440.0)])


def draw(count: int = 2, begun: bool = True, first: int = 0, **changes: object) -> FlowDraw:
    settings = {"draws": 3, "condition_dropout": 0.2, "random_codes": 0.1, **changes}
    return FlowDraw([1000 + first + i for i in range(count)], begun, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_stage_three_moves_its_decoder_alone_and_goes_on_bit_for_bit(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    base = train("base", "trainer.max_steps=8")
    rest = [*TINY_FLOW, "trainer.max_steps=8", "trainer.ema=0.9", "trainer.accumulate=2", "trainer.valid_every=8"]
    whole = train("whole", *rest)
    assert "gate 0, the true target rendered beside today's decoder" in capsys.readouterr().out
    assert base.keys() < whole.keys()
    assert all(torch.equal(base[key], whole[key]) for key in base), "all that codes depend on stays"
    one, three = load("runs/base/final"), load("runs/whole/final")
    codes = one.encode(WAV)
    assert torch.equal(three.encode(WAV).codes, codes.codes)
    assert three.fingerprint == one.fingerprint and three.decoder_fingerprint != one.decoder_fingerprint
    assert three.decode(codes).shape == WAV.shape

    records = [json.loads(line) for line in Path("runs/whole/log.jsonl").read_text().splitlines()]
    assert {"ceiling_speech_mel", "today_speech_mel"} <= set(records[0])
    told = {record["step"]: set(record) for record in records if "loss" in record}
    assert all(("flow" in told[step]) == (step > 3) and "regression" in told[step] for step in told)

    cut_short("whole")
    assert_equal(whole, train("cut", *rest))
    assert "resumed from" in capsys.readouterr().out and losses("cut") == losses("whole")


@pytest.mark.slow
def test_a_latent_target_takes_the_ends_of_its_auto_encoder(place: Path, capsys: pytest.CaptureFixture) -> None:
    train("base", "trainer.max_steps=8")
    ends = train("ends", "stage=1", "trainer.max_steps=60", "trainer.learning_rate=1e-2")
    latent = [*TINY_FLOW, "flow.target=latent", "flow.autoencoder=runs/ends/final", "trainer.max_steps=5"]
    made = train("latent", *latent)
    for key in made:
        if key.startswith("flow.target."):
            assert torch.equal(made[key], ends[key.removeprefix("flow.target.")])
    train("wide", "stage=1", "trainer.max_steps=2", "codec.decoder_dim=24")
    with pytest.raises(ConfigError):
        train("other", *latent, "flow.autoencoder=runs/wide/final")
    assert "the bridge between them is not exported" in capsys.readouterr().err


@pytest.mark.slow
def test_a_target_with_a_poor_ceiling_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", WAV[0].repeat(2).numpy(), 24_000)
    clips = [Clip("a", tmp_path / "a.wav", domain="sound")]
    said: list[str] = []
    found = check_ceiling(tiny_flow_codec(), clips, tmp_path / "good", said.append)
    assert found["ceiling_sound_mel"] < 0.5 * found["today_sound_mel"] and "ceiling_sound_mel" in said[0]
    poor = tiny_flow_codec({"target": "latent", "latent": 8})  # random ends
    with pytest.raises(ConfigError):
        check_ceiling(poor, clips, tmp_path / "poor", said.append)
    assert "flow.target=latent: its own resynthesis has" in capsys.readouterr().err


def test_draws_belong_to_the_crop_and_not_to_the_process() -> None:
    cfg = compose("codec_train", ["stage=3", "init=somewhere", "flow.regression_steps=5"])
    whole, halves = draw_flow(7, cfg, 0, 4), [draw_flow(7, cfg, first, 2) for first in (0, 2)]
    assert whole.seeds == halves[0].seeds + halves[1].seeds and len(set(whole.seeds)) == 4
    assert not set(whole.seeds) & set(draw_flow(8, cfg, 0, 4).seeds)
    assert [draw_flow(step, cfg, 0, 1).begun for step in (4, 5)] == [False, True]
    codec = tiny_flow_codec()
    wav = torch.cat((WAV, 0.5 * WAV.flip(1)))
    together = flow_losses(codec, wav, 6, None, draw(4))
    apart = [flow_losses(codec, wav[i : i + 2], 6, None, draw(2, first=i)) for i in (0, 2)]
    for name in ("flow", "regression"):  # weights of the offsets differ from clip to clip
        assert together[name].item() == pytest.approx(sum(part[name].item() for part in apart) / 2, rel=0.02)


@pytest.mark.parametrize("begun", [False, True])
def test_what_each_loss_teaches(begun: bool) -> None:
    cfg = compose("codec_train", ["stage=3", "init=somewhere"])
    staged = StagedCodec(tiny_flow_codec(), cfg).train()
    result = staged(WAV, 6, flow=draw(begun=begun, condition_dropout=0.5))
    assert result.flow is not None and result.flow.keys() == ({"flow", "regression"} if begun else {"regression"})
    torch.stack(list(result.flow.values())).sum().backward()
    learns = {name for name, p in staged.named_parameters() if p.requires_grad}
    assert learns == {name for name, _ in staged.named_parameters() if name.startswith("codec.flow.")}
    reached = {n.split(".")[2] for n, p in staged.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == ({"network", "nothing"} if begun else {"regression"})
    assert all(p.grad is not None for _, p in staged.named_parameters() if p.requires_grad), "processes wait for all"


def test_the_head_learns_first_and_then_stands_still() -> None:
    cfg = compose("codec_train", ["stage=3", "init=x", "flow.regression_steps=100", "trainer.max_steps=400"])
    rates = {step: learning_rates(step, cfg) for step in (0, 99, 100, 399)}
    assert rates[0][0] > 0 and rates[0][1] == 0 and rates[99][0] < 0.1 * cfg.trainer.learning_rate
    assert rates[100][0] == 0 and rates[100][1] == rates[0][0] and rates[399][0] == 0
    zero = compose("codec_train", ["stage=3", "init=x", "flow.prior=zero"])
    assert learning_rates(0, zero)[0] == 0 < learning_rates(0, zero)[1]
    groups = parameter_groups(StagedCodec(tiny_flow_codec(), cfg), 0.01)
    assert [bool(group.get("head")) for group in groups] == [False, False, True, True]
    assert sum(p.numel() for group in groups[2:] for p in group["params"]) == sum(
        p.numel() for p in tiny_flow_codec().flow.regression.parameters()
    )


def test_runs_of_other_stages_know_nothing_of_it() -> None:
    """Their checkpoints, also of before, go on."""
    recipe = recipe_of(compose("codec_train", []), [], None, 1)
    assert "reopen" not in recipe and "pitch_scale" not in recipe["loss"], "runs of before these keys go on"
    assert "flow" not in recipe and not {"flow", "regression"} & set(recipe["loss"])
    recipe = recipe_of(compose("codec_train", ["stage=3"]), [], None, 1)
    assert recipe["flow"]["target"] == "partials" and recipe["loss"]["flow"] == 1.0


def test_the_published_sizes_and_a_small_copy_that_learns() -> None:
    """``base_flow``: 0.93 B of the flow and 1.08 B that learn, as published; a sixteenth of its widths takes a step."""
    small = ["codec.encoder_dim=48", "codec.decoder_dim=48", "codec.head_dim=8", "codec.encoder_layers=1",
             "codec.decoder_layers=1", "codec.codebook_sizes=[16,16]", "flow.dim=96", "flow.layers=2", "stage=3",
             "codec.experts=[{encoder: log-mel, layer: 0, role: phone, dim: 80}]"]  # fmt: skip
    sizes = {}
    for name, overrides in (("whole", []), ("small", small)):
        cfg = compose("codec_train", ["codec=base_flow", "init=x", *overrides])
        config = architecture_of(cfg.codec)
        config.flow = flow_of(cfg, config, None) | {"latent": 136 if name == "whole" else 8}
        torch.manual_seed(0)
        with torch.device("meta" if name == "whole" else "cpu"):
            codec = ALMTokenizer(config)
        sizes[name] = sum(p.numel() for p in codec.flow.parameters()) / 1e9
        head = ExpertPredictor(768, codec.patchify.phones) if name == "whole" else None
        total = (sum(p.numel() for m in (codec, head) if m is not None for p in m.parameters())) / 1e9
        if name == "whole":
            assert sizes[name] == pytest.approx(0.93, rel=0.05) and total == pytest.approx(1.08, rel=0.05)
            assert (codec.frame_rate, codec.bitrate, codec.samples_per_frame) == (12.5, 1300, 1920)
    staged = StagedCodec(codec, cfg).train()
    optimizer = torch.optim.AdamW(parameter_groups(staged, 0.01), lr=1e-3)
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    result = staged(torch.cat((WAV, WAV), dim=1)[:, : 1920 * 16], 2, flow=draw())
    result.flow["flow"].backward()
    optimizer.step()
    moved = {key.split(".")[0] for key, value in codec.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"flow"} and torch.isfinite(result.flow["flow"])


@pytest.mark.slow
def test_a_codec_that_hears_by_experts_is_trained_goes_on_and_gets_a_flow_decoder(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    CTCRecogniser(CTCConfig(mels=16, width=24, blocks=1)).save(place / "ctc")
    heard = "codec.experts=[{encoder: ctc, layer: 0, role: phone},{encoder: log-mel, layer: 0, role: acoustic}]"
    experts = ["codec.patchify=experts", heard]
    learns = [*experts, "loss.expert=0.5", "trainer.max_steps=8"]
    whole = train("heard", *learns)
    assert not any("ctc" in key or "expert" in key for key in whole), "neither experts nor their head are exported"
    logged = [record for record in read_lines("runs/heard/log.jsonl") if "loss" in record]
    assert len(logged) == 8 and all(record["expert"] > 0 for record in logged)
    cut_short("heard")
    assert_equal(whole, train("cut", *learns))
    flow = [part.replace("runs/base", "runs/heard") for part in TINY_FLOW]
    train("flow", *experts, *flow, "trainer.max_steps=5")
    base, flowing = load("runs/heard/final"), load("runs/flow/final")
    codes = base.encode(WAV)
    assert torch.equal(flowing.encode(WAV).codes, codes.codes) and flowing.fingerprint == base.fingerprint
    assert flowing.decode(codes).shape == WAV.shape
    with pytest.raises(ConfigError):
        train("none", "loss.expert=0.5")
    assert "loss.expert needs patchify=experts with one of role phone" in capsys.readouterr().err


def sampler(tmp_path: Path, *waves: np.ndarray) -> CropSampler:
    clips = []
    for number, wav in enumerate(waves):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, wav, 24_000)
        clips.append(Clip(str(number), path, domain="sound", split="train"))
    return CropSampler(clips, 24_000, {"sound": 1.0}, (0, 0), 0)


@pytest.mark.slow
def test_targets_are_normalised_and_the_residual_has_unit_variance(tmp_path: Path) -> None:
    cfg = compose("codec_train", ["stage=3", "init=x"])
    rng = np.random.default_rng(0)
    t = np.arange(48_000) / 24_000
    crops = sampler(tmp_path, 0.1 * rng.standard_normal(48_000), 0.5 * np.sin(2 * np.pi * 440 * t) * t / 2)
    codec = tiny_flow_codec()
    calibrate_flow(codec, crops, cfg, 24_000)
    flow = codec.flow
    seen = torch.cat([flow.normalised(flow.target.measure(crops.batch(s, 0, 4, 23_040)[0])) for s in range(40)])
    seen = seen.flatten(0, 1)
    assert seen.mean(0).abs().mean() < 0.1 and seen.std(0).mean() == pytest.approx(1, abs=0.1)
    left = measure_residual(codec, crops, cfg, 24_000)
    assert left > 0.5 and flow.residual.square().mean().item() == pytest.approx(left, rel=1e-4)
    for wav in (torch.zeros(1, 23_040), torch.ones(1, 23_040), torch.sign(torch.randn(1, 23_040))):
        found = flow_losses(codec, wav, 6, None, draw(1))
        assert all(torch.isfinite(value) for value in found.values())


@pytest.mark.slow
def test_one_crop_is_learnt_by_heart() -> None:
    """With the zero prior: samples come from noise, by way of what stands for the codes."""
    torch.manual_seed(0)
    flow = tiny_codec(flow={"target": "gains", "prior": "zero", "dim": 32, "layers": 2, "span": 12}).flow
    condition, target = torch.randn(1, 30, 16), torch.randn(1, 30, flow.target.dim)
    optimizer = torch.optim.AdamW(flow.network.parameters(), lr=3e-3)
    for step in range(300):
        generator = torch.Generator().manual_seed(step)
        z = torch.randn(8, *target.shape[1:], generator=generator)
        given, true = condition.expand(8, -1, -1), target.expand(8, -1, -1)
        velocity_error(flow, given, true, torch.ones(()), z, stratified_times(8, generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert (flow.sample(condition) - target).square().mean() < 0.1


def test_diagnostics_know_a_decoder_that_has_learnt_nothing(tmp_path: Path) -> None:
    """The velocity of a standard normal target: as calibrated as one can be without the codes."""
    rng = np.random.default_rng(0)
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(60_000), 24_000)
    clips = [Clip(name, tmp_path / f"{name}.wav", domain="sound") for name in "ab"]
    codec = tiny_codec(flow={"target": "gains", "prior": "zero", "dim": 16, "layers": 1, "span": 12})
    values = codec.flow.target.measure(torch.from_numpy(0.1 * rng.standard_normal((1, 320 * 400))).float())
    codec.flow.mean.copy_(values.mean((0, 1)))
    codec.flow.deviation.copy_(values.std((0, 1)))
    found = diagnose(codec, clips)
    assert found["flow_t000"] == pytest.approx(1, abs=0.1) and found["flow_t100"] == pytest.approx(1, abs=0.1)
    assert found["flow_shuffled"] == found["flow_t000"] and found["flow_t050"] > found["flow_t025"] > 1
    assert found["flow_deviation"] == pytest.approx(1, abs=0.1), "the samples are the noise"
    assert found["flow_spread"] == pytest.approx(2 / (1 + 1 / 8), abs=0.15)
    assert codec.flow.sampling.seed == 0 and noise(0, 1, 2, 1, torch.device("cpu")).shape == (1, 2)
    assert diagnose(codec, []) == {}


def test_diagnostics_read_no_more_clips_than_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, read = tiny_codec(), list[str]()

    def of_seconds(path: Path, rate: int) -> np.ndarray:
        read.append(path.name)
        return np.full(rate * (1 if path.name == "0" else 3), float(path.name), np.float32)

    monkeypatch.setattr("codec.recipe.diagnostics.read_audio", of_seconds)
    clips = [Clip(str(number), Path(str(number)), domain="sound") for number in range(3 * CROPS)]
    found = crops(codec, clips)
    assert found is not None and found[:, 0].tolist() == list(range(1, CROPS + 1)), "the first is too short"
    assert len(read) == CROPS + 1 and crops(codec, clips[:1]) is None
