"""Metrics and whole evaluations over two processes give what one process gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_notes
from json_files import read_json, read_lines

from codec.encode import encode_corpus
from codec.load import load
from eval.harness.processes import gather, is_main, join, share, size
from tests.eval import reducing_worker, sharing_worker
from tests.eval.tiny_task import build


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """slow: starts two interpreters."""
    command = [sys.executable, reducing_worker.__file__]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    found = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    expected = reducing_worker.results(slice(0, 4))
    assert expected["failed"] == 1
    for part in found:
        assert part == pytest.approx(expected, rel=1e-9)


def test_one_process_needs_no_launcher() -> None:
    join()
    assert size() == 1 and is_main() and share([1, 2, 3]) == [1, 2, 3]
    assert gather({"a": 1}, "here") == {"a": 1}


def found(out: Path) -> dict[str, object]:
    """What the scripts wrote below ``out``, without what a clock says and without the folder's name."""
    kept: dict[str, object] = {}
    for script in sharing_worker.SCRIPTS:
        result = read_json(out / script / "results.json")
        assert result.pop("finished") > 0
        for cells in result["rows"].values():
            cells.pop("real-time-factor", None)
        items = read_lines(out / script / "items.jsonl")
        for item in items:
            item.pop("generation_seconds", None)
        wavs = sorted(path.relative_to(out).as_posix() for path in (out / script).rglob("*.wav"))
        kept[script] = [result, items, read_json(out / script / "clips.json"), wavs]
    return kept


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """slow: starts two interpreters, and runs the scripts three times. Equal to the last digit."""
    folder = build(tmp_path / "task", "all")
    tiny_notes.build(folder / "space")
    encode_corpus(folder / "corpus", load(str(folder / "codec")), folder / "tokens", workers=1)
    monkeypatch.chdir(tmp_path)  # the scripts change the directory; this brings it back
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d",
               "--rdzv_endpoint=localhost:0", sharing_worker.__file__, str(folder), str(tmp_path / "two")]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("results.json") == len(sharing_worker.SCRIPTS)  # one of them prints
    sharing_worker.run(folder, tmp_path / "one")
    together, alone = found(tmp_path / "two"), found(tmp_path / "one")
    for script in sharing_worker.SCRIPTS:
        assert together[script] == alone[script], script
    # both took part, and what they kept serves a run that goes on after a kill, with another number of processes
    kept = tmp_path / "two/cache"
    assert list(kept.glob("generated-*.rank1.jsonl")) and list(kept.glob("ctc-mini-*.rank1.jsonl"))
    for path in kept.glob("*.rank1.jsonl"):
        path.write_text(path.read_text()[:-20])  # the last line was not finished
    sharing_worker.run(folder, tmp_path / "two")
    again = found(tmp_path / "two")
    for script in sharing_worker.SCRIPTS:
        assert again[script] == alone[script], script
