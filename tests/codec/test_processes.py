"""Two processes learn what one learns from the same global batch: crops, masks, k-means start, codebooks, weights.

The quantiser works from the first step: k-means on latents that differ in their last digits may end elsewhere, and what
follows would say nothing.
"""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import REPOSITORY, TINY, launcher, losses, train

sys.path.insert(0, str(Path(__file__).parent))
from codebook_worker import quantizer, updated  # noqa: E402

EVERYTHING = [
    "codec.excitation=true",
    "codec.tonal=true",
    "trainer.max_steps=10",
    "trainer.default_window_share=0.5",
    "trainer.quantize_from=0",
    "trainer.init_batches=10",
    "codec.dead_code_share=0.5",  # so that codes are re-seeded in these few steps
    "loss.mae=1",
    "loss.ar=1",
    "ar.width=16",
    "ar.layers=1",
    "gan.start=6",
    "gan.sizes=[64,256]",
    "gan.channels=[8,8]",
    "gan.crop_seconds=0.2",
    "gan.balancer=true",
    "trainer.ema=0.9",
]
# Euclidean distance of all weights. Sums over a batch are taken in another order; Adam divides by the gradient's size,
# so the smallest gradients tell. Measured 4e-3 (3e-4 without tones, whose spectral peaks may move
# to the next bin), and 2.5 to a training with half of the batch.
TOLERANCE = 0.02
# A latent between two codes may fall to the other one: 0.01 of a count at decay 0.99.
FLIPS = 0.05


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], keys: set[str]) -> float:
    return sum(float((a[key] - b[key]).square().sum()) for key in keys) ** 0.5


def assert_alike(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    books = {key for key in one if key.startswith("quantizer.books")}
    assert distance(one, two, one.keys() - books) < TOLERANCE
    assert max(float((one[key] - two[key]).abs().max()) for key in books) < FLIPS


# gains weigh all numbers alike; by weights that differ from clip to clip, a batch is not the mean of its halves
FLOW = [
    "stage=3",
    "init=runs/base/final",
    "flow.target=gains",
    "flow.dim=16",
    "flow.layers=1",
    "flow.regression_steps=3",
    "flow.random_codes=0.2",
    "flow.condition_dropout=0.3",
    "trainer.max_steps=10",
    "trainer.ema=0.9",
]


@pytest.mark.slow
@pytest.mark.parametrize("options", [EVERYTHING, FLOW], ids=["everything", "flow"])
def test_two_processes_learn_what_one_learns(options: list[str], place: Path) -> None:
    if options is FLOW:
        train("base", "trainer.max_steps=8")
    one = train("one", *options, "trainer.batch_size=4")
    command = [*launcher(2), str(REPOSITORY / "codec/train.py"), "name=two", "data.root=corpus", *TINY, *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert_alike(one, load_file("runs/two/final/model.safetensors"))
    smaller = train("smaller", *options)
    learnt = {key for key in one if not key.startswith("quantizer.books")}
    assert distance(one, smaller, learnt) > 1.0, "a test that half of the batch would pass says nothing"
    assert len(losses("two")) == 10


@pytest.mark.slow
def test_accumulated_batches_teach_what_one_large_batch_does(place: Path) -> None:
    """The balancer is left out: the averages of its norms move with each batch."""
    plain = [*EVERYTHING, "gan.balancer=false"]
    whole = train("whole", *plain, "trainer.batch_size=4")
    assert_alike(whole, train("parts", *plain, "trainer.accumulate=2"))
    judges = [f"runs/{name}/checkpoints/step_0000010/adversary.pt" for name in ("whole", "parts")]
    one, two = (torch.load(judge, weights_only=True)["model"] for judge in judges)
    assert distance(one, two, set(one)) < TOLERANCE


@pytest.mark.slow
def test_codebooks_learn_from_the_latents_of_all_processes(tmp_path: Path) -> None:
    """The statistics of half of the batch, or seeds that differ, would let the replicas drift apart."""
    rvq = quantizer()
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(16, 4, generator=generator)
    places[12:] += 100  # no latent is near these: they are re-seeded, with latents of any process
    rvq.books[0].set_codes(places, 4.0)
    batches = torch.randn(6, 64, 4, generator=generator)
    torch.save({"quantizer": rvq.state_dict(), "batches": batches}, tmp_path / "updates.pt")
    worker = str(Path(__file__).with_name("codebook_worker.py"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([sys.executable, worker, str(tmp_path), str(rank)], **pipes) for rank in (0, 1)]
    for process in both:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output

    half = copy.deepcopy(rvq)
    one = updated(rvq, batches)
    assert one["reseeded"].tolist()[:3] == [0, 0, 4]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank-{rank}.pt")
        assert torch.equal(found["reseeded"], one["reseeded"])
        for name in ("embed", "counts", "sums"):
            torch.testing.assert_close(found[name], one[name], atol=2e-6, rtol=1e-5)
    alone = updated(half, batches.chunk(2, dim=1)[0])
    assert (alone["embed"] - one["embed"]).abs().max() > 0.1, "half of the batch would not have told"
