"""Codec training: exact resume after kill -9, data order from (seed, step), refusal of bad input."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from json_files import read_lines
from tiny_training import REPOSITORY, TINY, assert_equal, losses, start, train, wait_for_steps, write_corpus

from codec.corpus import Clip
from codec.recipe.crops import CropSampler
from codec.train import train_codec
from training.checkpoint import CheckpointError
from training.config import compose


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(place: Path, capsys: pytest.CaptureFixture) -> None:
    whole = train("whole", "trainer.max_steps=14")
    killed = start("killed", "trainer.max_steps=14")
    wait_for_steps("killed", 9)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL and not Path("runs/killed/final").exists()
    assert_equal(whole, train("killed", "trainer.max_steps=14"))
    assert "resumed from" in capsys.readouterr().out
    assert losses("killed") == losses("whole")


@pytest.mark.slow
def test_bf16_and_compiled_training_learn_as_plain_training_does(place: Path) -> None:
    """Compiled: the same to rounding; bf16: to the digits that its products have. What is saved has the same form."""
    runs = {"plain": ([], 0.0), "bf16": (["precision=bf16"], 0.05), "compiled": (["trainer.compile=true"], 1e-3)}
    if not shutil.which("g++"):
        del runs["compiled"]  # torch.compile needs it on a CPU
    saved = {}
    for name, (more, _) in runs.items():
        AcceleratorState._reset_state(reset_partial_state=True)  # of this process, which has one precision
        saved[name] = train(name, "trainer.max_steps=8", *more)
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, (more, tolerance) in runs.items():
        assert losses(name) == pytest.approx(losses("plain"), rel=tolerance)
        form = [{key: (value.shape, value.dtype) for key, value in saved[one].items()} for one in (name, "plain")]
        assert form[0] == form[1]
        assert not more or any(not torch.equal(v, saved["plain"][k]) for k, v in saved[name].items())


@pytest.mark.slow
def test_a_run_goes_on_only_with_options_that_fit_it(place: Path, capsys: pytest.CaptureFixture) -> None:
    def go_on(*more: str) -> str:
        train_codec(compose("codec_train", ["name=run", "data.root=corpus", *TINY, "trainer.max_steps=2", *more]))
        return capsys.readouterr().out

    assert "trainer.max_steps=2 ends before the quantiser begins (trainer.quantize_from=6)" in go_on()
    settings = Path("runs/run/config.yaml").read_text()
    other = write_corpus(place / "other")
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
            go_on(option)
        named = "clips of the corpus" if option.startswith("corpora") else option.partition("=")[0]
        assert f"({named}" in str(refused.value) and "resume=none" in str(refused.value)
        assert Path("runs/run/config.yaml").read_text() == settings, "as the run was made"
    said = go_on("trainer.log_every=7")
    assert "resumed from" in said and "trainer.log_every: " in said
    assert Path("runs/run/config-2.yaml").read_text() == settings
    said = go_on("trainer.batch_size=1", "trainer.accumulate=2")
    assert "resumed from" in said, "as many crops per step"
    assert "moved to runs/run/aside-1" in go_on("seed=7", "resume=none")


@pytest.mark.slow
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """By the command itself; what else is refused is tried in this process."""
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), "trainer.max_step=3"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
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
def test_validations_are_logged_and_tracked(place: Path, monkeypatch: pytest.MonkeyPatch, stage: int | None) -> None:
    recorder = Recorder()
    monkeypatch.setattr("codec.train.Tracker", lambda *_: recorder)
    stages = ["stage=1", "codec.decoder_dim=24", "trainer.ema=0.9"] if stage else []  # two widths: with a bridge
    train("seen", "trainer.valid_every=1", "trainer.max_steps=2", *stages)
    records = read_lines("runs/seen/log.jsonl")
    scores = {name for record in records for name in record if name.startswith("valid_")}
    codes = {f"valid_{name}_{level}" for name in ("usage", "perplexity") for level in (1, 2, 3)}
    assert {"valid_stoi", "valid_mel", "valid_stft"} <= scores
    assert codes & scores == (set() if stage else codes), "stage 1 has no codes"
    assert recorder.sent["audio"] == {(step, name) for step in (1, 2) for name in ("0", "0-original")}
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
