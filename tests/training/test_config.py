"""The command-line entry: unknown keys, unknown options, values that a key cannot hold."""

from pathlib import Path

import pytest

import training.config as config


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "task").mkdir()
    (tmp_path / "main.yaml").write_text(
        "defaults:\n  - task: tts\n  - _self_\nsteps: 3   # int, at least 2: how many\ntrainer: {rate: 1.0}\n"
        "fast: true\nname: null\nsizes: [1, 2]\nkind: plain\nshares: {a: 1, b: 0}   # float, at least 0: of each\n"
        "level: null   # float, dB, above 0; null: none\ndelay: 3   # int or auto: so many\n"
        "mode: null   # null | 1 | fast: how\n"
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
        ("shares.c=1", "'shares.c' is not there yet: write +shares.c=… to add it."),
        ("shares.c.d=1", "'shares.c.d' is not there yet: write +shares.c.d=… to add it."),
        ("name.a=1", "'name.a' is not a key of configs/main.yaml"),
        ("shares={a: 1, c: 1}", "'shares.c' is not there yet: write +shares.c=… to add it."),
        ("trainer={rat: 4}", "'trainer.rat' is not a key of configs/main.yaml. Did you mean 'trainer.rate'?"),
        ("steps", "'steps' is not of the form key=value"),
        ("task.beam=3", "is not a key"),
        ("steps=[limit=4]", "steps=[limit=4]: the value cannot be read"),
        ("=5", "'=5' is not of the form key=value"),
        ("steps=3,4", "Ambiguous value for argument 'steps=3,4' (of steps=3,4)."),
        ("+steps=3", "An item is already at 'steps' (of +steps=3)."),
        ("~nope", "Could not delete from config. 'nope' does not exist (of ~nope)."),
        ("shares=[a]", "Error merging override shares=[a] (of shares=[a])."),
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
    config.check_overrides("main", ["-m", "steps=3,4", "fast=true,false"])
    config.check_overrides("main", ["steps=${delay}", "+extra=many"])
    config.check_overrides("main", ["shares={a: 1}", "trainer={rate: 2}", "+shares={c: 1}", "name={a: 1}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=many", "steps=many must be a whole number, at least 2."),
        ("steps=2.5", "steps=2.5 must be a whole number, at least 2."),
        ("steps=true", "steps=true must be a whole number, at least 2."),
        ("steps=null", "steps=null must be a whole number, at least 2."),
        ("steps=1", "steps=1 must be at least 2."),
        ("trainer.rate=fast", "trainer.rate=fast must be a number."),
        ("trainer.rate={a: 1}", "trainer.rate={'a': 1} must be a number."),
        ("trainer.rate=nan", "trainer.rate=nan must be finite."),
        ("fast=2", "fast=2 must be true or false."),
        ("sizes=3", "sizes=3 must be a list, as [a,b]."),
        ("sizes=null", "sizes=null must be a list, as [a,b]."),
        ("fast=null", "fast=null must be true or false."),
        ("shares=null", "shares=null must be a dictionary, as {key: value}."),
        ("trainer=3", "trainer=3 must be a dictionary, as {key: value}."),
        ("shares.b=-1", "shares.b=-1 must be at least 0."),
        ("+shares.c=-1", "shares.c=-1 must be at least 0."),
        ("level=0", "level=0 must be above 0 or null."),
        ("delay=never", "delay=never must be a whole number or auto."),
        ("mode=quick", "mode=quick is unknown; choose one of null, 1, fast."),
        ("steps=${trainer.nope}", "Interpolation key 'trainer.nope' not found (a value that names another)."),
        ("steps=${kind}", "steps=plain must be a whole number, at least 2."),
    ],
)
def test_a_value_that_its_key_cannot_hold_is_one_sentence(
    configs: Path, capsys: pytest.CaptureFixture, override: str, message: str
) -> None:
    with pytest.raises(config.ConfigError):
        config.compose("main", [override])
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_dictionary_is_filled_where_it_is_empty_and_emptied_where_its_entries_are_free(configs: Path) -> None:
    (configs / "main.yaml").write_text((configs / "main.yaml").read_text() + "names: {}\n")
    assert config.compose("main", ["names={a: [b]}"]).names == {"a": ["b"]}
    assert config.compose("main", ["shares={}", "names={}"]).shares == {}
    assert config.compose("main", ["trainer={}"]).trainer == {"rate": 1.0}
    config.check_overrides("main", config.arguments_of("main", ["names={a: [b]}", "shares={}"]))


def test_what_a_key_can_hold_is_taken(configs: Path) -> None:
    config.compose("main", ["steps=${delay}"])
    config.compose("main", ["steps=4", "trainer.rate=2", "fast=false", "sizes=[]", "name=[3]", "kind={a: 1}", "mode=1"])
    config.compose("main", ["+extra=many", "level=null", "delay=auto", "task=asr"])
