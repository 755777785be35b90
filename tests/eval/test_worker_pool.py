"""Workers may die, hang and raise: that costs one clip with a reason, never the run."""

import pytest

from eval.worker_pool import WorkerError, WorkerPool

MODULE = "tests.eval.dying_worker"


@pytest.mark.slow
def test_one_clip_is_lost_and_the_rest_is_in_order() -> None:
    what = ["answer", "die", "answer", "raise", "answer", "hang", "answer"]
    jobs = [({"do": do, "number": i}, bytes(i)) for i, do in enumerate(what)]
    with WorkerPool(MODULE, processes=2, timeout=3.0) as pool:
        answers = pool.map(jobs)
    assert answers[1] == {"failure": "worker died"}
    assert answers[3] == {"failure": "ValueError: bad clip"}
    assert answers[5] == {"failure": "timed out after 3 s"}
    assert [answers[i] for i in (0, 2, 4, 6)] == [{"bytes": i, "number": i} for i in (0, 2, 4, 6)]


def test_a_worker_that_cannot_start_says_why() -> None:
    with WorkerPool(MODULE, {"refuse": True}) as pool, pytest.raises(WorkerError, match="no such model"):
        pool.map([({"do": "answer", "number": 0}, b"")])
    with WorkerPool("eval.no_such_module") as pool, pytest.raises(WorkerError, match="before it was ready"):
        pool.map([({}, b"")])


def test_nothing_to_do_starts_nothing() -> None:
    with WorkerPool("eval.no_such_module") as pool:
        assert pool.map([]) == []
