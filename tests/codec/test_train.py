"""Codec training: exact resume after kill -9, data order from (seed, step), refusal of bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.corpus import Clip
from codec.recipe.crops import CropSampler
from codec.train import train_codec
from training.checkpoint import CheckpointError
from training.config import compose

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = [
    "device=cpu",
    "threads=1",
    "codec.encoder_dim=16",
    "codec.decoder_dim=16",
    "codec.encoder_layers=1",
    "codec.decoder_layers=1",
    "codec.head_dim=8",
    "codec.code_dim=4",
    "codec.codebook_sizes=[16,16,16]",
    "codec.analysis_ffts=[640]",
    "codec.synthesis_fft=640",
    "trainer.batch_size=2",
    "trainer.crop_seconds=0.6",
    "trainer.quantize_from=6",
    "trainer.init_batches=4",
    "trainer.log_every=1",
    "trainer.save_every=4",
    "trainer.valid_every=1000",
]


def write_corpus(root: Path, clips: int = 6) -> Path:
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(clips):
        t = np.arange(int(24000 * rng.uniform(0.3, 1.0))) / 24000
        wav = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 400) * t * (1 + 0.1 * t)) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(root / f"{i}.wav", wav, 24000)
        split = "valid" if i == 0 else "train"
        rows.append({"file_name": f"{i}.wav", "id": str(i), "domain": "speech", "text": "x", "split": split})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def launcher(processes: int) -> list[str]:
    """``accelerate launch`` of so many processes, with every setting named."""
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]  # the launcher for several processes, also without GPUs
    return [*command, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


def start(cwd: Path, corpus: Path, name: str, steps: int, *more: str) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), f"name={name}", f"data.root={corpus}", *TINY]
    command += [f"trainer.max_steps={steps}", *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def losses(run_dir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    whole = start(tmp_path, corpus, "whole", 14)
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output

    killed = start(tmp_path, corpus, "killed", 14)
    log = tmp_path / "runs/killed/log.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) >= 9):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "runs/killed/final").exists()
    again = start(tmp_path, corpus, "killed", 14)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert "resumed from" in output

    assert losses(tmp_path / "runs/killed") == losses(tmp_path / "runs/whole")
    a, b = (load_file(tmp_path / f"runs/{n}/final/model.safetensors") for n in ("whole", "killed"))
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.slow
def test_bf16_and_compiled_training_learn_as_plain_training_does(tmp_path: Path) -> None:
    """Compiled: the same to rounding; bf16: to the digits that its products have. What is saved has the same form."""
    corpus = write_corpus(tmp_path / "corpus")
    runs = {"plain": ([], 0.0), "bf16": (["precision=bf16"], 0.05), "compiled": (["trainer.compile=true"], 1e-3)}
    if not shutil.which("g++"):
        del runs["compiled"]  # torch.compile needs it on a CPU
    for name, (more, _) in runs.items():
        process = start(tmp_path, corpus, name, 8, *more)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    plain = losses(tmp_path / "runs/plain")
    saved = {name: load_file(tmp_path / f"runs/{name}/final/model.safetensors") for name in runs}
    for name, (more, tolerance) in runs.items():
        assert losses(tmp_path / f"runs/{name}") == pytest.approx(plain, rel=tolerance)
        assert {k: (v.shape, v.dtype) for k, v in saved[name].items()} == {
            k: (v.shape, v.dtype) for k, v in saved["plain"].items()
        }
        assert not more or any(not torch.equal(v, saved["plain"][k]) for k, v in saved[name].items())


@pytest.mark.slow
def test_a_run_goes_on_only_with_options_that_fit_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)

    def go_on(steps: int, *more: str) -> str:
        settings = [f"data.root={corpus}", *TINY, f"trainer.max_steps={steps}", *more]
        train_codec(compose("codec_train", ["name=run", *settings]))
        return capsys.readouterr().out

    go_on(2)
    settings = Path("runs/run/config.yaml").read_text()
    other = write_corpus(tmp_path / "other")
    for option in (
        "seed=7",
        "trainer.max_steps=3",  # the rate of every step follows from it
        "trainer.batch_size=3",
        "trainer.learning_rate=1e-4",
        "trainer.ema=0.9",
        "loss.mel=2.0",
        "loss.ar=1.0",
        "gan.start=0",
        "codec.encoder_layers=2",
        f"corpora=[{other}]",
    ):
        with pytest.raises(CheckpointError, match="was trained with other settings") as refused:
            go_on(2, option)
        named = "clips of the corpus" if option.startswith("corpora") else option.partition("=")[0]
        assert f"({named}" in str(refused.value) and "resume=none" in str(refused.value)
        assert Path("runs/run/config.yaml").read_text() == settings, "as the run was made"
    said = go_on(2, "trainer.log_every=7")
    assert "resumed from" in said and "trainer.log_every: " in said
    assert Path("runs/run/config-2.yaml").read_text() == settings
    said = go_on(2, "trainer.batch_size=1", "trainer.accumulate=2")
    assert "resumed from" in said, "as many crops per step"
    assert "moved to runs/run/aside-1" in go_on(2, "seed=7", "resume=none")


@pytest.mark.slow
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), "trainer.max_step=3"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "Did you mean 'trainer.max_steps'?" in result.stderr
    assert not (tmp_path / "runs").exists()


class Recorder:
    """A tracker that remembers."""

    def __init__(self, *_: object) -> None:
        self.sent: dict[str, set] = {"scalars": set(), "audio": set(), "picture": set()}

    def scalars(self, step: int, values: dict[str, float], group: str = "train") -> None:
        self.sent["scalars"] |= {f"{group}/{name}" for name in values}

    def audio(self, step: int, name: str, wav: np.ndarray, sample_rate: int) -> None:
        assert len(wav) > 1000 and sample_rate == 24000
        self.sent["audio"].add((step, name))

    def picture(self, step: int, name: str, path: Path) -> None:
        assert path.is_file()
        self.sent["picture"].add((step, name))

    def close(self) -> None:
        self.sent["closed"] = set()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [None, 1])
def test_validations_are_logged_and_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int | None) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recorder = Recorder()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codec.train.Tracker", lambda *_: recorder)
    stages = ["stage=1", "codec.decoder_dim=24", "trainer.ema=0.9"] if stage else []  # two widths: with a bridge
    overrides = [*TINY, f"data.root={corpus}", "name=seen", "trainer.valid_every=1", "trainer.max_steps=2", *stages]
    train_codec(compose("codec_train", overrides))
    records = [json.loads(line) for line in (tmp_path / "runs/seen/log.jsonl").read_text().splitlines()]
    scores = {name for record in records for name in record if name.startswith("valid_")}
    codes = {f"valid_{name}_{level}" for name in ("usage", "perplexity") for level in (1, 2, 3)}
    assert {"valid_stoi", "valid_mel", "valid_stft"} <= scores
    assert codes & scores == (set() if stage else codes), "stage 1 has no codes"
    assert recorder.sent["audio"] == {(1, "0"), (2, "0")}
    assert recorder.sent["picture"] == {(1, "spectrograms"), (2, "spectrograms")}
    assert {"train/loss", "train/mel", "train/grad_norm", "valid/stoi", "valid/mel"} <= recorder.sent["scalars"]
    assert "closed" in recorder.sent


def clips_of(root: Path) -> list[Clip]:
    write_corpus(root)
    return [Clip(str(i), root / f"{i}.wav", "x", [], None, "speech", "train", None) for i in range(6)]


def test_crops_depend_on_seed_and_step_only(tmp_path: Path) -> None:
    clips = clips_of(tmp_path / "c")
    one, two = (CropSampler(clips, 24000, {"speech": 1.0}, (-8, 4), seed=3) for _ in range(2))
    two.batch(0, 0, 4, 20_000)  # another history
    a, files = one.batch(7, 0, 4, 20_000)
    b, _ = two.batch(7, 0, 4, 20_000)
    assert torch.equal(a, b) and a.shape == (4, 20_000)
    assert torch.equal(two.batch(7, 2, 2, 20_000)[0], a[2:]), "two processes must share the global batch"
    assert not torch.equal(one.batch(8, 0, 4, 20_000)[0], a)
    assert a.abs().max() <= 1 and set(files) <= {clip.path for clip in clips}


def test_unreadable_audio_is_skipped_and_remembered(tmp_path: Path) -> None:
    clips = clips_of(tmp_path / "c")
    (tmp_path / "c" / "2.wav").write_text("not audio")
    sampler = CropSampler(clips, 24000, {"speech": 1.0}, (0, 0), seed=0)
    for step in range(20):
        sampler.batch(step, 0, 2, 30_000)
    assert list(sampler.rejected) == [str(tmp_path / "c" / "2.wav")]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"music": 1.0}, r"names no share for clips of the corpus \(1 of domain noise, 6 of domain speech\)"),
        ({"speech": 1.0, "music": 1.0}, r"\(1 of domain noise\): give one with \+trainer.domain_weights.noise=0.1"),
        ({"speech": 0.0, "noise": 0.0}, "no clip has a domain with a share"),
    ],
)
def test_every_domain_has_a_share_or_is_left_out_by_name(
    weights: dict[str, float], reason: str, tmp_path: Path
) -> None:
    clips = [*clips_of(tmp_path / "c"), Clip("n", tmp_path / "c" / "0.wav", domain="noise")]
    with pytest.raises(ValueError, match=reason):
        CropSampler(clips, 24000, weights, (0, 0), seed=0)
    assert CropSampler(clips, 24000, {"speech": 1.0, "noise": 0.0}, (0, 0), seed=0).domains == ["speech"]
