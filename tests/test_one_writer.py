"""Every program that writes into a folder refuses one that another process is writing, before it touches it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import training.lock
from training.config import REPOSITORY, compose
from training.lock import LockError, hold, release

sys.path.insert(0, str(REPOSITORY / "scripts"))

CODEC = f"tokenizer.path={REPOSITORY}/checkpoints/codec-mini"
MODEL = f"model={REPOSITORY}/checkpoints/lm-all-mini"
CORPUS = ["data.root=corpus", "device=cpu"]
EVALUATION = [CODEC, MODEL, *CORPUS, "out=out"]
# program: its configuration, its options, the folder that it writes, and whether it puts it there as a whole
PROGRAMS = {
    "codec.train": ("codec_train", ["name=mine", *CORPUS], "runs/mine", False),
    "codec.untrained": ("codec_untrained", ["out=out"], "out", True),
    "lm.train": ("lm_train", ["name=mine", CODEC, *CORPUS], "runs/mine", False),
    "lm.speak": ("lm_generate", ["text=boat", CODEC, MODEL, "device=cpu", "out=out"], "out", False),
    "eval.asr": ("eval_asr", EVALUATION, "out", False),
    "eval.captioning": ("eval_captioning", ["task=audio_captioning", *EVALUATION], "out", False),
    "eval.likelihood": (
        "eval_likelihood",
        ["task=tts", *EVALUATION, f"data.root={REPOSITORY}/data/mini"],
        "out",
        False,
    ),
    "eval.reconstruction": ("eval_reconstruction", [CODEC, *CORPUS, "out=out"], "out", False),
    "eval.semantics": ("eval_semantics", [CODEC, *CORPUS, "probes=[domain]", "out=out"], "out", False),
    "eval.text_to_audio": ("eval_text_to_audio", ["task=text_to_sound", *EVALUATION], "out", False),
    "eval.tts": ("eval_tts", EVALUATION, "out", False),
    "demo_page": ("demo_page", ["runs=[there/eval-tts]", "out=out"], "out", True),
    "train_recogniser": ("recogniser_train", ["out=out", "device=cpu"], "out", True),
}


def write_corpus(root: Path) -> None:
    """Two clips of each kind and split."""
    rows = []
    for number in range(12):
        domain, split = ("speech", "sound")[number % 2], ("train", "valid", "test")[number % 3]
        words = {"text": "the red boat"} if domain == "speech" else {"captions": ["a dog barks"]}
        rows.append({"file_name": f"{number}.wav", "domain": domain, "split": split, **words})
    root.mkdir()
    for number in range(12):
        soundfile.write(root / f"{number}.wav", 0.1 * np.sin(np.arange(24_000) * (0.1 + 0.01 * number)), 24_000)
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_that_another_process_writes_is_refused(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, options, folder, replaced = PROGRAMS[program]
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus"))
    Path(folder).mkdir(parents=True)
    hold(folder, replaced=replaced)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    main = importlib.import_module(program).main
    with monkeypatch.context() as patch:
        patch.setattr(training.lock, "_held", {})  # as in another process
        with pytest.raises(LockError, match=f"{folder} is being written by process .*: wait for it, or give another"):
            main.__wrapped__(compose(config, options))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    release(folder)
