"""Encoding a corpus in several processes, after kills, and in constant memory."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_encoding import LoudnessTokenizer, Meddling, contents, make_corpus, start
from tiny_models import tiny_codec
from torch import Tensor

from codec.encode import encode_corpus
from codec.interface import Codes
from codec.shards import ShardError, read_index
from training.config import REPOSITORY


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


TWICE = """
import sys
from codec.encode import encode_corpus
from tiny_encoding import LoudnessTokenizer
print(encode_corpus(sys.argv[1], LoudnessTokenizer(), sys.argv[2]).encoded, "clips encoded here")
"""


@pytest.mark.slow
def test_two_encodings_of_one_corpus_at_once_do_the_work_once(tmp_path: Path) -> None:
    root, folder = make_corpus(tmp_path / "corpus", 6), tmp_path / "tokens"
    others: list[subprocess.Popen] = []
    said: list[str] = []

    def begin_another() -> None:
        if not others:
            others.append(start(TWICE, root, folder, stdout=subprocess.PIPE, text=True))
            assert others[0].stdout is not None
            said.append(others[0].stdout.readline())

    assert encode_corpus(root, Meddling(begin_another), folder).encoded == 6
    said.append(others[0].communicate(timeout=120)[0])
    assert "is being written by process" in said[0] and said[1] == "0 clips encoded here\n"


KILLED_ENCODE = """
import sys
from codec.encode import encode_corpus
from tiny_encoding import LoudnessTokenizer
tokenizer = LoudnessTokenizer(kill_at=int(sys.argv[3]))
encode_corpus(sys.argv[1], tokenizer, sys.argv[2], batch_seconds=1, clips_per_shard=3)
"""


@pytest.mark.slow
def test_five_random_kills_end_with_the_same_files(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 90)
    settings = {"batch_seconds": 1, "clips_per_shard": 3}
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "undisturbed", **settings)
    folder = tmp_path / "killed"
    random = np.random.default_rng(5)
    for _ in range(5):
        assert start(KILLED_ENCODE, root, folder, int(random.integers(2, 12))).wait() == -signal.SIGKILL
        with pytest.raises(ShardError, match="did not finish"):
            read_index(folder)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.parquet")}
    assert 1 < len(finished) < 30
    (folder / ".shard-00029.parquet.tmp").write_bytes(b"half a shard")
    summary = encode_corpus(root, LoudnessTokenizer(), folder, **settings)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert summary.encoded == 90 - 3 * len(finished)
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())


def repeated(root: Path, times: int) -> Path:
    """The corpus with each of its clips so many times, under ids of their own."""
    lines = (root / "metadata.jsonl").read_text().splitlines()
    more = [json.dumps({**json.loads(line), "id": f"{n}-{k}"}) for k in range(times) for n, line in enumerate(lines)]
    (root / "metadata.jsonl").write_text("\n".join(more) + "\n")
    return root


@pytest.mark.slow
def test_thousands_of_short_clips_in_constant_memory(tmp_path: Path) -> None:
    """4,000 clips through a real, tiny codec: the last half of them adds next to nothing."""
    root = repeated(make_corpus(tmp_path / "corpus", 200, seconds=(0.05, 0.15)), 20)
    codec = tiny_codec()
    process = psutil.Process()
    memory: list[int] = []
    encode = codec.encode

    def watched(wav: Tensor, lengths: Tensor | None = None) -> Codes:
        memory.append(process.memory_info().rss)
        return encode(wav, lengths)

    codec.encode = watched  # type: ignore[method-assign]
    summary = encode_corpus(root, codec, tmp_path / "tokens", batch_seconds=10, clips_per_shard=200)
    assert summary.encoded == 4_000 and len(summary.duplicates) == 200
    assert sum(total["hours"] for split in summary.index.totals.values() for total in split.values()) > 0.09
    assert max(memory) - max(memory[: len(memory) // 2]) < 20e6


WATCHED_ENCODE = """
import sys
from pathlib import Path
import psutil
from codec.encode import encode_corpus
from tiny_encoding import LoudnessTokenizer
process, sizes = psutil.Process(), []
class Watched(LoudnessTokenizer):
    def encode(self, wav, lengths=None):
        sizes.append(process.memory_info().rss)
        return super().encode(wav, lengths)
encode_corpus(sys.argv[1], Watched(), sys.argv[2], batch_seconds=20, clips_per_shard=100)
Path(sys.argv[3]).write_text(" ".join(map(str, sizes)))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    """Waveforms of 600 clips (77 MB at 16 kHz) pass through a process of its own that grows by far less."""
    root = repeated(make_corpus(tmp_path / "corpus", 100, seconds=(1.9, 2.1), rate=4_000), 6)
    assert start(WATCHED_ENCODE, root, tmp_path / "tokens", tmp_path / "sizes").wait() == 0
    sizes = [int(size) for size in (tmp_path / "sizes").read_text().split()]
    assert len(sizes) >= 60
    assert max(sizes) - sizes[len(sizes) // 4] < 20e6


@pytest.mark.slow
def test_an_output_that_nobody_takes_parts_no_processes(tmp_path: Path) -> None:
    """The first of two prints; the other one would wait for it in vain."""
    root = make_corpus(tmp_path / "corpus", 4)
    command = [sys.executable, str(REPOSITORY / "codec/encode.py"), f"data.root={root}", f"out={tmp_path / 'two'}"]
    command += ["clips_per_shard=2", "tokenizer._target_=tiny_encoding.load_noting", f"tokenizer.path={tmp_path}/log"]
    connected = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]])
    with open("/dev/full", "w") as full:
        processes = [
            subprocess.Popen(
                command, stdout=full, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **connected, "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": path},
            )
            for rank in "01"
        ]  # fmt: skip
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 0] and not errors[1]
    assert errors[0].splitlines()[-1].startswith("error: the output: No space left on device.")
    assert len(read_index(tmp_path / "two").rows) == 4


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_command_line_with_two_processes_encodes_every_clip_once(machines: int, tmp_path: Path) -> None:
    """Two processes of one launcher; then two launchers with one process each, as on two machines with one disk."""
    root = make_corpus(tmp_path / "corpus", 30)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "one", clips_per_shard=4)
    launch = "from accelerate.commands.accelerate_cli import main; main()"
    arguments = ["launch", "--multi_gpu", "--num_processes=2", f"--num_machines={machines}", "--mixed_precision=no"]
    arguments += ["--dynamo_backend=no", "--num_cpu_threads_per_process=1", f"--main_process_port={free_port()}"]
    arguments += ["--main_process_ip=127.0.0.1"] if machines == 2 else []
    command = [str(REPOSITORY / "codec/encode.py"), f"data.root={root}", f"out={tmp_path / 'two'}"]
    command += ["clips_per_shard=4", "tokenizer._target_=tiny_encoding.load_noting", f"tokenizer.path={tmp_path}/log"]
    launchers = [start(launch, *arguments, f"--machine_rank={rank}", *command) for rank in range(machines)]
    assert [launcher.wait(timeout=600) for launcher in launchers] == [0] * machines
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    counts = [int(path.read_text()) for path in tmp_path.glob("log-*")]
    assert len(counts) == 2 and sum(counts) == 30 and min(counts) >= 14  # really two, and no clip in both
