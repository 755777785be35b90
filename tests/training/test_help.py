"""``--help`` of every program: there at once, with every key, its default, unit, range and comment."""

from training.help import help_text

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.config import REPOSITORY

DOORS = [path for room in ("codec", "lm", "eval", "scripts") for path in sorted((REPOSITORY / room).glob("*.py"))]
PROGRAMS = [path.relative_to(REPOSITORY).as_posix() for path in DOORS if '"__main__"' in path.read_text("utf-8")]


AT_EXIT = (
    "import atexit, sys; atexit.register(lambda: print(*(k for k in sys.modules if sys.modules[k]), file=sys.stderr))"
)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_help_waits_for_no_package(program: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT)  # Python runs it before the program
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    command = [sys.executable, program, "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {Path(program).name} ")
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "training" in imported and not imported & {"torch", "transformers", "numpy", "scipy", "hydra"}


def test_help_shows_keys_and_groups_with_their_comments() -> None:
    text = help_text("train.py", "codec_train", "Trains a codec.")
    for part in ("Trains a codec.", "batch_size: 4             # int, at least 1: crops per process and step"):
        assert part in text
    presets = "base, base_flow, mini, mini_8, mini_causal, mini_conv, mini_experts, paper, small"
    assert f"codec=… one of: {presets} (default mini)" in text
    assert "hop: 320                  # int" in text


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [("KeyboardInterrupt", -signal.SIGINT, "interrupted."), ("ValueError('why')", 1, "ValueError: why")],
)
def test_ctrl_c_ends_plainly_while_a_program_imports(error: str, status: int, said: str) -> None:
    code = f"import training.help; raise {error}"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status and done.stderr.strip().splitlines()[-1] == said
    assert ("Traceback" in done.stderr) == (said != "interrupted.")


@pytest.mark.parametrize(
    "program", ["lm/train.py", "scripts/bench_start.py", "-m almkit.command", "almkit/command.py evaluate tts"]
)
def test_help_is_read_as_far_as_anybody_likes(program: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *program.split(), "--help"]
    held = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # to the end, in a buffer
    done = subprocess.run(command, cwd=REPOSITORY, env=held, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_program_may_have_no_standard_output() -> None:
    code = "import training.help, sys; sys.stdout.write('heard by nobody'); raise SystemExit(sys.stdout.fileno() != 1)"
    shell = ["sh", "-c", f'exec "{sys.executable}" -c "{code}" >&-']
    assert subprocess.run(shell, cwd=REPOSITORY).returncode == 0

    code = "import training.help; raise SystemExit(open('README.md').fileno() < 3)"
    shell = ["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(shell, cwd=REPOSITORY).returncode == 0, "a file has the number of a stream"


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("bench_start", ["--rounds", "0"]),
        ("bench_serve", ["--together", "-1"]),
        ("bench_codec", ["--threads", "1.5"]),
        ("export_onnx", ["codec", "out", "--clips", "-1"]),
        ("make_corpus", ["--jobs", "0"]),
    ],
)
def test_a_count_that_is_none_is_refused(
    program: str, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program, *options])
    with pytest.raises(SystemExit) as refused:
        importlib.import_module(program).main()
    assert refused.value.code == 2 and f"{options[-1]!r} must be a whole number, at least" in capsys.readouterr().err
