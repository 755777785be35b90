"""The command-line entry: unknown keys, unknown options, help."""

from pathlib import Path

import pytest

import training.config as config


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "task").mkdir()
    (tmp_path / "main.yaml").write_text(
        "defaults:\n  - task: tts\n  - _self_\nsteps: 3   # int: how many\ntrainer: {rate: 1}\n"
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


def test_help_shows_comments_of_the_file_and_its_groups(configs: Path) -> None:
    text = config.help_text("x.py", "main", "Does things.")
    for part in ("Does things.", "how many", "task=… one of: asr, tts", "the prompt"):
        assert part in text
