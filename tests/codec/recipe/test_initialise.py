"""What a training begins with: a sample of bounded size, the same for any number of processes, in bounded memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tiny_models import tiny_codec
from torch.utils._python_dispatch import TorchDispatchMode

from codec.model import ALMTokenizer
from codec.network.patchify import mean_and_deviation
from codec.network.quantizer import SemanticCodebook, nearest
from codec.recipe.initialise import calibrate, check_kmeans, initialise_codebooks, reopen_space
from codec.train import train_codec
from training.config import ConfigError, compose

CROP = 7 * 320 * 6  # seven windows, and a rest that is left away


class Noise:
    """A sampler whose crops are noise that depends on (step, item); counts what was drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int]] = []

    def batch(self, step: int, first: int, size: int, samples: int) -> tuple[torch.Tensor, list]:
        self.drawn += [(step, first + i) for i in range(size)]
        crops = [np.random.default_rng([step, first + i]).standard_normal(samples) for i in range(size)]
        return torch.from_numpy(np.stack(crops)).float() * 0.1, []


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        found = [x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *found])
        return out


def configuration(batch: int, batches: int) -> DictConfig:
    return compose("codec_train", [f"trainer.batch_size={batch}", f"trainer.init_batches={batches}"])


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr("training.processes.place", lambda: (rank, world))
    monkeypatch.setattr("training.processes.rows", lambda x: x)


def normalisation(core: ALMTokenizer) -> torch.Tensor:
    return torch.cat([core.patchify.mean, core.patchify.scale, core.unpatchify.spectra.bias.detach()])


@pytest.mark.slow
@pytest.mark.parametrize("patchify", ["stft", "conv"])
def test_64_processes_calibrate_with_as_much_audio_as_8(monkeypatch: pytest.MonkeyPatch, patchify: str) -> None:
    drawn = {}
    for world in (1, 8, 64):
        as_rank(monkeypatch, 0, world)
        sampler, core = Noise(), tiny_codec(patchify=patchify, conv_filters=2)
        with Largest() as seen:
            calibrate(core, sampler, configuration(4, 4), CROP + 100)
        drawn[world] = len(sampler.drawn)
        assert seen.elements < 32 * 7 * 6 * 2000, "never the features of more than one step"
    assert drawn == {1: 64, 8: 512, 64: 512}, "the global batch of 16 steps, up to 32 crops of each"


