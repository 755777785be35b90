"""The rows of a comparison: a file of one's own, and the command line above it."""

from pathlib import Path

import pytest

from eval.comparison.plan import make_plan
from eval.comparison.rows import check_commands, read_file
from training.config import compose, group_options


def test_a_file_changes_the_comparison_and_the_command_line_wins(tmp_path: Path, refusal) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("rows: {conv: null, mine: {tokenizer: mimi}}\nsteps: 7\nseed: 3\n")
    overrides = [f"file={path}", "comparison.seed=5"]
    c = read_file(compose("eval_compare", overrides), overrides)
    assert (c.steps, c.seed) == (7, 5)
    assert set(make_plan(c, tmp_path / "out").rows) == {"ours-w6", "ours-w10", "untrained", "mine"}
    for wrong, said in (("step: 7", "Did you mean 'steps'?"), ("match: hours", "match=hours is unknown; choose")):
        path.write_text(wrong)
        assert said in refusal(read_file, compose("eval_compare", overrides), overrides)


@pytest.mark.parametrize("comparison", group_options("comparison"))
def test_a_file_adds_a_row_to_every_comparison(tmp_path: Path, comparison: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("rows: {mine: {tokenizer: mimi}}\n")
    overrides = [f"comparison={comparison}", f"file={path}"]
    before = set(compose("eval_compare", overrides).comparison.rows)
    assert set(read_file(compose("eval_compare", overrides), overrides).rows) == {*before, "mine"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "rows: {mine: {tokenizer: mimi, options: {nope: 1}}}",
            "options.nope: tokenizer mimi has no such key; it has path",
        ),
        ("rows: {mine: {tokenizer: mimi, options: [1]}}", "rows.mine.options must be a dictionary, as {window: 10}"),
        ("rows: {mine: {tokenizer: almtokenizer, train: 5}}", "rows.mine.train must be a list of overrides"),
        ("rows: {mine: {tokenizer: custom}}", "rows.mine.options needs _target_"),
        ("rows: {mine: {tokenizer: mimi, each: {path: [a, a]}}}", "rows.mine.each names mine-patha twice"),
        ("rows: {mine: {tokenizer: mimi, options: {path: '${nope}'}}}", "Interpolation key 'nope' not found"),
        ("rows: [a]", "does not fit the comparison: Cannot merge DictConfig with ListConfig"),
        (b"\xff\xfe", "mine.yaml cannot be read: 'utf-8' codec"),
    ],
)
def test_a_file_that_cannot_work_is_one_sentence(tmp_path: Path, refusal, text: str | bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    overrides = [f"file={path}"]

    def planned() -> None:
        make_plan(read_file(compose("eval_compare", overrides), overrides), tmp_path / "out")

    assert said in refusal(planned)


@pytest.mark.parametrize(("override", "why"), [("seed=-1", "seed=-1 must be"), ("nope=1", "Could not override 'nope'")])
def test_a_command_that_its_script_does_not_take_is_refused_with_its_place(refusal, override: str, why: str) -> None:
    c = compose("eval_compare", [f"comparison.evaluations.tts=['{override}']"]).comparison
    assert refusal(check_commands, c, ["tts"]).startswith(f"error: comparison.evaluations.tts: {why}")
