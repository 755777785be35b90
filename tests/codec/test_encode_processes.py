"""Encoding a corpus in several processes, after kills, and in constant memory."""

import json
import signal
import socket
import subprocess
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
encode_corpus(sys.argv[1], tokenizer, sys.argv[2], batch_seconds=1, clips_per_shard=6)
"""


@pytest.mark.slow
def test_killed_encoding_ends_with_the_same_files(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 60)
    undisturbed = tmp_path / "undisturbed"
    encode_corpus(root, LoudnessTokenizer(), undisturbed, batch_seconds=1, clips_per_shard=6)

    folder = tmp_path / "killed"
    assert start(KILLED_ENCODE, root, folder, 25).wait() == -signal.SIGKILL
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.parquet")}
    assert 1 < len(finished) < 10
    with pytest.raises(ShardError, match="did not finish"):
        read_index(folder)
    (folder / ".shard-00009.parquet.tmp").write_bytes(b"half a shard")

    summary = encode_corpus(root, LoudnessTokenizer(), folder, batch_seconds=1, clips_per_shard=6)
    assert contents(folder) == contents(undisturbed)
    assert summary.encoded == 60 - 6 * len(finished)
    assert all((folder / name).stat().st_mtime_ns == written for name, written in finished.items())


@pytest.mark.slow
def test_five_random_kills_end_with_the_same_files(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 90)
    settings = {"batch_seconds": 1, "clips_per_shard": 3}
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "undisturbed", **settings)
    folder = tmp_path / "killed"
    random = np.random.default_rng(5)
    for _ in range(5):
        code = KILLED_ENCODE.replace("clips_per_shard=6", "clips_per_shard=3")
        assert start(code, root, folder, int(random.integers(2, 12))).wait() == -signal.SIGKILL
        assert not (folder / "index.json").exists()
    finished = len(list(folder.glob("shard-*.parquet")))
    assert 0 < finished < 30
    summary = encode_corpus(root, LoudnessTokenizer(), folder, **settings)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert summary.encoded == 90 - 3 * finished


@pytest.mark.slow
def test_thousands_of_short_clips_in_constant_memory(tmp_path: Path) -> None:
    """4,000 clips through a real, tiny codec: the last half of them adds next to nothing."""
    root = make_corpus(tmp_path / "corpus", 200, seconds=(0.05, 0.15))
    lines = (root / "metadata.jsonl").read_text().splitlines()
    more = [json.dumps({**json.loads(line), "id": f"{n}-{k}"}) for k in range(20) for n, line in enumerate(lines)]
    (root / "metadata.jsonl").write_text("\n".join(more) + "\n")
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
    root = make_corpus(tmp_path / "corpus", 100, seconds=(1.9, 2.1), rate=4_000)
    lines = (root / "metadata.jsonl").read_text().splitlines()
    more = [json.dumps({**json.loads(line), "id": f"{n}-{k}"}) for k in range(6) for n, line in enumerate(lines)]
    (root / "metadata.jsonl").write_text("\n".join(more) + "\n")
    assert start(WATCHED_ENCODE, root, tmp_path / "tokens", tmp_path / "sizes").wait() == 0
    sizes = [int(size) for size in (tmp_path / "sizes").read_text().split()]
    assert len(sizes) >= 60
    assert max(sizes) - sizes[len(sizes) // 4] < 20e6


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_command_line_with_two_processes_encodes_every_clip_once(machines: int, tmp_path: Path) -> None:
    """Two processes of one launcher; then two launchers with one process each, as on two machines with one disk."""
    root = make_corpus(tmp_path / "corpus", 30)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "one", clips_per_shard=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = "from accelerate.commands.accelerate_cli import main; main()"
    arguments = ["launch", "--multi_gpu", "--num_processes=2", f"--num_machines={machines}", "--mixed_precision=no"]
    arguments += ["--dynamo_backend=no", "--num_cpu_threads_per_process=1", f"--main_process_port={port}"]
    arguments += ["--main_process_ip=127.0.0.1"] if machines == 2 else []
    command = [str(REPOSITORY / "codec/encode.py"), f"data.root={root}", f"out={tmp_path / 'two'}"]
    command += [
        "clips_per_shard=4",
        "tokenizer._target_=tiny_encoding.load_noting",
        f"tokenizer.path={tmp_path / 'log'}",
    ]
    launchers = [start(launch, *arguments, f"--machine_rank={rank}", *command) for rank in range(machines)]
    assert [launcher.wait(timeout=600) for launcher in launchers] == [0] * machines
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    counts = [int(path.read_text()) for path in tmp_path.glob("log-*")]
    assert len(counts) == 2 and sum(counts) == 30 and min(counts) >= 14  # really two, and no clip in both
