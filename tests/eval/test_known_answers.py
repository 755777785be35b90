"""Every known answer is right, and the table of the self-test says when one is not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from eval import selftest
from eval.known_answers import ANSWERS, KnownAnswer, recordings
from eval.selftest import run, table


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(answer, id=f"{answer.group}: {answer.what}", marks=[pytest.mark.slow] if answer.slow else [])
        for answer in ANSWERS
    ],
)
def test_known_answer(answer: KnownAnswer) -> None:
    outcome = run(answer)
    if outcome.state == "not run":
        pytest.skip(outcome.reason)
    assert outcome.state == "ok", f"{outcome.found} is not {answer.expected} ± {answer.tolerance} {outcome.reason}"


@pytest.mark.slow
@pytest.mark.skipif("PESQ_CLIPS" not in os.environ, reason="PESQ_CLIPS does not name the folder audio of ludlows/PESQ")
def test_published_recordings() -> None:
    """slow; needs recordings that do not ship."""
    for answer in recordings(Path(os.environ["PESQ_CLIPS"])):
        outcome = run(answer)
        assert outcome.state in ("ok", "not run"), f"{answer.what}: {outcome.found} is not {answer.expected}"


def test_a_wrong_answer_and_a_missing_package_are_no_pass() -> None:
    right = ANSWERS[0]
    outcomes = [
        run(right),
        run(replace(right, expected=right.expected + 1)),
        run(replace(right, compute=lambda: float("nan"))),
        run(replace(right, needs=("no_such_package",))),
    ]
    assert [outcome.state for outcome in outcomes] == ["ok", "WRONG", "WRONG", "not run"]
    lines = table(outcomes).splitlines()
    assert len(lines) == 6 and "WRONG" in lines[3] and "no_such_package is not installed" in lines[5]


def test_the_script_ends_with_an_error_when_an_answer_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["selftest.py", "slow=false"])
    monkeypatch.setattr(selftest, "ANSWERS", [ANSWERS[0], replace(ANSWERS[0], expected=0.0)])
    with pytest.raises(SystemExit):
        selftest.main()
    assert "1 right, 1 wrong, 0 not run" in capsys.readouterr().out