def test_the_processes_calibrate_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank, batch in ((0, 2), (1, 2)):
        as_rank(monkeypatch, rank, 2)
        core = tiny_codec()
        calibrate(core, Noise(), configuration(batch, 4), CROP)
        found.append(normalisation(core))
    as_rank(monkeypatch, 0, 1)
    alone = tiny_codec()
    calibrate(alone, Noise(), configuration(4, 4), CROP)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], normalisation(alone))
    audio = torch.cat([Noise().batch((1 << 29) + i, 0, 4, CROP)[0] for i in range(16)])
    features = alone.patchify.features(audio).flatten(0, 1)  # all at once
    torch.testing.assert_close(alone.patchify.mean, features.mean(0))
    torch.testing.assert_close(alone.patchify.scale, 1 / features.std(0).clamp(min=0.1))


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = torch.randn(1000, 5) * torch.tensor([1.0, 0.01, 3.0, 1.0, 0.0]) - 5
    mean, deviation = mean_and_deviation(x.split([1, 300, 699]))
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(deviation, x.double().std(0), atol=1e-7, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 3, 8])
def test_latents_of_the_codebooks_are_bounded_and_shared_out(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """Rank after rank they are the latents that one process takes from the same global batch."""
    monkeypatch.setattr("codec.recipe.initialise.LATENTS", 600)
    batches, whole, core = 12, 192, tiny_codec()
    taken: list[torch.Tensor] = []
    monkeypatch.setattr("codec.network.quantizer.ResidualQuantizer.initialise", lambda self, x, *_: taken.append(x))
    of_rank = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        sampler = Noise()
        count = initialise_codebooks(core, sampler, configuration(whole // world, batches), 3, CROP)
        assert count == 7 * len(sampler.drawn) <= -(-batches // world) * 50
        of_rank.append(sampler.drawn)
    everything = [crop for drawn in of_rank for crop in drawn]
    assert everything == [((1 << 30) + i, item) for i in range(batches) for item in range(600 // (batches * 7))]
    as_rank(monkeypatch, 0, 1)
    initialise_codebooks(core, Noise(), configuration(whole, batches), 3, CROP)
    torch.testing.assert_close(torch.cat(taken[:-1]), taken[-1])


def test_what_one_process_took_before_it_takes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """No preset reaches the bound alone: all crops of all steps, in this order."""
    sampler = Noise()
    core = tiny_codec()
    count = initialise_codebooks(core, sampler, configuration(4, 6), 3, CROP)
    assert sampler.drawn == [((1 << 30) + i, item) for i in range(6) for item in range(4)]
    assert count == 6 * 4 * 7
    assert all(float(book.counts.sum()) == pytest.approx(4 * 7) for book in core.quantizer.books), "latents of a step"


@pytest.mark.slow
def test_distances_are_never_all_in_memory() -> None:
    """40,000 latents to 2048 codes are 82 million; what is chosen is what all at once would choose."""
    generator = torch.Generator().manual_seed(0)
    x, codes = torch.randn(40_000, 4, generator=generator), torch.randn(2048, 4, generator=generator)
    semantic = SemanticCodebook(2048, 4, 4)
    with Largest() as seen, torch.no_grad():
        index, direction = nearest(x, codes), semantic.assign(x)
    assert seen.elements <= 1 << 25
    tail = x[-3000:]
    assert torch.equal(index[-3000:], torch.cdist(tail.double(), codes.double()).argmin(1))
    chosen = torch.nn.functional.normalize(semantic.embed, dim=1)
    tail = torch.nn.functional.normalize(tail, dim=1)
    assert torch.equal(direction[-3000:], (tail.double() @ chosen.double().T).argmax(1))
    assert nearest(x[:0], codes).shape == (0,)


@pytest.mark.parametrize("world", [1, 3])
def test_too_few_latents_for_kmeans_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: int
) -> None:
    """At the very number at which k-means itself would refuse, so that no training is stopped at ``quantize_from``."""
    as_rank(monkeypatch, 0, world)
    core, size = tiny_codec(), 500
    core.config.codebook_sizes = [16, size]
    per_batch = 2 * world * 7  # crops of all processes, windows of each
    least = -(-size // per_batch)
    check_kmeans(configuration(2, least), core.config, CROP)
    with pytest.raises(ConfigError):
        check_kmeans(configuration(2, least - 1), core.config, CROP)
    said = capsys.readouterr().err
    assert f"trainer.init_batches={least - 1} gives k-means {(least - 1) * per_batch} latents for" in said
    assert said.rstrip().endswith(f"trainer.init_batches must be at least {least}.")


def test_the_training_asks_before_it_reads_a_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["device=cpu", "trainer.init_batches=1", "trainer.batch_size=1", "data.root=nowhere"]
    assert "trainer.init_batches must be at least" in refusal(train_codec, compose("codec_train", options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("power", "pitch"), [(0.5, True), (1.0, False), (0.0, True)])
def test_a_space_made_anew_says_what_the_queries_hold(
    power: float, pitch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each axis with its variance to the power, the decoder hears what it heard, and the pitch is said as before."""
    monkeypatch.setattr("codec.recipe.initialise.REOPENING_STEPS", 20)
    torch.manual_seed(0)
    core = tiny_codec(encoder_dim=16, code_dim=16, pitch_input=pitch).eval()
    calibrate(core, Noise(), configuration(4, 4), CROP)
    core.quantizer.initialise(torch.randn(5000, 16), 4.0, 2, torch.Generator().manual_seed(0))
    core.quantizer.project_in.weight.data[:12] *= 1e-3  # a space that has shrunk: four axes are left
    audio = torch.cat([Noise().batch((1 << 29) + step, 0, 4, CROP)[0] for step in range(20)])

    def passed() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            out = core.quantizer(core.encode_latents(audio, core.window), bypass=True)
        return out.inputs.flatten(0, 1), out.latents.flatten(0, 1)

    (space, heard), queries = passed(), core.encode_latents(audio, core.window).flatten(0, 1).double().detach()
    before = torch.linalg.eigvalsh(torch.cov(space.T))
    assert before[11] < 1e-3 * before[12]
    cfg = compose("codec_train", ["trainer.batch_size=4", f"reopen={power}", f"loss.pitch_axis={int(pitch)}"])
    lost = reopen_space(core, Noise(), cfg, CROP)
    new_space, new_heard = passed()
    assert not core.quantizer.begun
    assert lost < 1e-3
    torch.testing.assert_close(new_heard, heard, atol=0.05 * float(heard.std()), rtol=0)
    free = new_space[:, : 16 - pitch]
    if pitch:
        torch.testing.assert_close(new_space[:, -1], space[:, -1])
        assert torch.corrcoef(new_space.T)[-1, :-1].abs().max() < 1e-3, "nothing says the pitch twice"
        fit = torch.cat([space[:, -1:].double(), torch.ones(len(space), 1).double()], 1)
        queries = queries - fit @ torch.linalg.lstsq(fit, queries).solution
    variance = torch.linalg.eigvalsh(torch.cov(queries.T)).flip(0)[: free.shape[1]]
    expected = torch.diag(variance**power / variance[0] ** power).float()
    torch.testing.assert_close(torch.cov(free.T), expected, atol=2e-3, rtol=1e-2)


def test_a_damaged_codec_cannot_be_opened_and_a_dead_pitch_axis_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("codec.recipe.initialise.REOPENING_STEPS", 4)
    cfg = compose("codec_train", ["trainer.batch_size=4", "reopen=0.5", "init=mine", "loss.pitch_axis=1"])
    core = tiny_codec()
    core.quantizer.project_in.weight.data[-1] = 0
    reopen_space(core, Noise(), cfg, CROP)
    assert core.quantizer.project_in.weight.isfinite().all() and not core.quantizer.project_in.weight[-1].any()
    core.quantizer.project_in.weight.data[0, 0] = float("nan")
    with pytest.raises(ConfigError):
        reopen_space(core, Noise(), cfg, CROP)
    assert "init=mine: what its queries hold is NaN or infinite" in capsys.readouterr().err
