"""A training of a codec of seconds: its corpus, its options, and the run in this process or in one of its own."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from json_files import read_lines, write_lines
from programs import TINY_CODEC, run_program
from safetensors.torch import load_file

from training.config import REPOSITORY

TINY = [
    *TINY_CODEC,
    "threads=1",
    "trainer.quantize_from=6",
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
    write_lines(root / "metadata.jsonl", rows)
    return root


def launcher(processes: int) -> list[str]:
    """``accelerate launch`` of so many processes, with every setting named."""
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]  # the launcher for several processes, also without GPUs
    return [*command, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


def start(name: str, *more: str) -> subprocess.Popen:
    """A training in a process of its own, to be killed."""
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), f"name={name}", "data.root=corpus", *TINY, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def train(name: str, *more: str) -> dict[str, torch.Tensor]:
    """Trains runs/<name> on the corpus of the working folder, in this process; the weights that it exports."""
    run_program("codec_train", f"name={name}", "data.root=corpus", *TINY, *more)
    return load_file(f"runs/{name}/final/model.safetensors")


def cut_short(name: str) -> None:
    """runs/cut: runs/<name> as it was before its last checkpoint, of step 8."""
    shutil.copytree(f"runs/{name}", "runs/cut")
    shutil.rmtree("runs/cut/checkpoints/step_0000008")
    shutil.rmtree("runs/cut/final")


def wait_for_steps(name: str, steps: int) -> None:
    log, deadline = Path(f"runs/{name}/log.jsonl"), time.monotonic() + 200
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) >= steps):
        time.sleep(0.02)


def losses(name: str) -> dict[int, float]:
    lines = read_lines(f"runs/{name}/log.jsonl")
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and not {key for key in a if not torch.equal(a[key], b[key])}
