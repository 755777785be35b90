"""The tokenizer of docs/tokenizers.md, in one file outside the repository, in every command that the page names.

The example is copied to a folder on PYTHONPATH and the page's commands run in another folder as they stand there, with
a tiny corpus and a tiny language model.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from json_files import read_json
from programs import TINY_LM, TINY_ROWS, run_command
from tiny_tones import RATE, write_corpus

from codec.load import load_tokenizer
from training.config import REPOSITORY, check_overrides, choose_custom, compose

PAGE = (REPOSITORY / "docs/tokenizers.md").read_text(encoding="utf-8")
JUDGE = f"recognisers=[ctc-mini] ctc={REPOSITORY}/checkpoints/ctc-mini"
DATA = "data.name=tones data.root=corpus"
# What makes each command of the page tiny.
TINY = {
    "codec/encode.py": DATA,
    "codec/reconstruct.py": "input=corpus/speech",
    "lm/train.py": f"{DATA} data.tokens=null trainer.max_steps=3 {' '.join(TINY_LM + TINY_ROWS)}",
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
    shutil.copy(REPOSITORY / "docs/examples/tone_codec.py", folder / "my_codec.py")
    return folder


@pytest.mark.slow
def test_every_command_of_the_page_runs(module_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in a process, which finds the module by PYTHONPATH; the others in this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{module_folder}{os.pathsep}{REPOSITORY}")
    monkeypatch.syspath_prepend(module_folder)
    monkeypatch.delitem(sys.modules, "my_codec", raising=False)
    write_corpus(tmp_path / "corpus")
    seen = []
    for words in commands():
        script = next(word for word in words if word.endswith(".py"))
        given = [word for word in words[words.index(script) + 1 :] if not word.startswith("input=")]
        if seen:
            run_command(script, *given, *TINY[script].split())
        else:
            subprocess.run([sys.executable, REPOSITORY / script, *given, *TINY[script].split()], check=True)
        seen.append(script)
    assert seen == list(TINY)

    shards = list((tmp_path / "runs/tokens/tones").iterdir())
    assert len(shards) == 1 and shards[0].name.startswith("tone-codec-")  # training used those of encode.py
    assert len(list((tmp_path / "runs/reconstruct").glob("*.flac"))) == 10
    assert soundfile.info(tmp_path / "runs/generated/0000.wav").samplerate == RATE
    results = {name: read_json(tmp_path / name) for name in (
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
    refusal: Callable[..., str],
) -> None:
    monkeypatch.delitem(sys.modules, "my_codec", raising=False)
    if outside:
        monkeypatch.syspath_prepend(module_folder)
    said = refusal(load_tokenizer, compose("encode", options).tokenizer, "cpu")
    sys.modules.pop("my_codec", None)
    assert re.search(message, said)


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
