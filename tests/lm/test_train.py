"""Training: exact resume, SIGTERM, refusals, and the exported model."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from programs import records, train_lm
from tiny_training import launcher
from transformers import AutoModelForCausalLM

from lm.model import load_lm
from lm.recipe.token_rows import TokenRowsError
from lm.run_state import learning_rate, longest_texts_of, normalisation_of, speakers_of
from lm.sequences.vocabulary import VocabularyError
from lm.train import NonFiniteLoss
from tasks.base import TaskError
from training.checkpoint import CheckpointError, list_checkpoints, save_folder
from training.config import REPOSITORY, ConfigError, compose


def curve(folder: Path, kind: str = "loss") -> dict[int, float]:
    return {r["step"]: r[kind] for r in records(folder / "runs/tiny") if kind in r}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder / "runs/tiny/final").state_dict()


def assert_same_run(first: Path, second: Path) -> None:
    for kind in ("loss", "loss_3", "grad_norm", "valid_loss", "valid_gap"):
        assert curve(first, kind) == curve(second, kind), kind
    a, b = weights(first), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture
def reference(uninterrupted, overrides, monkeypatch):
    """A run of 12 steps that nothing interrupts."""
    if not (uninterrupted / "runs/tiny/final").exists():
        with monkeypatch.context() as there:
            there.chdir(uninterrupted)
            train_lm(*overrides)
    return uninterrupted


@pytest.mark.slow
def test_training_learns_and_exports_a_plain_model(reference, monkeypatch, capsys, overrides):
    losses = curve(reference)
    assert sorted(losses) == list(range(1, 13))
    assert losses[12] < losses[1] - 0.2
    assert set(curve(reference, "valid_gap")) == {0, 5, 10, 12}
    model, vocabulary, tokenizer = load_lm(reference / "runs/tiny/final")
    assert type(model).__name__ == "LlamaForCausalLM" and vocabulary.tokenizer["name"] == "stand-in"
    assert len(list_checkpoints(reference / "runs/tiny")) == 2
    assert speakers_of(reference / "runs/tiny/final") == ["rms", "slt"]
    assert longest_texts_of(reference / "runs/tiny/final")["tts"] > 5
    # The same command again finds nothing to do and changes nothing.
    monkeypatch.chdir(reference)
    before = (reference / "runs/tiny/final/model.safetensors").stat().st_mtime_ns
    train_lm(*overrides)
    assert "nothing was to do" in capsys.readouterr().out
    assert (reference / "runs/tiny/final/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_stopped_run_continues_bit_for_bit(reference, overrides, tmp_path, monkeypatch):
    """Stops at a step that is no multiple of anything, also of the accumulation."""
    real = torch.optim.AdamW.step
    calls = []

    def step_and_stop(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step_and_stop)
    with pytest.raises(SystemExit) as stopped:
        train_lm(*overrides, "trainer.log_every=1")
    assert stopped.value.code == 143, "what was asked for is not done"
    assert not (tmp_path / "runs/tiny/final").exists()
    assert list_checkpoints(tmp_path / "runs/tiny")[-1].name == "step_0000005"
    train_lm(*overrides)
    assert_same_run(reference, tmp_path)


STOPPED_WITH_ALL = """
import os, subprocess, time, torch

step, calls = torch.optim.AdamW.step, []

def step_and_stop(self, *arguments, **options):
    calls.append(1)
    if len(calls) == 5:  # from outside: what a training itself sends ends its helpers peacefully
        subprocess.run(["sh", "-c", f"kill -TERM -{os.getpgrp()}"])
        time.sleep(0.5)
    return step(self, *arguments, **options)

torch.optim.AdamW.step = step_and_stop
from lm.train import main
main()
"""


@pytest.mark.slow
def test_a_signal_to_the_whole_group_leaves_the_processes_that_make_steps_alone(
    reference, overrides, stand_in_path, tmp_path
):
    """As a cluster's scheduler sends it."""
    command = [sys.executable, "-c", STOPPED_WITH_ALL, *overrides, "trainer.workers=2", "trainer.save_every=1000"]
    stopped = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert stopped.returncode == 143 and "Traceback" not in stopped.stderr, stopped.stderr
    assert "stopped by SIGTERM at step 5; the checkpoint is saved" in stopped.stdout
    train_lm(*overrides)
    assert_same_run(reference, tmp_path)


