"""The whole chain, tiny, through the commands that people type: corpus → codec → tokens → language model →
speech → scores → page.

What is learnt in three steps is nothing. Tested is that every part takes what the part before it left, and that
nothing outside the working folder is written.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from json_files import read_json
from programs import TINY_CODEC, TINY_LM, TINY_ROWS, run_command
from tiny_tones import write_corpus

from codec.load import load
from codec.shards import read_index
from lm.model import load_lm
from training.config import REPOSITORY

LAUNCH = """
    -m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
""".split()
STEPS = "trainer.max_steps=3"


@pytest.mark.slow
def test_from_sound_to_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    data = ["data.name=tones", f"data.root={tmp_path / 'corpus'}"]
    run_command("codec/train.py", "name=codec", *data, *TINY_CODEC, STEPS, "trainer.quantize_from=1")
    codec = tmp_path / "runs/codec/final"
    tokenizer = [f"tokenizer.path={codec}"]

    run_command("codec/encode.py", *data, *tokenizer)
    shards = list((tmp_path / "runs/tokens/tones").iterdir())
    assert len(shards) == 1
    index = read_index(shards[0])
    assert index.fingerprint == load(str(codec)).fingerprint and len(index.rows) == 10

    training = [sys.executable, *LAUNCH, str(REPOSITORY / "lm/train.py"), "task=tts", "name=lm", "data.tokens=null"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    launched = subprocess.run(
        [*training, *data, *tokenizer, *TINY_LM, *TINY_ROWS, STEPS], env=environment, capture_output=True
    )
    printed = launched.stdout.decode()
    assert launched.returncode == 0 and "loss" in printed and "wrong condition" in printed, launched.stderr.decode()
    _, vocabulary, _ = load_lm(tmp_path / "runs/lm/final")
    assert vocabulary.tokenizer["fingerprint"] == index.fingerprint

    judge = ["recognisers=[ctc-mini]", f"ctc={REPOSITORY / 'checkpoints/ctc-mini'}", "dnsmos=false"]
    # No model is named: the newest finished run is the one to score.
    run_command("eval/tts.py", "device=cpu", "max_seconds=1.0", *data, *tokenizer, *judge)
    rows = read_json(tmp_path / "runs/lm/eval-tts/results.json")["rows"]
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled"]
    assert all(row["wer/ctc-mini"]["n"] == 2 for row in rows.values())
    assert rows["generated"]["legal"]["value"] == 1.0

    capsys.readouterr()
    run_command("scripts/demo_page.py")
    assert (tmp_path / "runs/demo-page/index.html").read_text().count("<audio ") == 8
    assert capsys.readouterr().out.splitlines()[-1].endswith("runs/demo-page/index.html")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "runs"}
