"""The paper's two stages through the command: what is frozen, what is exported, exact resume of every part."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.averaging import WeightAverage
from codec.semantic_prior import StreamingKMeans

sys.path.insert(0, str(Path(__file__).parent))
from test_train import REPOSITORY, TINY, losses, write_corpus  # noqa: E402

PARTS = [
    "codec.patchify=conv",
    "codec.conv_filters=2",
    "codec.window_basis=0",
    "codec.semantic_dim=6",
    "gan.start=2",
    "gan.sizes=[64,256]",
    "gan.channels=[8,8]",
    "gan.crop_seconds=0.2",
    "gan.update_share=0.7",
    "trainer.ema=0.9",
    "trainer.max_steps=8",
    "loss.mae=1",
    "loss.ar=1",
    "ar.width=16",
    "ar.layers=1",
]


def run(cwd: Path, *extra: str, status: int = 0) -> str:
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), f"data.root={cwd / 'corpus'}", *TINY, *PARTS, *extra]
    result = subprocess.run(
        command,
        cwd=cwd,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + (result.stderr if status else "")


@pytest.mark.slow
def test_two_stages_and_exact_resume(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    save_file({"centres": torch.randn(16, 6)}, tmp_path / "centres.safetensors")
    run(tmp_path, "name=one", "stage=1")
    one = load_file(tmp_path / "runs/one/final/model.safetensors")
    stage_two = ["stage=2", "init=runs/one/final", "gan.balancer=true", "trainer.accumulate=2"]
    stage_two += ["semantic_centres=centres.safetensors", "trainer.quantize_from=3"]
    run(tmp_path, "name=two", *stage_two)
    two = load_file(tmp_path / "runs/two/final/model.safetensors")

    assert one.keys() == two.keys()
    assert not any(key.startswith(("mae", "ar.", "bridge", "discriminator")) for key in two)
    changed = {key.split(".")[0] for key in two if not torch.equal(one[key], two[key])}
    assert changed == {"query", "mask", "encoder", "decoder", "quantizer", "unpatchify"}, "patchify must stay"
    centres = load_file(tmp_path / "centres.safetensors")["centres"]
    assert torch.equal(two["quantizer.books.0.centres"], centres)
    records = [json.loads(line) for line in (tmp_path / "runs/two/log.jsonl").read_text().splitlines()]
    seen = set().union(*records)
    assert {"adversarial", "features", "discriminator", "ar", "prior", "commitment", "mel"} <= seen
    assert "mae" not in seen

    shutil.copytree(tmp_path / "runs/two", tmp_path / "runs/cut")
    shutil.rmtree(tmp_path / "runs/cut/checkpoints/step_0000008")
    shutil.rmtree(tmp_path / "runs/cut/final")
    assert "resumed from" in run(tmp_path, "name=cut", *stage_two)
    assert losses(tmp_path / "runs/cut") == losses(tmp_path / "runs/two")
    again = load_file(tmp_path / "runs/cut/final/model.safetensors")
    assert all(torch.equal(again[key], two[key]) for key in two)
    parts = [tmp_path / f"runs/{n}/checkpoints/step_0000008/adversary.pt" for n in ("two", "cut")]
    a, b = (torch.load(part, weights_only=True)["model"] for part in parts)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["stage=2"], "stage=2 needs init"),
        (["stage=3"], "neither null, 1 nor 2"),
        (["stage=1", "init=somewhere"], "init=somewhere: there is no model.safetensors"),
        (["init=somewhere"], "init=somewhere: there is no model.safetensors"),
    ],
)
def test_impossible_starts_are_refused(tmp_path: Path, extra: list[str], reason: str) -> None:
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), *extra]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and reason in result.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_trained_codec_goes_on_with_its_codebooks(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    short = ["codec.patchify=stft", "codec.window_basis=5", "codec.semantic_dim=0", "gan.start=null", "loss.ar=0"]
    short += ["loss.mae=0", "trainer.ema=0", "trainer.max_steps=8"]
    run(tmp_path, "name=first", *short)
    first = tmp_path / "runs/first/final"
    text = run(tmp_path, "name=again", f"init={first}", *short, "trainer.max_steps=1", "trainer.learning_rate=0")
    assert "k-means" not in text
    before, after = (load_file(tmp_path / f"runs/{name}/final/model.safetensors") for name in ("first", "again"))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.startswith("quantizer.books")}, "the codebooks follow from step 0"
    assert all((before[key] - after[key]).abs().max() < 0.5 for key in moved if key.endswith("embed"))
    other = run(tmp_path, "name=other", f"init={first}", *short, "codec.encoder_dim=24", status=2)
    assert "init=" in other and "encoder_dim" in other.splitlines()[-1] and "Traceback" not in other


@pytest.mark.slow
def test_stages_warm_start_from_a_codec_without_semantic_centres(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    short = ["gan.start=null", "trainer.ema=0", "trainer.max_steps=4", "trainer.quantize_from=1"]
    run(tmp_path, "name=first", *short, "codec.semantic_dim=0", "loss.ar=0", "loss.mae=0")
    still = [*short, "trainer.max_steps=1", "trainer.learning_rate=0"]
    run(tmp_path, "name=one", "stage=1", f"init={tmp_path / 'runs/first/final'}", *still)
    save_file({"centres": torch.randn(16, 6)}, tmp_path / "centres.safetensors")
    centres = "semantic_centres=centres.safetensors"
    text = run(tmp_path, "name=two", "stage=2", "init=runs/one/final", centres, *short)
    assert "k-means" in text, "stage 2 begins with codebooks of its own"
    first, one, two = (load_file(tmp_path / f"runs/{name}/final/model.safetensors") for name in ("first", "one", "two"))
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
