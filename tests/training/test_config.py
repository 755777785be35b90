"""The command-line entry: unknown keys, unknown options, help."""

import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import training.config as config


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "task").mkdir()
    (tmp_path / "main.yaml").write_text(
        "defaults:\n  - task: tts\n  - _self_\nsteps: 3   # int: how many\ntrainer: {rate: 1.0}\n"
        "fast: true\nname: null\nsizes: [1, 2]\nkind: plain\n"
    )
    (tmp_path / "task" / "tts.yaml").write_text("prompt: say   # str: the prompt\n")
    (tmp_path / "task" / "asr.yaml").write_text("beam: 4\n")
    monkeypatch.setattr(config, "CONFIG_DIR", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stesp=4", "'stesp' is not a key of configs/main.yaml. Did you mean 'steps'?"),
        ("trainer.rat=4", "Did you mean 'trainer.rate'?"),
        ("task=tss", "there is no task 'tss'; choose one of asr, tts. Did you mean task=tts?"),
        ("steps", "'steps' is not of the form key=value"),
        ("task.beam=3", "is not a key"),
        ("steps=[limit=4]", "steps=[limit=4]: the value cannot be read"),
        ("steps=many", "steps=many must be a whole number."),
        ("steps=2.5", "steps=2.5 must be a whole number."),
        ("steps=true", "steps=true must be a whole number."),
        ("trainer.rate=fast", "trainer.rate=fast must be a number."),
        ("trainer.rate={a: 1}", "trainer.rate={a: 1} must be a number."),
        ("fast=2", "fast=2 must be true or false."),
        ("sizes=3", "sizes=3 must be a list, as [a,b]."),
        ("sizes=abc", "sizes=abc must be a list, as [a,b]."),
    ],
)
def test_what_does_not_exist_is_one_sentence(
    configs: Path, capsys: pytest.CaptureFixture, override: str, message: str
) -> None:
    with pytest.raises(SystemExit) as error:
        config.check_overrides("main", [override])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_known_keys_pass(configs: Path) -> None:
    config.check_overrides("main", ["steps=4", "trainer.rate=2", "task=asr", "task.beam=2", "-m"])
    config.check_overrides("main", ["steps=null", "trainer.rate=[1,2]", "fast=false", "sizes=[]", "name=[3]"])
    config.check_overrides("main", ["kind={a: 1}"])
    config.check_overrides("main", ["-m", "steps=3,4", "fast=true,false"])
    config.check_overrides("main", ["steps=${trainer.rate}", "+extra=many"])


def test_ranges_hold_for_every_value_and_name_the_key(capsys: pytest.CaptureFixture) -> None:
    cfg = OmegaConf.create({"a": {"share": 0.5, "pair": [0.1, 1.0]}, "none": None, "count": 3})
    config.check_ranges(cfg, {"a.share": (0, 1), "a.pair": (0, 1), "count": (1, math.inf), "none": (1, 2)}, ["none"])
    for ranges, said in (
        ({"a.share": (0.6, 1)}, "a.share=0.5 must be from 0.6 to 1."),
        ({"a.pair": (0, 0.9)}, "a.pair=[0.1, 1.0] must be from 0 to 0.9."),
        ({"count": (4, math.inf)}, "count=3 must be at least 4."),
        ({"none": (1, math.inf)}, "none=None must be at least 1."),
    ):
        with pytest.raises(config.ConfigError):
            config.check_ranges(cfg, ranges)
        assert capsys.readouterr().err == f"error: {said}\n"


def test_help_shows_comments_of_the_file_and_its_groups(configs: Path) -> None:
    text = config.help_text("x.py", "main", "Does things.")
    for part in ("Does things.", "how many", "task=… one of: asr, tts", "the prompt"):
        assert part in text
