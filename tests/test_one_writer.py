"""Every program that writes refuses a place that another process is writing or that nobody can, and touches nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import write_lines

import training.lock
from training.config import REPOSITORY
from training.lock import hold, release

sys.path.insert(0, str(REPOSITORY / "scripts"))

CODEC = f"tokenizer.path={REPOSITORY}/checkpoints/codec-mini"
MODEL = f"model={REPOSITORY}/checkpoints/lm-all-mini"
CORPUS = ["data.root=corpus", "device=cpu"]
EVALUATION = [CODEC, MODEL, *CORPUS, "out=out"]
WHOLE = {
    "codec.untrained",
    "codec.semantic_prior",
    "demo_page",
    "train_recogniser",
    "export_gguf",
    "export_onnx",
}  # put there as one
# program: the options with which it writes `out`, a file or a folder; both trainings write a run
PROGRAMS = {
    "codec.train": ["name=mine", *CORPUS],
    "codec.untrained": ["out=out"],
    "codec.classical": ["data.root=corpus", "out=out"],
    "codec.reconstruct": ["input=corpus", CODEC, "device=cpu", "out=out"],
    "codec.onnx_decode": ["onnx=none", "input=codes.safetensors", "out=out"],
    "codec.semantic_prior": ["data.root=corpus", "sources=[{encoder: x, layer: 1, count: 2, domains: []}]", "out=out"],
    "lm.hub": ["way=pull", "repo=me/mine", "folder=out"],
    "lm.train": ["name=mine", CODEC, *CORPUS],
    "lm.finetune": ["folder=corpus", "name=mine", CODEC, f"init={REPOSITORY}/checkpoints/lm-all-mini", "device=cpu"],
    "lm.generate": ["text=boat", CODEC, MODEL, "device=cpu", "out=out"],
    "eval.asr": EVALUATION,
    "eval.captioning": ["task=audio_captioning", *EVALUATION],
    "eval.compare": ["runs=[there/eval-tts]", "out=out"],
    "eval.label": [*CORPUS, "out=out", "dnsmos=false"],
    "eval.latents": [CODEC, *CORPUS, "out=out", "labels=[domain]", "group=null"],
    "eval.likelihood": ["task=tts", *EVALUATION, f"data.root={REPOSITORY}/data/mini"],
    "eval.prompted": ["task=voice_prompted_tts", *EVALUATION],
    "eval.reconstruction": [CODEC, *CORPUS, "out=out"],
    "eval.semantics": [CODEC, *CORPUS, "probes=[domain]", "out=out"],
    "eval.sound_space": [
        CODEC,
        *CORPUS,
        "out=out",
        "labels=[domain]",
        "group=null",
        "walks=[]",
        "transfer=[]",
        "speech=null",
    ],
    "eval.text_to_audio": ["task=text_to_sound", *EVALUATION],
    "eval.tts": EVALUATION,
    "ablate_lm": ["name=mine"],
    "demo_page": ["runs=[there/eval-tts]", "out=out"],
    "export_gguf": ["there", "out"],
    "export_onnx": [f"{REPOSITORY}/checkpoints/codec-mini", "out"],
    "make_corpus": ["--out=out"],
    "prepare": ["vctk", "--root=corpus", "--out=out"],
    "train_recogniser": ["out=out", "corpus=corpus", "device=cpu"],
    "vllm_speak": ["checkpoints/none", "--text=boat", "--out=out"],
}
# further options with which programs write a place that is not asked for above
UNUSABLE = {
    f"{program} {'name' if 'name=mine' in options else 'out'}": options for program, options in PROGRAMS.items()
}
UNUSABLE |= {
    "codec.encode out": [CODEC, "data.root=corpus", "out=out"],
    "codec.encode record": [CODEC, "data.root=corpus", "record=out"],
    "codec.reconstruct file": [CODEC, "input=corpus/0.wav", "out=out/x.wav"],
    "demo_page webmushra": ["runs=[there/eval-tts]", "webmushra=out"],
    "eval.tts cache": [CODEC, MODEL, *CORPUS, "limit=1", "recognisers=[]", "dnsmos=false", "cache=out"],
}
# encode waits, and so do the processes of a sweep; gguf_speak writes as vllm_speak does; others write no folder that
# two could name
OTHERS = {"sample_output", "encode", "gguf_speak", "doctor", "selftest", "kill_runs"}
OTHERS |= {
    "serve",
    "bench_serve",
    "bench_audio",
    "bench_codec",
    "bench_encode",
    "bench_lm",
    "bench_long",
    "bench_start",
}


def write_corpus(root: Path) -> None:
    """Two clips of each kind and split."""
    rows = []
    for number in range(12):
        domain, split = ("speech", "sound")[number % 2], ("train", "valid", "test")[number % 3]
        words = {"text": "the red boat"} if domain == "speech" else {"captions": ["a dog barks"]}
        rows.append({"file_name": f"{number}.wav", "speaker": "anna", "domain": domain, "split": split, **words})
    root.mkdir()
    Path("codes.safetensors").write_bytes(b"codes")
    for number in range(12):
        soundfile.write(root / f"{number}.wav", 0.1 * np.sin(np.arange(24_000) * (0.1 + 0.01 * number)), 24_000)
    write_lines(root / "metadata.jsonl", rows)


def test_all_programs_are_here() -> None:
    found = {path.stem for room in ("codec", "lm", "eval", "scripts") for path in (REPOSITORY / room).glob("*.py")
             if "\ndef main(" in path.read_text("utf-8")}  # fmt: skip
    assert found == {program.rpartition(".")[2] for program in PROGRAMS} | OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_that_another_process_writes_is_refused(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_program: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus"))
    folder = "runs/mine" if "name=mine" in PROGRAMS[program] else "out"
    hold(folder, replaced=program in WHOLE)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    with monkeypatch.context() as patch:
        patch.setattr(training.lock, "_held", {})  # as in another process
        said = refused_program(program, PROGRAMS[program])
    assert re.fullmatch(
        f"error: {folder} is being written by process .*: wait for it, or give another (name|(--)?out|target|folder).",
        said,
    )
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    release(folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", UNUSABLE)
def test_a_place_that_nobody_can_write_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_program: Callable[..., str]
) -> None:
    """A file where the folder should be, or a folder where the file should be."""
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus"))
    program, _, key = case.partition(" ")
    place = Path("runs/mine" if key == "name" else "out")
    if program in ("codec.semantic_prior", "export_gguf") or key == "record":
        place.mkdir()
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    said = refused_program(program, UNUSABLE[case])
    assert re.fullmatch(
        f"error: {place}(/x.wav)? cannot be written .* give another "
        "(--)?(name|out|target|record|webmushra|cache|folder), or make room for it there.", said,
    )  # fmt: skip
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock") == before


# programs that write audio, with a place for it inside of the audio that they read
INSIDE = {
    program: [option.replace("out=out", "out=corpus/out") for option in options]
    for program, options in PROGRAMS.items()
    if program.startswith("eval.")
    and {*CORPUS, "out=out"} <= {*options}
    and program != "eval.likelihood"  # writes none
} | {
    "codec.classical": ["data.root=corpus", "out=corpus/out"],
    "codec.reconstruct": [CODEC, "input=corpus", "out=corpus/out"],
    "codec.train": [option.replace("data.root=corpus", "data.root=.") for option in PROGRAMS["codec.train"]],
    "lm.generate": [MODEL, CODEC, "device=cpu", "task=continuation", "audio=corpus", "out=corpus/out"],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", INSIDE)
def test_no_program_writes_audio_into_the_audio_that_it_reads(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_program: Callable[..., str]
) -> None:
    """It would be of the corpus the next time."""
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus"))
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    said = refused_program(program, INSIDE[program])
    assert re.match(r"error: (corpus/out lies in corpus|runs/mine lies in \.), whose audio is read", said), said
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
