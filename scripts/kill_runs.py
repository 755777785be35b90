"""Does the same command, given again, end with the result of an undisturbed run, whatever happened to the first?

    python scripts/kill_runs.py --count 20          # 20 of each disturbance for each writer
    python scripts/kill_runs.py --count 1 --only encode page/full      # writers, or cells of them

Every program that writes for long (scripts/train_recogniser.py, codec/train.py, codec/encode.py, lm/train.py,
eval/tts.py, scripts/demo_page.py) runs on a corpus of tones with tiny settings. It is disturbed at a random moment:
killed (SIGKILL), stopped (SIGTERM, SIGINT), its disk becomes full or read-only. Then it is started again without
disturbance, and what it leaves is compared with the undisturbed run byte by byte, but for clocks. No disturbance but
SIGKILL may end in a traceback, and nothing temporary may stay behind.

A full disk is a tmpfs of a random size and a read-only one a remount, where mounting is permitted; otherwise a limit on
the size of files, and folders without permission to write. Programs start in forks of one process that has imported
everything, so that the random moment falls into their work and not into their imports.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from training.arguments import at_least
from training.config import ending_plainly
from training.lock import _release_all

ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000
DATA = ["data.root=corpus", "data.name=tones"]
TOKENIZER = ["tokenizer.path=runs/codec/final"]
TINY_CODEC = """
    name=codec codec.encoder_dim=16 codec.decoder_dim=16 codec.encoder_layers=1 codec.decoder_layers=1 codec.head_dim=8
    codec.code_dim=4 codec.codebook_sizes=[16,16,16] codec.analysis_ffts=[640] codec.synthesis_fft=640 device=cpu
    threads=1 trainer.batch_size=2 trainer.crop_seconds=0.6 trainer.quantize_from=2 trainer.init_batches=4
    trainer.max_steps=6 trainer.valid_every=3 trainer.valid_clips=1 trainer.save_every=1 trainer.log_every=1
""".split()
TINY_LM = """
    task=tts name=lm data.tokens=null lm.config.hidden_size=32 lm.config.intermediate_size=48
    lm.config.num_hidden_layers=1 lm.config.num_attention_heads=2 lm.config.num_key_value_heads=2
    lm.text_tokenizer.vocab_size=290 device=cpu threads=1 trainer.max_steps=12 trainer.row_length=128
    trainer.batch_rows=2 trainer.micro_rows=2 trainer.precision=fp32 trainer.valid_every=4 trainer.valid_clips=2
    trainer.save_every=2 trainer.log_every=1
""".split()
TINY_RECOGNISER = """
    corpus=corpus out=runs/judge model.width=8 model.blocks=1 steps=10 batch=2 warmup_steps=2 log_every=2 save_every=2
    threads=1 device=cpu
