"""Being told to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP let a training save and leave, and so does the end of its
launcher: `accelerate launch` passes on no signal, and what it started would train on, where nobody waits for it.

stop = Stop().listen()
while step < last and not stop.asked: ...
stop.close()
if step < last: stop.leave()     # exit status 143, 130 or 129: what was asked for is not done

status = run_and_pass_on([sys.executable, "lm/train.py", …])   # a training that another program starts
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK")  # in the environment of what a launcher has started
PARENT = os.getppid()  # at the start: it may end long before the first step
PATIENCE = 2.0  # seconds: a launcher passes on what a terminal has sent to the whole group already


class Stop:
    """Notes the first signal. Who presses Ctrl-C again later than that does not want to wait for the checkpoint."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._launched = any(name in os.environ for name in LAUNCHED)
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self.signal is not None or self._is_left

    @property
    def _is_left(self) -> bool:
        return self._launched and os.getppid() != PARENT

    @property
    def name(self) -> str:
        """``SIGTERM``; of the process that was asked."""
        if self.signal is not None:
            return signal.Signals(self.signal).name
        return "the end of its launcher" if self._is_left else "a signal to another process"

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > PATIENCE:
            self.close()
            raise KeyboardInterrupt

    def listen(self) -> Stop:
        """Note signals from now on, until `close`; a hang-up that nohup has switched off stays so."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def close(self) -> None:
        """Give signals their former effect."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def status(self) -> int:
        """What a shell gives to a process that the signal ended."""
        return 128 + (self.signal or signal.SIGTERM)

    def leave(self) -> None:
        """End the process with that status."""
        raise SystemExit(self.status)


def run_and_pass_on(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command, which may be a training: whoever asks us to stop asks it, and we go on when it has ended.

    Returns its exit status, as a shell tells it where a signal ended it.
    """
    process = subprocess.Popen(command, env=environment)
    before = {n: signal.getsignal(n) for n in SIGNALS}
    try:
        for number, handler in before.items():
            if number != signal.SIGHUP or handler != signal.SIG_IGN:
                signal.signal(number, lambda asked, _: process.send_signal(asked))
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
