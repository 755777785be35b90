"""scripts/bench_start.py: processes are started and waited for, and one that fails is no figure."""

from __future__ import annotations

import re
import time

import pytest

import bench_start


def test_the_first_sound_is_waited_for_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    speaking = "import time; open('said.wav', 'wb').write(bytes(99)); time.sleep(1.5)"
    silent = "import time; open('said.wav', 'wb').write(bytes(44)); time.sleep(1.5)"
    assert bench_start.started(["-S", "-c", silent]).first > 1.5
    monkeypatch.setattr(bench_start, "COMMANDS", {"speaking": ["-S", "-c", speaking]})
    monkeypatch.setattr("sys.argv", ["bench_start.py", "--rounds=1"])
    start = time.perf_counter()
    bench_start.main()
    row = re.search(r"\| speaking \| ([\d.]+) \(\1 to \1\) \| [\d.]+ \|", out := capsys.readouterr().out)
    assert row and 0 < float(row[1]) < time.perf_counter() - start - 1.4, out
    with pytest.raises(SystemExit, match="-c raise SystemExit.*: too bad"):
        bench_start.started(["-c", "raise SystemExit('too bad')"])


@pytest.mark.slow
def test_the_commands_speak() -> None:
    for arguments in bench_start.COMMANDS.values():
        assert bench_start.started(arguments).first > 0