""".split()
TTS = ["model=runs/lm/final", "out=runs/lm/eval-tts", "max_seconds=1.0", "device=cpu", "processes=1", "dnsmos=false"]
TTS += ["recognisers=[ctc-mini]", f"ctc={ROOT}/checkpoints/ctc-mini"]
# what a clock says, in records and in the page
CLOCKS: tuple[str, ...] = ("written", "finished", "seconds", "generation_seconds", "real-time-factor", "audio_s_per_s")
CLOCKS += ("tokens_per_second", "audio_seconds_per_second", "mfu", "seconds_training")
STOPS = (signal.SIGTERM, signal.SIGINT)
KINDS = ("SIGKILL", "SIGTERM", "SIGINT", "full", "read-only")


@dataclass(frozen=True)
class Writer:
    """A program: its module, its arguments, and the folders whose content is its result."""

    module: str
    arguments: list[str]
    results: tuple[str, ...]


WRITERS = {  # each goes on from what those before it have written
    "recogniser": Writer("train_recogniser", TINY_RECOGNISER, ("runs/judge",)),
    "codec": Writer("codec.train", [*DATA, *TINY_CODEC], ("runs/codec/final", "runs/codec/log.jsonl")),
    "encode": Writer("codec.encode", [*DATA, *TOKENIZER, "clips_per_shard=2"], ("runs/tokens",)),
    "lm": Writer("lm.train", [*DATA, *TOKENIZER, *TINY_LM], ("runs/lm/final", "runs/lm/log.jsonl")),
    "evaluation": Writer("eval.tts", [*DATA, *TOKENIZER, *TTS], ("runs/lm/eval-tts",)),
    "page": Writer("demo_page", ["runs=[runs/lm/eval-tts]", "out=runs/page"], ("runs/page",)),
}
CELLS = [f"{name}/{kind}" for name in WRITERS for kind in KINDS]


def write_corpus(root: Path) -> None:
    """Ten clips of tones, one tone per word; some in every split."""
    generator = np.random.default_rng(0)
    at = np.arange(RATE // 4) / RATE
    words = {"anna": 220.0, "carried": 330.0, "green": 440.0, "apples": 550.0, "table": 660.0}
    root.mkdir(parents=True)
    rows = []
    for number in range(10):
        said = [str(word) for word in generator.choice(list(words), 4)]
        wave = np.concatenate([0.3 * np.sin(2 * np.pi * words[w] * at) * np.hanning(len(at)) for w in said])
        soundfile.write(root / f"{number}.flac", wave, RATE)
        split = "test" if number < 2 else "valid" if number < 4 else "train"
        rows.append({"file_name": f"{number}.flac", "id": f"c{number}", "text": " ".join(said), "split": split})
    lines = [json.dumps({**row, "speaker": "slt", "domain": "speech"}) + "\n" for row in rows]
    (root / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def start(writer: Writer, place: Path, log: Path, largest_file: int | None = None) -> int:
    """Run a program in a fork, in ``place``; returns its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # none arrives before the program begins
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        return child
    status = 1
    try:
        os.chdir(place)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if largest_file is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
        sys.argv = [f"{writer.module}.py", *writer.arguments]
        main = importlib.import_module(writer.module).main
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        main()
        status = 0
    except KeyboardInterrupt:  # at the program's first line
        status = 128 + signal.SIGINT
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _release_all()  # as at the end of a program, which a fork does not reach
        os._exit(status)


def wait(child: int) -> int:
    """The exit status of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended(child: int) -> bool:
    """Whether a process is over; it can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def timeless(value: Any) -> Any:
    """A record without what a clock says."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in CLOCKS}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def content(place: Path, names: Sequence[str]) -> dict[str, Any]:
    """What stands in the folders and files ``names``, without what a clock says."""
    found: dict[str, Any] = {}
    for name in names:
        for path in sorted([place / name, *(place / name).rglob("*")]):
            if not path.is_file():
                continue
            key, data = path.relative_to(place).as_posix(), path.read_bytes()
            if path.suffix == ".json":
                found[key] = timeless(json.loads(data))
            elif path.suffix == ".jsonl":
                found[key] = [timeless(json.loads(line)) for line in data.splitlines()]
            elif path.name == "index.html":
                found[key] = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC|real-time[^<]*<[^<]*<[^<]*|[\d.,]+ MB", b"", data)
            elif path.name != ".demo-page":  # a digest of files that a clock is in
                found[key] = data
    return found


def can_mount() -> bool:
    """Whether a tmpfs can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


class Place:
    """The folder in which everything runs, always at the same path; a small disk of its own where that is possible."""

    def __init__(self, path: Path, mounts: bool) -> None:
        self.path, self.mounts = path, mounts
        path.mkdir(parents=True)

    def mount(self, options: str) -> bool:
        """(Re)mount it; False where that is refused, as read-only is while a file is being written."""
        source = ["-o", options, "-t", "tmpfs", "tmpfs"] if not os.path.ismount(self.path) else ["-o", options]
        return subprocess.run(["mount", *source, str(self.path)], capture_output=True).returncode == 0

    def fill(self, source: Path) -> None:
        """Let it hold what ``source`` holds."""
        self.clear()
        if self.mounts and not self.mount("size=1g"):
            raise SystemExit(f"{self.path} cannot be mounted.")
        shutil.copytree(source, self.path, dirs_exist_ok=True)

    def clear(self) -> None:
        """Empty it."""
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=True)
        shutil.rmtree(self.path)
        self.path.mkdir()

    def size(self) -> int:
        """Bytes in use."""
        return sum(path.stat().st_blocks * 512 for path in self.path.rglob("*"))

    def permit(self, allowed: bool) -> None:
        """Allow or forbid to write in its folders."""
        for folder in [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]:
            folder.chmod(0o755 if allowed else 0o555)


