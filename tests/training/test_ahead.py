"""Items that processes of their own make ahead: the same, in order, and one sentence where such a process is killed."""

import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import Dataset

from training.ahead import made_ahead
from training.failure import HelperEnded


class Squares(Dataset[int]):
    """Item ``fatal`` kills the process that makes it."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal

    def __getitem__(self, number: int) -> int:
        if number == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_their_order_and_no_process_stays(workers: int) -> None:
    with made_ahead(Squares(), range(3, 9), workers) as made:
        assert next(made) == 9 and len(multiprocessing.active_children()) == workers
        assert list(made) == [16, 25, 36, 49, 64]
    with made_ahead(Squares(), range(3, 9), workers) as made:
        assert next(made) == 9
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("waits", [True, False])
def test_a_process_that_is_killed_ends_the_training_in_one_sentence(waits: bool) -> None:
    """Whether the training waits for an item or does something else."""
    with pytest.raises(HelperEnded, match=r"was ended by SIGKILL, as the system does where memory is full\. The same"):
        with made_ahead(Squares(fatal=3), range(9), 1) as made:
            for number, square in enumerate(made):
                assert square == number**2
                time.sleep(0 if waits else 60)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [RuntimeError("a defect"), OSError(28, "full"), KeyError("a defect")])
def test_what_the_training_raises_is_as_it_was(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, made_ahead(Squares(), range(9), 1) as made:
        next(made)
        raise error
    assert raised.value is error and not multiprocessing.active_children()
