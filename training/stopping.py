"""Being told to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP let a training save and leave, and so does the end of its
launcher: `accelerate launch` passes on no signal, and what it started would train on, where nobody waits for it. Where
nobody takes what it prints any more, it saves and leaves as well.

end_with_launcher()              # a program's first words
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
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from training.streams import Unbroken, unbroken

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STARTED = "ALMKIT_STARTED"  # in the environment of what another program of ours has started
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", STARTED)  # the same of what a launcher has
PATIENCE = 2.0  # seconds: a launcher passes on what a terminal has sent to the whole group already


def end_with_launcher() -> None:
    """Where a launcher started this program, have the system send it SIGTERM when the launcher ends, in any way."""
    if any(name in os.environ for name in LAUNCHED):
        import ctypes

        of_parent_death = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(of_parent_death, signal.SIGTERM)


class Stop:
    """Notes the first signal, and that nobody takes the output any more. Who presses Ctrl-C again later than that does
    not want to wait for the checkpoint.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._output: Unbroken | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None or self._lost is not None

    @property
    def _lost(self) -> OSError | None:
        """What hindered the output."""
        return None if self._output is None else self._output.error

    @property
    def name(self) -> str:
        """``SIGTERM``; of the process that was asked."""
        if self.signal is not None:
            return signal.Signals(self.signal).name
        return "a signal to another process" if self._lost is None else "lost output"

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > PATIENCE:
            self.close()
            raise KeyboardInterrupt

    def listen(self) -> Stop:
        """Note signals and lost output from now on, until `close`; a hang-up that nohup has switched off stays so."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._output = unbroken()
        return self

    def close(self) -> None:
        """Give signals and the output their former effect."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self._output is not None and sys.stdout is self._output:
            sys.stdout = self._output.stream

    @property
    def status(self) -> int:
        """What a shell gives to a process that the signal ended."""
        return 128 + (self.signal or signal.SIGTERM)

    def leave(self) -> None:
        """End the process with that status; or as every program ends whose output nobody takes."""
        if self.signal is None and self._lost is not None:
            raise self._lost
        raise SystemExit(self.status)


def run_and_pass_on(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command, which may be a training: whoever asks us to stop asks it, and we go on when it has ended. Where
    nobody can ask us any more, as we were killed, it is asked as well (`end_with_launcher`).

    Returns its exit status, as a shell tells it where a signal ended it.
    """
    before = {n: signal.getsignal(n) for n in SIGNALS}
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # asked before it was there

    def pass_on(number: int, _: FrameType | None) -> None:
        if started:
            started[0].send_signal(number)
        else:
            early.append(number)

    try:
        for number, handler in before.items():
            if number != signal.SIGHUP or handler != signal.SIG_IGN:
                signal.signal(number, pass_on)
        started.append(subprocess.Popen(command, env={**(environment or os.environ), STARTED: "1"}))
        for asked in early:
            started[0].send_signal(asked)
        status = started[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
