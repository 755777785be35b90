"""The page of sample output: its commands exist, all of them stand in it, and one can be made anew."""

import re
from pathlib import Path

import pytest

import sample_output
from sample_output import COMMANDS, PAGE, main, sections
from training.config import REPOSITORY, check_overrides


@pytest.mark.parametrize("command", COMMANDS.values())
def test_the_commands_are_ours_and_know_their_settings(command: str) -> None:
    _, script, *settings = command.split()
    source = (REPOSITORY / script).read_text(encoding="utf-8")
    config = re.search(r'^@hydra_entry\("(\w+)"', source, flags=re.MULTILINE)
    assert config
    check_overrides(config.group(1), settings)


def test_the_page_holds_every_command() -> None:
    assert list(sections(PAGE.read_text(encoding="utf-8"))) == list(COMMANDS)


def test_one_command_is_made_anew_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_output, "ROOT", tmp_path)
    monkeypatch.setattr(sample_output, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(sample_output, "COMMANDS", {"a": "python a.py", "b": "python b.py"})
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(f"print('first {name}')")
    main([])
    (tmp_path / "a.py").write_text("print('second a')")
    main(["a"])
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "second a" in page and "first b" in page and "first a" not in page
    assert page.index("## a") < page.index("## b")
    (tmp_path / "b.py").write_text("raise SystemExit('error: no')")
    with pytest.raises(SystemExit, match="(?s)python b.py ended with 1.*error: no"):
        main(["b"])