@pytest.mark.slow
def test_who_asks_while_the_final_folder_is_written_gets_it(reference, overrides, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def asked(path, write):
        signal.raise_signal(signal.SIGINT)
        return save_folder(path, write)

    monkeypatch.setattr("lm.recipe.run.save_folder", asked)
    train_lm(*overrides)
    assert_same_run(reference, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before  # another test may have left its own


@pytest.mark.slow
def test_a_run_that_died_before_its_first_checkpoint_has_each_line_once(reference, overrides, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("training.checkpoint.save_folder", lambda *_: 1 / 0)
        train_lm(*overrides)
    train_lm(*overrides)
    first, second = ([sorted(line) for line in records(folder / "runs/tiny")] for folder in (reference, tmp_path))
    assert first == second
    assert_same_run(reference, tmp_path)


@pytest.mark.slow
def test_muon_learns_and_continues_bit_for_bit(overrides, tmp_path, monkeypatch):
    options = [*overrides, "trainer.optimiser=muon", "trainer.log_every=4"]
    for name in ("straight", "cut"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "straight")
    train_lm(*options)
    losses = curve(tmp_path / "straight")
    assert sorted(losses) == [4, 8, 12] and losses[12] < losses[4]
    monkeypatch.chdir(tmp_path / "cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.checkpoint.rotate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # dies right after its first checkpoint, between two log lines
            train_lm(*options)
    train_lm(*options)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


@pytest.mark.slow
def test_kill_minus_nine_at_a_random_step(reference, overrides, stand_in_path, tmp_path):
    command = [sys.executable, str(REPOSITORY / "lm/train.py"), *overrides]
    victim = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    log, last = tmp_path / "runs/tiny/log.jsonl", random.randint(1, 10)
    while victim.poll() is None:
        if log.exists() and any(f'"step": {last},' in line for line in log.read_text().splitlines()):
            victim.kill()
            break
        time.sleep(0.002)
    assert victim.wait() == -signal.SIGKILL, f"the run ended before it could be killed at step {last}"
    train_lm(*overrides)
    assert_same_run(reference, tmp_path)


@pytest.fixture
def two_processes(uninterrupted, overrides, stand_in_path):
    """A run of two processes (gloo) that nothing interrupts, and (folder, options) → None, which runs as many again."""
    launch = [*launcher(2), str(REPOSITORY / "lm/train.py")]
    options = [*overrides, "trainer.keep=1000", "trainer.micro_rows=1", "threads=1"]

    def run(folder: Path, *more: str) -> None:
        subprocess.run([*launch, *options, *more], cwd=folder, check=True, timeout=300)

    whole = uninterrupted / "two"
    if not (whole / "runs/tiny/final").exists():
        whole.mkdir(exist_ok=True)
        run(whole)
    return whole, options, run


def interrupt(folder: Path, step: int) -> None:
    """Leave of a run what a kill after the checkpoint of ``step`` leaves."""
    shutil.rmtree(folder / "runs/tiny/final")
    for checkpoint in list_checkpoints(folder / "runs/tiny"):
        if int(checkpoint.name.removeprefix("step_")) > step:
            shutil.rmtree(checkpoint)


@pytest.mark.slow
def test_two_processes_continue_bit_for_bit_also_with_workers(two_processes, tmp_path):
    whole, _, run = two_processes
    shutil.copytree(whole / "runs", tmp_path / "runs")
    interrupt(tmp_path, 3)
    run(tmp_path, "trainer.workers=2")
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_two_processes_train_like_one_and_one_goes_on(reference, two_processes, tmp_path, monkeypatch):
    """The same documents per step; sums in another order, so that weights agree within 1e-4 after twelve steps."""
    whole, options, _ = two_processes
    expected = weights(reference)

    def compare(folder: Path) -> None:
        for step, loss in curve(folder).items():
            assert loss == pytest.approx(curve(reference)[step], abs=1e-4)
        for name, value in weights(folder).items():
            torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-3)

    compare(whole)
    shutil.copytree(whole / "runs", tmp_path / "runs")
    interrupt(tmp_path, 6)  # one process goes on from the sixth step of the two
    monkeypatch.chdir(tmp_path)
    train_lm(*options)
    compare(tmp_path)


@pytest.mark.slow
def test_accumulation_does_not_change_the_run(reference, overrides, tmp_path):
    train_lm(*overrides, "trainer.micro_rows=1")
    for step, loss in curve(tmp_path).items():
        assert loss == pytest.approx(curve(reference)[step], abs=1e-4)


@pytest.mark.slow
def test_continues_from_trained_weights(reference, overrides, tmp_path, monkeypatch):
    init = f"init={reference}/runs/tiny/final"
    train_lm(*overrides, init, "trainer.max_steps=2", "trainer.lr=1e-5")
    assert curve(tmp_path, "valid_loss")[0] == pytest.approx(curve(reference, "valid_loss")[12], abs=1e-6)
    other = [*overrides, init, "name=other", "tokenizer._target_=another_tokenizer.load"]
    module = type(sys)("another_tokenizer")
    stand_in = sys.modules["stand_in_tokenizer"]

    class Another(stand_in.StandIn):
        name, fingerprint = "another", "b2" * 32

        def describe(self):
            return {**super().describe(), "name": self.name, "fingerprint": self.fingerprint}

    module.load = lambda **_: Another()
    monkeypatch.setitem(sys.modules, "another_tokenizer", module)
    with pytest.raises(TokenRowsError):  # its tokens are not there, and other tokens are not taken instead
        train_lm(*other)
    from codec.shards import Row, ShardWriter, TokenizerInfo

    with ShardWriter(tmp_path / "tokens", TokenizerInfo.of(Another())) as writer:
        for number in range(4):
            codes = torch.zeros(4, 3, dtype=torch.int64).numpy()
            writer.add(Row(id=str(number), codes=codes, duration=0.3, text="anna", domain="speech"))
    with pytest.raises(VocabularyError, match="stand-in.*another"):
        train_lm(*other, f"data.tokens={tmp_path}/tokens")
    # Told to, it learns the new tokenizer's codes and says so in its vocabulary.
    final = train_lm(*other, f"data.tokens={tmp_path}/tokens", "adopt_tokenizer=true", "trainer.max_steps=1")
    assert load_lm(final)[1].tokenizer["name"] == "another"
    assert speakers_of(final) == ["rms", "slt"]  # nobody's name in these rows; those of init stay known


@pytest.mark.slow
def test_goes_on_reading_as_the_model_has_learnt_to(reference, overrides, capsys):
    one = [*overrides, "trainer.max_steps=1"]
    before = train_lm(*one, f"init={reference}/runs/tiny/final", "text.normalise=phonemes", "name=read")
    assert "final has learnt to read by text.normalise=none" in capsys.readouterr().out
    assert normalisation_of(before) == "phonemes"
    after = train_lm(*one, f"init={before}", "name=again", "task.prompt='Say {text}'")
    told = capsys.readouterr().out
    assert normalisation_of(after) == "phonemes" and "has learnt to read" not in told
    assert f"{before}: task tts: prompt is 'Say {{text}}', and the model has learnt" in told
    with pytest.raises(TaskError, match="names asr, and this training has the tasks tts"):
        train_lm(*one, f"init={before}", "name=other", "text.normalise={asr: phonemes}")


def test_another_recipe_is_refused(reference, overrides, monkeypatch):
    monkeypatch.chdir(reference)
    with pytest.raises(CheckpointError, match="trainer.lr"):
        train_lm(*overrides, "trainer.lr=0.5")
    with pytest.raises(CheckpointError, match="resume="):
        train_lm(*overrides, "resume=nowhere")
    with pytest.raises(ConfigError):
        train_lm(*overrides, "trainer.schedule=stairs")


def test_a_loss_that_is_not_finite_stops_and_names_the_documents(overrides, tmp_path, capsys):
    with pytest.raises(NonFiniteLoss, match=r"clip-\d+"):
        train_lm(*overrides, "trainer.lr=1e30", "trainer.warmup_steps=0", "trainer.grad_clip=1e30")
    assert not (tmp_path / "runs/tiny/final").exists()


def test_learning_rate_schedules(overrides):
    base = ["trainer.lr=1.0", "trainer.min_lr=0.1", "trainer.warmup_steps=10", "trainer.max_steps=110"]
    cosine = compose("lm_train", [*overrides, *base, "trainer.schedule=cosine"]).trainer
    assert learning_rate(0, cosine) == pytest.approx(0.1) and learning_rate(9, cosine) == 1
    assert learning_rate(60, cosine) == pytest.approx(0.55)
    assert learning_rate(110, cosine) == pytest.approx(0.1)
    wsd = compose("lm_train", [*overrides, *base, "trainer.schedule=wsd", "trainer.decay_share=0.5"]).trainer
    assert learning_rate(59, wsd) == 1 and learning_rate(85, wsd) == pytest.approx(0.55)
    assert learning_rate(110, wsd) == pytest.approx(0.1)
