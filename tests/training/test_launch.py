"""Several processes without a GPU are connected, or refused: never each for itself."""

from __future__ import annotations

import pytest
import torch

from training.launch import check_processes, on_cpu


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_cpu("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert on_cpu() and not on_cpu("cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not on_cpu() and on_cpu("cpu")


def test_processes_that_do_not_know_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    check_processes(1)  # a cluster's variable, and no launcher
    monkeypatch.setenv("LOCAL_RANK", "0")
    check_processes(2)
    with pytest.raises(SystemExit):
        check_processes(1)
    assert "2 processes were launched and this one is connected to 0 others" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    check_processes(1)
