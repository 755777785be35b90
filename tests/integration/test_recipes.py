"""The recipes of scripts/recipes, tiny: each takes a folder of recordings to what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from json_files import read_json
from programs import TINY_CODEC, TINY_LM, TINY_ROWS
from tiny_tones import write_corpus
from transformers import WhisperConfig, WhisperModel

from codec.load import load
from training.config import REPOSITORY

RECIPES = REPOSITORY / "scripts/recipes"
STEPS = "trainer.max_steps=4 threads=1"
ENDS = "codec.patchify=stft codec.conv_filters=2"


def recipe(name: str, *arguments: object, **options: str) -> str:
    """What a recipe prints, in the working folder, with the interpreter of the tests."""
    python = Path(sys.executable).parent
    environment = {**os.environ, **options, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([RECIPES / name, *map(str, arguments)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return ran.stdout


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.slow
def test_almtokenizer_from_recordings_to_a_page(corpus: Path) -> None:
    tiny = [
        *TINY_CODEC,
        STEPS,
        "codec.semantic_dim=16",
        "gan.start=null",
        "mae.encoder_layers=1",
        "ar.width=16",
        "ar.layers=1",
    ]
    options = {
        "CODEC": " ".join([*tiny, ENDS, "trainer.quantize_from=1", "trainer.warmup_steps=1"]),
        "CODES": "16",
        "PRIOR": "device=cpu",
        "LM": " ".join(["lm=micro", *TINY_LM, *TINY_ROWS, "trainer.max_steps=2"]),
        "SCORES": "device=cpu recognisers=[] dnsmos=false limit=2",
    }
    said = recipe("almtokenizer/run.sh", corpus, **options)
    assert [f"{n}/6" in said for n in range(1, 7)] == [True] * 6
    codec = load("runs/almtokenizer-paper-2/final")
    assert codec.config.encoder_block_causal and codec.config.semantic_dim == 16 and codec.quantizer.begun
    for folder, kind in (("almtokenizer-paper-2", "reconstruction"), ("almtokenizer-paper-lm", "tts")):
        found = read_json(f"runs/{folder}/eval-{kind}/results.json")
        assert found["how"]["tokenizer"]["fingerprint"] == codec.fingerprint
    assert "<audio " in Path("runs/almtokenizer-paper-page/index.html").read_text()


@pytest.mark.slow
def test_almtokenizer2_from_recordings_to_a_comparison_and_to_wavs(corpus: Path) -> None:
    keys = " ".join(part for part in TINY_CODEC if part.startswith("codec."))
    rest = " ".join([*(part for part in TINY_CODEC if not part.startswith("codec.")), STEPS, "trainer.quantize_from=1"])
    train = [sys.executable, REPOSITORY / "codec/train.py", "codec=mini", *keys.split(), *rest.split()]
    subprocess.run([*train, f"data.root={corpus}", "name=base"], check=True, capture_output=True)
    flow = f"{rest} flow.dim=16 flow.layers=1 flow.regression_steps=2 trainer.warmup_steps=1"
    scores = "only=[shipped,regression] comparison.data=['data.root=corpus','device=cpu']"
    said = recipe("almtokenizer2/run.sh", corpus, "runs/base/final", KEYS=keys, FLOW=flow, SCORES=scores)
    assert "gate 0, the true target rendered" in said and "codes of the test clips" in said
    assert load("runs/almtokenizer2/final").fingerprint == load("runs/base/final").fingerprint
    recipe("almtokenizer2/infer.sh", "runs/almtokenizer2/final", corpus / "speech", "wavs", "tokenizer.flow.steps=2")
    assert len(list(Path("wavs").glob("*.wav"))) == 10


def test_a_recipe_is_a_screen_and_names_what_it_lacks() -> None:
    for script in RECIPES.rglob("*.sh"):
        assert len(script.read_text().splitlines()) <= 45, script
        ran = subprocess.run([script], capture_output=True, text=True)
        assert ran.returncode == 1 and "the folder of" in ran.stderr, script


@pytest.mark.slow
def test_a_codec_for_real_sound_and_its_voice(corpus: Path) -> None:
    sizes = {
        "d_model": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "vocab_size": 100,
        "pad_token_id": 0,
    }
    WhisperModel(WhisperConfig(encoder_layers=6, decoder_layers=1, **sizes)).save_pretrained("listener")
    tiny = [*TINY_CODEC, "codec=small", "trainer.max_steps=2", "trainer.quantize_from=1", "trainer.warmup_steps=1"]
    options = {
        "CODEC": " ".join([*tiny, "threads=1"]),
        "LM": " ".join(["lm=micro", *TINY_LM, *TINY_ROWS, "trainer.max_steps=2"]),
        "SCORES": "device=cpu recognisers=[] dnsmos=false limit=2",
    }
    said = recipe("real_sound.sh", corpus, "listener", corpus, **options)
    assert [f"{n}/4" in said for n in range(1, 5)] == [True] * 4
    codec = load("runs/real-sound/final")
    assert codec.config.pitch_input
    for folder, kind in (("real-sound", "reconstruction"), ("real-sound-voice", "tts")):
        found = read_json(f"runs/{folder}/eval-{kind}/results.json")
        assert found["how"]["tokenizer"]["fingerprint"] == codec.fingerprint
