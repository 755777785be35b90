"""The tokenizer of docs/tokenizers.md, in one file outside the repository, in every command that the page names.

The example is copied to a folder on PYTHONPATH and the page's commands run in another folder as they stand there, with
a tiny corpus and a tiny language model.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.load import load_tokenizer
from training.config import check_overrides, choose_custom, compose

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tokenizers.md").read_text(encoding="utf-8")
RATE = 16000
WORDS = {"anna": 220.0, "carried": 330.0, "green": 440.0, "apples": 550.0}  # a tone each, Hz
JUDGE = f"recognisers=[ctc-mini] ctc={ROOT}/checkpoints/ctc-mini"
DATA = "data.name=tones data.root=corpus"
# What makes each command of the page tiny.
TINY = {
    "codec/encode.py": DATA,
    "codec/reconstruct.py": "input=corpus/speech",
    "lm/train.py": f"""{DATA} data.tokens=null device=cpu trainer.max_steps=3 trainer.row_length=128
        trainer.batch_rows=2 trainer.micro_rows=2 trainer.precision=fp32 lm.config.hidden_size=32
        lm.config.intermediate_size=48 lm.config.num_hidden_layers=1 lm.config.num_attention_heads=2
        lm.config.num_key_value_heads=2 lm.text_tokenizer.vocab_size=290""",
    "lm/generate.py": "device=cpu length.max_seconds=1.0",
    "eval/tts.py": f"{DATA} {JUDGE} device=cpu dnsmos=false max_seconds=1.0",
    "eval/asr.py": f"{DATA} {JUDGE} device=cpu max_tokens=8",
    "eval/reconstruction.py": f"{DATA} {JUDGE} device=cpu metrics=[stoi] sheets=false concat=[]",
    "eval/semantics.py": f"{DATA} device=cpu probes=[speaker] runs=2",
}


def commands() -> list[list[str]]:
    """The commands of the page's section on own tokenizers, the first of which copies the example."""
    section = PAGE[PAGE.index("## Your own") :]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    copying, *rest = block.splitlines()
    assert "cp docs/examples/tone_codec.py ~/mine/my_codec.py && export PYTHONPATH=~/mine" in copying
    return [shlex.split(line) for line in rest]


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the repository with the copied example."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copy(ROOT / "docs/examples/tone_codec.py", folder / "my_codec.py")
    return folder


def write_corpus(root: Path) -> None:
    """Ten clips of tones, one tone per word; some in every split, two speakers in each."""
    random = np.random.default_rng(0)
    time = np.arange(RATE // 4) / RATE
    rows = []
    (root / "speech").mkdir(parents=True)
    for number in range(10):
        words = [str(word) for word in random.choice(list(WORDS), 4)]
        split = "test" if number < 2 else "valid" if number < 4 else "train"
        tones = [0.3 * np.sin(2 * np.pi * WORDS[word] * time) for word in words]
        soundfile.write(root / f"speech/{number}.flac", np.concatenate(tones), RATE)
        row = {"file_name": f"speech/{number}.flac", "id": f"clip-{number}", "text": " ".join(words), "split": split}
        rows.append({**row, "speaker": "slt" if number % 2 else "rms", "domain": "speech"})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, arguments: list[str], python_path: Path | None) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository in ``folder``; output and errors come together."""
    path = [str(python_path or ""), str(ROOT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(path)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.slow
def test_every_command_of_the_page_runs(module_folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    seen = []
    for arguments in commands():
        script = next(word for word in arguments if word.endswith(".py"))
        given = [word for word in arguments[arguments.index(script) + 1 :] if not word.startswith("input=")]
        done = run(tmp_path, [str(ROOT / script), *given, *TINY[script].split()], module_folder)
        assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}"
        seen.append(script)
    assert seen == list(TINY)

    shards = list((tmp_path / "runs/tokens/tones").iterdir())
    assert len(shards) == 1 and shards[0].name.startswith("tone-codec-")  # training used those of encode.py
    assert len(list((tmp_path / "runs/reconstruct").glob("*.flac"))) == 10
    assert soundfile.info(tmp_path / "runs/generated/0000.wav").samplerate == RATE
    results = {name: json.loads((tmp_path / name).read_text()) for name in (
        "runs/mine/eval-tts/results.json",
        "runs/mine/eval-asr/results.json",
        "runs/tone-codec/eval-reconstruction/results.json",
        "runs/tone-codec/eval-semantics/results.json",
    )}  # fmt: skip
    assert all(content["how"]["tokenizer"]["name"] == "tone-codec" for content in results.values())
    assert results["runs/mine/eval-tts/results.json"]["rows"]["generated"]["legal"]["value"] == 1.0


@pytest.mark.parametrize(
    ("options", "outside", "message"),
    [
        (["tokenizer._target_=my_codec.ToneCodec"], False, "my_codec.ToneCodec cannot be imported .*PYTHONPATH"),
        (["tokenizer._target_=my_codec.ToneCode"], True, "my_codec.ToneCode cannot be imported"),
        (["tokenizer._target_=my_codec.ToneCodec", "tokenizer.tunes=9"], True, "not take the arguments device, tunes"),
        (["tokenizer._target_=builtins.dict"], True, "gave a dict and not an AudioTokenizer"),
        (["tokenizer=custom"], True, "say which tokenizer"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    options: list[str],
    outside: bool,
    message: str,
    module_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delitem(sys.modules, "my_codec", raising=False)
    if outside:
        monkeypatch.syspath_prepend(module_folder)
    with pytest.raises(SystemExit):
        load_tokenizer(compose("encode", options).tokenizer, "cpu")
    sys.modules.pop("my_codec", None)
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert error.startswith("error: ") and re.search(message, error)


@pytest.mark.parametrize("explicit", [[], ["tokenizer=custom"]])
def test_arguments_of_ones_own(explicit: list[str], module_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(module_folder)
    options = [*explicit, "tokenizer._target_=my_codec.ToneCodec", "tokenizer.tones=64"]
    check_overrides("encode", choose_custom(options))
    assert load_tokenizer(compose("encode", options).tokenizer, "cpu").codebook_sizes == (64, 32)


def test_a_target_of_ones_own_gets_nothing_of_the_default_tokenizer() -> None:
    mine = "tokenizer._target_=my_codec.ToneCodec"
    assert choose_custom(["seed=1", mine]) == ["tokenizer=custom", "seed=1", mine]
    assert choose_custom([mine, "tokenizer.path=F"]) == ["tokenizer=custom", mine, "+tokenizer.path=F"]
    assert choose_custom(["tokenizer=custom", mine, "+tokenizer.a=1", "tokenizer.b=2"]) == [
        "tokenizer=custom",
        mine,
        "+tokenizer.a=1",
        "+tokenizer.b=2",
    ]
    for others in (["tokenizer=mimi", mine], ["tokenizer=mimi", "tokenizer.levels=3"], ["task._target_=my_task.Task"]):
        assert choose_custom(others) == others