def disturb(
    kind: str, writer: Writer, place: Place, log: Path, seconds: float, result: int, choice: random.Random
) -> int:
    """Run a program that is disturbed once; returns its exit status, with the place as usual again.

    Args:
        seconds: that it takes undisturbed.
        result: bytes that it leaves.
    """
    moment = choice.uniform(0.0, seconds)
    if kind == "full":
        room = choice.randrange(max(1, result))
        if place.mounts:
            place.mount(f"remount,size={(place.size() + room) // 1024 + 8}k")
        status = wait(start(writer, place.path, log, None if place.mounts else room))
        if place.mounts:
            place.mount("remount,size=1g")
        return status
    child = start(writer, place.path, log)
    until = time.monotonic() + moment
    while time.monotonic() < until and not ended(child):
        time.sleep(0.002)
    if kind == "read-only":
        if place.mounts:
            while not place.mount("remount,ro") and not ended(child):
                time.sleep(0.002)
        else:
            place.permit(False)
        status = wait(child)
        if place.mounts:
            place.mount("remount,rw,size=1g")
        else:
            place.permit(True)
        return status
    if not ended(child):
        os.kill(child, getattr(signal, kind))
    return wait(child)


def attempt(again: Callable[[], int], place: Path, expected: dict[str, Any], results: Sequence[str], log: Path) -> str:
    """Give the command again; what is wrong with its end, empty where nothing is."""
    status = again()
    if status:
        return f"the same command ended with status {status}: {log.read_text(errors='replace').strip()[-300:]}"
    found = content(place, results)
    if wrong := sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key)):
        return f"another result: {', '.join(wrong[:4])}"
    left = [path.name for path in place.rglob(".*") if path.suffix in (".tmp", ".lock", ".gone", ".old")]
    return f"left behind: {', '.join(left)}" if left else ""


@ending_plainly()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=at_least(1), default=20, help="of each disturbance for each writer")
    parser.add_argument("--only", nargs="+", choices=[*WRITERS, *CELLS], default=list(WRITERS))
    parser.add_argument("--seed", type=at_least(0), default=0)
    options = parser.parse_args(arguments)
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
    asked = {name: [kind for kind in KINDS if {name, f"{name}/{kind}"} & {*options.only}] for name in WRITERS}
    while not asked[list(asked)[-1]]:  # nobody needs what the last ones write
        del asked[list(asked)[-1]]
    for name in asked:
        importlib.import_module(WRITERS[name].module)
    choice, failures = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory(prefix="kill-runs-") as folder:
        work = Path(folder)
        place, log = Place(work / "run", can_mount()), work / "log.txt"
        write_corpus(work / "before" / "corpus")
        print(f"a disk of its own: {'yes' if place.mounts else 'no, so limits and permissions instead'}", flush=True)
        try:
            for name, kinds in asked.items():
                writer = WRITERS[name]
                for _ in range(2 if kinds else 1):  # the first one takes longer
                    place.fill(work / "before")
                    before, began = place.size(), time.monotonic()
                    if wait(start(writer, place.path, log)):
                        raise SystemExit(f"{name} fails without any disturbance:\n{log.read_text(errors='replace')}")
                    seconds, expected = time.monotonic() - began, content(place.path, writer.results)
                    grown = place.size() - before
                shutil.copytree(place.path, work / "after")
                for kind in kinds:
                    good, statuses = 0, dict[int, int]()
                    for _ in range(options.count):
                        place.fill(work / "before")
                        status = disturb(kind, writer, place, log, seconds, grown, choice)
                        statuses[status] = statuses.get(status, 0) + 1
                        said = log.read_text(errors="replace")
                        traceback = said[-600:] if kind != "SIGKILL" and "Traceback" in said else ""
                        wrong = f"a traceback: {traceback}" if traceback else ""
                        wrong = wrong or attempt(
                            lambda w=writer: wait(start(w, place.path, log)),  # type: ignore[misc]
                            place.path, expected, writer.results, log,
                        )  # fmt: skip
                        good += not wrong
                        if wrong:
                            print(f"{name}, {kind}, status {status}: {wrong}", flush=True)
                    failures += options.count - good
                    shown = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
                    print(f"{name:11}{kind:10} {good} of {options.count}   (exit status {shown})", flush=True)
                shutil.rmtree(work / "before")
                (work / "after").rename(work / "before")
        finally:
            place.clear()
    return int(failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
