"""The whole chain, tiny, through the commands that people type: corpus → codec → tokens → language model →
speech → scores → page.

What is learnt in three steps is nothing. Tested is that every part takes what the part before it left, and that
nothing outside the working folder is written.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_tones import write_corpus

from codec.load import load
from codec.shards import read_index
from lm.model import load_lm

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = """
    -m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
""".split()
TINY_CODEC = """
    codec.encoder_dim=16 codec.decoder_dim=16 codec.encoder_layers=1 codec.decoder_layers=1 codec.head_dim=8
    codec.code_dim=4 codec.codebook_sizes=[16,16,16] codec.analysis_ffts=[640] codec.synthesis_fft=640
    device=cpu trainer.batch_size=2 trainer.crop_seconds=0.6 trainer.quantize_from=1 trainer.init_batches=4
    trainer.max_steps=3 trainer.valid_every=1000
""".split()
TINY_LM = """
    lm.config.hidden_size=32 lm.config.intermediate_size=48 lm.config.num_hidden_layers=1
    lm.config.num_attention_heads=2 lm.config.num_key_value_heads=2 lm.text_tokenizer.vocab_size=290
    device=cpu trainer.max_steps=3 trainer.row_length=128 trainer.batch_rows=2 trainer.micro_rows=2
    trainer.precision=fp32
""".split()


def run(folder: Path, *command: str) -> str:
    """Run a script of the repository in ``folder`` and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


@pytest.mark.slow
def test_from_sound_to_sound(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    data = ["data.name=tones", f"data.root={tmp_path / 'corpus'}"]

    run(tmp_path, str(ROOT / "codec/train.py"), "name=codec", *data, *TINY_CODEC)
    codec = tmp_path / "runs/codec/final"
    tokenizer = [f"tokenizer.path={codec}"]

    run(tmp_path, str(ROOT / "codec/encode.py"), *data, *tokenizer)
    shards = list((tmp_path / "runs/tokens/tones").iterdir())
    assert len(shards) == 1
    index = read_index(shards[0])
    assert index.fingerprint == load(str(codec)).fingerprint and len(index.rows) == 10

    training = [*LAUNCH, str(ROOT / "lm/train.py"), "task=tts", "name=lm", "data.tokens=null"]
    printed = run(tmp_path, *training, *data, *tokenizer, *TINY_LM)
    assert "loss" in printed and "wrong condition" in printed
    _, vocabulary, _ = load_lm(tmp_path / "runs/lm/final")
    assert vocabulary.tokenizer["fingerprint"] == index.fingerprint

    judge = ["recognisers=[ctc-mini]", f"ctc={ROOT / 'checkpoints/ctc-mini'}", "dnsmos=false"]
    # No model is named: the newest finished run is the one to score.
    run(tmp_path, str(ROOT / "eval/tts.py"), "device=cpu", "max_seconds=1.0", *data, *tokenizer, *judge)
    rows = json.loads((tmp_path / "runs/lm/eval-tts/results.json").read_text())["rows"]
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled"]
    assert all(row["wer/ctc-mini"]["n"] == 2 for row in rows.values())
    assert rows["generated"]["legal"]["value"] == 1.0

    printed = run(tmp_path, str(ROOT / "scripts/demo_page.py"))
    assert (tmp_path / "runs/demo-page/index.html").read_text().count("<audio ") == 8
    assert printed.splitlines()[-1].endswith("runs/demo-page/index.html")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "runs"}
