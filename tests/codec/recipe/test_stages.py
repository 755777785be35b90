"""The paper's two stages through the command: what is frozen, what is exported, exact resume of every part."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from programs import run_program
from safetensors.torch import load_file, save_file
from tiny_models import tiny_codec
from tiny_training import assert_equal, cut_short, losses, train

from codec.interface import TokenizerError
from codec.load import load
from codec.objectives.losses import OtherLosses, Pass, Resolution, StagedCodec, spectral_losses
from codec.recipe.averaging import WeightAverage
from codec.recipe.run import parameter_groups
from codec.semantic_prior import StreamingKMeans
from training.config import compose

PARTS = [
    "codec.patchify=conv",
    "codec.decoder_dim=24",  # unequal widths: stage 1 puts a bridge between the ends
    "codec.conv_filters=2",
    "codec.window_basis=0",
    "codec.semantic_dim=6",
    "gan.start=2",
    "gan.sizes=[64,256]",
    "gan.channels=[8,8]",
    "gan.crop_seconds=0.2",
    "trainer.ema=0.9",
    "trainer.max_steps=8",
    "loss.mae=1",
    "loss.ar=1",
    "ar.width=16",
    "ar.layers=1",
]


@pytest.mark.slow
def test_two_stages_and_exact_resume(place: Path, capsys: pytest.CaptureFixture) -> None:
    save_file({"centres": torch.randn(16, 6)}, "centres.safetensors")
    one = train("one", *PARTS, "stage=1")
    with pytest.raises(TokenizerError, match="are random: its training ended before they began"):
        load("runs/one/final")
    stage_two = [*PARTS, "stage=2", "init=runs/one/final", "gan.balancer=true", "trainer.accumulate=2"]
    stage_two += ["semantic_centres=centres.safetensors", "trainer.quantize_from=3"]
    two = train("two", *stage_two)

    assert one.keys() == two.keys()
    assert load("runs/two/final").levels == 3
    assert not any(key.startswith(("mae", "ar.", "bridge", "discriminator")) for key in two)
    changed = {key.split(".")[0] for key in two if not torch.equal(one[key], two[key])}
    assert changed == {"query", "mask", "encoder", "decoder", "quantizer", "unpatchify"}, "patchify must stay"
    assert torch.equal(two["quantizer.books.0.centres"], load_file("centres.safetensors")["centres"])
    seen = set().union(*map(json.loads, Path("runs/two/log.jsonl").read_text().splitlines()))
    assert {"adversarial", "features", "discriminator", "ar", "prior", "commitment", "mel"} <= seen
    assert "mae" not in seen

    cut_short("two")
    assert_equal(two, train("cut", *stage_two))
    assert "resumed from" in capsys.readouterr().out
    assert losses("cut") == losses("two")
    parts = [f"runs/{name}/checkpoints/step_0000008/adversary.pt" for name in ("two", "cut")]
    assert_equal(*(torch.load(part, weights_only=True)["model"] for part in parts))


@pytest.mark.parametrize("stage", ["null", "1"])
def test_a_start_from_nothing_is_refused(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(run_program, "codec_train", f"stage={stage}", "init=somewhere")
    assert "init=somewhere: no codec checkpoint at 'somewhere'" in said and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_trained_codec_goes_on_with_its_codebooks(
    place: Path, capsys: pytest.CaptureFixture, refusal: Callable[..., str]
) -> None:
    short = [*PARTS, "codec.patchify=stft", "codec.window_basis=5", "codec.semantic_dim=0", "gan.start=null"]
    short += ["loss.ar=0", "loss.mae=0", "trainer.ema=0", "trainer.max_steps=8"]
    before = train("first", *short)
    capsys.readouterr()
    init = "init=runs/first/final"
    after = train("again", init, *short, "trainer.max_steps=1", "trainer.learning_rate=1e-30")
    assert "k-means" not in capsys.readouterr().out
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.startswith("quantizer.books")}, "the codebooks follow from step 0"
    assert all((before[key] - after[key]).abs().max() < 0.5 for key in moved if key.endswith("embed"))
    train("pitched", init, *short, "codec.pitch_input=true", "trainer.quantize_from=1", "trainer.max_steps=2")
    said = capsys.readouterr().out
    assert "starts anew: patchify.pitch.weight" in said and "step 1: codebooks initialised by k-means" in said
    train("reopened", init, *short, "reopen=0.5", "trainer.quantize_from=1", "trainer.max_steps=2")
    said = capsys.readouterr().out
    assert "code space of runs/first/final anew" in said and "step 1: codebooks initialised by k-means" in said
    other = refusal(train, "other", init, *short, "codec.encoder_dim=24")
    assert "init=" in other and "encoder_dim" in other


@pytest.mark.slow
def test_stages_warm_start_from_a_codec_without_semantic_centres(place: Path, capsys: pytest.CaptureFixture) -> None:
    short = [*PARTS, "gan.start=null", "trainer.ema=0", "trainer.max_steps=4", "trainer.quantize_from=1"]
    first = train("first", *short, "codec.semantic_dim=0", "loss.ar=0", "loss.mae=0")
    still = [*short, "trainer.max_steps=1", "trainer.learning_rate=1e-30"]
    one = train("one", "stage=1", "init=runs/first/final", *still)
    save_file({"centres": torch.randn(16, 6)}, "centres.safetensors")
    capsys.readouterr()
    two = train("two", "stage=2", "init=runs/one/final", "semantic_centres=centres.safetensors", *short)
    assert "k-means" in capsys.readouterr().out, "stage 2 begins with codebooks of its own"
    train("three", "init=runs/one/final", *short)
    assert "step 1: codebooks initialised by k-means" in capsys.readouterr().out, "there are none to go on with"
    books = {key for key in one if key.startswith("quantizer.books.")}
    assert all(torch.equal(one[key], first[key]) for key in one if key not in books), "the rest is taken over"
    assert "quantizer.books.0.centres" in one and "quantizer.books.0.embed" not in one
    assert not torch.equal(two["encoder.blocks.0.attention.qkv.weight"], first["encoder.blocks.0.attention.qkv.weight"])


def test_the_average_follows_and_is_taken_back() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1.0
    average.update(100)
    with average.applied():
        torch.testing.assert_close(model.weight, before + 0.5)
    torch.testing.assert_close(model.weight, before + 1.0)
    assert list(average.shadow) == ["weight"]


def test_streaming_kmeans_finds_separated_clusters() -> None:
    truth = torch.eye(4) * 10
    generator = torch.Generator().manual_seed(0)
    clusters = StreamingKMeans(4, start_after=400, generator=torch.Generator().manual_seed(1))
    clusters.means = truth + torch.randn(4, 4, generator=generator)  # from random points Lloyd may merge two
    for _ in range(40):
        index = torch.randint(4, (50,), generator=generator)
        clusters.add(truth[index] + 0.1 * torch.randn(50, 4, generator=generator))
    assert torch.cdist(truth, clusters.centres()).amin(1).max() < 0.1
    assert not clusters.waiting
    points = torch.randn(30, 4)
    started = StreamingKMeans(4, start_after=400, generator=torch.Generator().manual_seed(1))
    started.add(points)
    assert started.centres().shape == (4, 4)


def test_codebooks_are_not_averaged_twice() -> None:
    """They are moving averages of latents already: validation and export take them as they stand."""
    codec = tiny_codec(semantic_dim=6)
    average = WeightAverage(codec, 0.5)
    assert {name for name in average.shadow if name.startswith("quantizer.books")} == {
        "quantizer.books.0.map.weight",
        "quantizer.books.0.map.bias",
    }
    assert set(average.shadow) == {name for name, _ in codec.named_parameters()}
    start = {key: value.clone() for key, value in codec.state_dict().items()}
    with torch.no_grad():
        for value in codec.state_dict().values():
            value += 1.0
    average.update(100)
    learnt = set(dict(codec.named_parameters()))
    with average.applied():
        for key, value in codec.state_dict().items():
            torch.testing.assert_close(value, start[key] + (0.5 if key in learnt else 1.0), msg=key)
    for key, value in codec.state_dict().items():
        torch.testing.assert_close(value, start[key] + 1.0, msg=key)


def staged_codec(stage: int | None, *overrides: str, **changes: object) -> StagedCodec:
    settings = [f"stage={stage or 'null'}", "ar.width=16", "ar.layers=1", *overrides]
    cfg = compose("codec_train", settings)
    return StagedCodec(tiny_codec(**changes), cfg).train()


def other_losses(staged: StagedCodec, result: Pass, wav: torch.Tensor) -> dict[str, torch.Tensor]:
    return OtherLosses(result, wav, staged, Accelerator(cpu=True), compose("codec_train", []).loss, []).all()


@pytest.mark.slow
def test_stage_one_learns_through_a_bridge_between_ends_of_unequal_widths() -> None:
    staged = staged_codec(1, "loss.mae=1", decoder_dim=24)
    before = {key: value.clone() for key, value in staged.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(staged, 0.01), lr=3e-3)
    t = torch.arange(320 * 6 * 6) / 24_000
    wav = torch.stack([0.3 * torch.sin(2 * torch.pi * hertz * t) for hertz in (200, 440)])
    found = []
    for step in range(12):
        result = staged(wav, 6, masking=(0.25, torch.Generator().manual_seed(step)))
        loss = spectral_losses(result.wav, wav, 24_000, Resolution(512, 64))["mel"]
        (loss + other_losses(staged, result, wav)["mae"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < 0.8 * found[0]
    moved = {key for key, value in staged.state_dict().items() if not torch.equal(before[key], value)}
    assert {".".join(key.removeprefix("codec.").split(".")[:1]) for key in moved} == {
        "patchify",
        "bridge",
        "unpatchify",
        "mae",
    }
    assert {"bridge.weight", "bridge.bias"} <= staged.objectives().keys(), "a resumed run needs it"
    assert not any("bridge" in key for key in staged.codec.state_dict()), "nothing of it is exported"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_codecs_of_one_and_of_eight_levels_train(count: int) -> None:
    staged = staged_codec(None, "loss.ar=1", codebook_sizes=(32,) * count, excitation=False)
    wav = 0.1 * torch.randn(2, 320 * 6 * 10)
    for levels in (None, *range(1, count)):
        staged.zero_grad(set_to_none=True)
        before = [book.embed.clone() for book in staged.codec.quantizer.books]
        result = staged(wav, 6, levels)
        inner = other_losses(staged, result, wav)
        staged.codec.quantizer.finish_step([result.quantized], torch.Generator().manual_seed(0))
        (result.wav.square().mean() + inner["commitment"] + inner["ar"]).backward()
        missing = {name for name, p in staged.named_parameters() if p.grad is None}
        assert not missing, f"{missing}: several processes would wait for their gradients"
        assert staged.codec.quantizer.project_in.weight.grad.abs().sum() > 0
        predictable = (levels or count) > 1
        assert inner["ar"] > 0 if predictable else inner["ar"] == 0, "one level leaves nothing to predict"
        moved = [not torch.equal(b.embed, old) for b, old in zip(staged.codec.quantizer.books, before, strict=True)]
        assert moved == [level < (levels or count) for level in range(count)]
