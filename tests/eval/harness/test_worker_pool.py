"""Workers may die, hang and raise: that costs one clip with a reason, never the run."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from eval.harness.worker_pool import ROOT, WorkerError, WorkerPool

MODULE = "tests.eval.dying_worker"


@pytest.mark.slow
def test_one_clip_is_lost_and_the_rest_is_in_order() -> None:
    what = ["answer", "die", "answer", "raise", "answer", "hang", "answer"]
    jobs = [({"do": do, "number": i}, bytes(i)) for i, do in enumerate(what)]
    with closing(WorkerPool(MODULE, processes=2, timeout=3.0)) as pool:
        answers = pool.map(jobs)
    assert answers[1] == {"failure": "worker died"}
    assert answers[3] == {"failure": "ValueError: bad clip"}
    assert answers[5] == {"failure": "timed out after 3 s"}
    assert [answers[i] for i in (0, 2, 4, 6)] == [{"bytes": i, "number": i} for i in (0, 2, 4, 6)]


@pytest.mark.slow
def test_workers_that_need_no_torch_do_not_load_it() -> None:
    """Each would wait seconds for it, and CTranslate2's threads do not stand torch's."""
    rooms = ("judges/recognisers/sphinx_worker", "judges/recognisers/fast_whisper_worker", "metrics/pesq_worker")
    names = ", ".join("eval." + room.replace("/", ".") for room in rooms)
    loaded = f"import sys, {names}; print(*{{'torch', 'transformers'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_worker_that_cannot_start_says_why() -> None:
    with closing(WorkerPool(MODULE, {"refuse": True})) as pool, pytest.raises(WorkerError, match="no such model"):
        pool.map([({"do": "answer", "number": 0}, b"")])
    with closing(WorkerPool("eval.no_such_module")) as pool, pytest.raises(WorkerError, match="before it was ready"):
        pool.map([({}, b"")])


@pytest.mark.parametrize("how", ["no process", "late", "garbled"])
def test_workers_that_cannot_start_are_not_waited_for(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"no process": "cannot be started", "late": "was not ready after 1 s", "garbled": "before it was ready"}
    if how == "no process":
        monkeypatch.setattr("sys.executable", "/no/such/python")
    elif how == "late":
        monkeypatch.setattr("eval.harness.worker_pool.START", 1.0)
    else:
        monkeypatch.setenv("GARBLE", "1")
    settings = {"linger": True} if how == "late" else {}
    with closing(WorkerPool(MODULE, settings, processes=2)) as pool, pytest.raises(WorkerError, match=expected[how]):
        pool.map([({"do": "answer", "number": i}, b"") for i in range(3)])


def test_a_defect_of_the_pool_reaches_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("eval.harness.worker_pool.Worker.call", broken)
    with closing(WorkerPool(MODULE)) as pool, pytest.raises(ZeroDivisionError):
        pool.map([({"do": "answer", "number": 0}, b"")])


def test_workers_find_our_packages_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with closing(WorkerPool(MODULE)) as pool:
        assert pool.map([({"do": "answer", "number": 3}, b"12")]) == [{"bytes": 2, "number": 3}]


def test_nothing_to_do_starts_nothing() -> None:
    with closing(WorkerPool("eval.no_such_module")) as pool:
        assert pool.map([]) == []
