"""The device is one that is here, and several processes without a GPU are connected: never each for itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from training.launch import check_launcher, check_processes, check_sharding, on_cpu, pick_device


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_cpu("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert on_cpu() and not on_cpu("cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not on_cpu() and on_cpu("cpu")


def test_a_device_is_one_that_is_here(monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:1"]
    assert "device=cuda:2, but torch finds 2 GPUs here" in refusal(pick_device, "cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [pick_device(name) for name in ("auto", "cpu", "meta")] == ["cpu", "cpu", "meta"]
    for name, reason in (("cuda", "torch finds 0 GPUs here"), ("gpu", "device=gpu is none that torch knows")):
        assert reason in refusal(pick_device, name)


def test_processes_that_do_not_know_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    check_processes(1)  # a cluster's variable, and no launcher
    monkeypatch.setenv("LOCAL_RANK", "0")
    check_processes(2)
    assert "2 processes were launched and this one is connected to 0 others" in refusal(check_processes, 1)
    monkeypatch.delenv("WORLD_SIZE")
    check_processes(1)


def test_a_model_that_would_not_be_divided_is_refused(
    monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    check_sharding(False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_sharding(True)
    assert "every process would hold the whole of it" in refusal(check_sharding, False)


@pytest.mark.parametrize(
    ("name", "other", "fine"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "false"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "false"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "NO"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "1"),
        ("PARALLELISM_CONFIG_TP_SIZE", "2", "1"),
    ],
)
def test_what_no_training_does_is_refused_and_not_done_in_another_way(
    name: str, other: str, fine: str, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.setenv(name, fine)
    check_launcher()
    monkeypatch.setenv(name, other)
    assert f"the launcher says {name}={other}, which no training here does" in refusal(check_launcher)
