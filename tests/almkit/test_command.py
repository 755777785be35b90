"""The command ``almkit``: what each sentence of it means, what it leaves behind, and how it ends."""

import dataclasses
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from almkit.command import COMMANDS, evaluations, main, parser, program_of, settings_of
from codec.encoded import Encoded
from training.config import REPOSITORY, compose

CONFIGS = {
    "codec.onnx_decode": "onnx_decode",
    "lm.finetune": "lm_finetune",
    "lm.generate": "lm_generate",
    "lm.hub": "hub",
    "lm.serve": "serve",
    "codec.reconstruct": "reconstruct",
}


def settings(line: str, *more: str):
    """The configuration that ``almkit LINE`` gives its program, as its main sees it."""
    given = parser().parse_args([*shlex.split(line), *more])
    return compose(CONFIGS[program_of(given)], settings_of(given.command, given))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "hello, world 1.50",
        "null",
        "[a,b]",
        'it\'s "so" = ${x}',
        "a=b",
        "1e3",
        "back\\slash\\",
        "{a: 1}",
        "你好",
        "-",
        "@home",
    ],
)
def test_a_text_is_said_exactly_as_it_stands(text: str) -> None:
    assert list(settings("speak --", text).text) == [text]
    assert list(settings("sound a --", text).text) == ["a", text]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("speak a", "task._target_", "tasks.tts.TTS"),
        ("speak a --voice slt", "speaker", "slt"),
        ("speak a --voice null", "speaker", "null"),
        ("speak a --temperature 0", "sampling.temperature", 0),
        ("speak a --stream --seed 3", "stream", True),
        ("speak --file list.txt", "file", "list.txt"),
        ("speak", "file", "-"),
        ("speak a --set best_of=4", "best_of", 4),
        ("music a", "task._target_", "tasks.text_to_music.TextToMusic"),
        ("transcribe a.wav 'b, c.wav'", "audio", ["a.wav", "b, c.wav"]),
        ("transcribe a.wav", "out", None),
        ("transcribe a.wav -o here", "out", "here"),
        ("caption a.wav", "task._target_", "tasks.audio_captioning.AudioCaptioning"),
        ("caption --music a.wav", "task._target_", "tasks.music_captioning.MusicCaptioning"),
        ("continue a.wav --domain music", "domain", "music"),
        ("encode a.wav b -o codes", "way", "encode"),
        ("decode codes --levels 2", "levels", 2),
        ("serve 'my model' --port 9000", "model", "my model"),
        ("serve --port 9000", "port", 9000),
        ("serve --codec c --host 127.0.0.1", "tokenizer.path", "c"),
        ("speak a --model checkpoints/lm-tts-voice", "tokenizer.path", "checkpoints/codec-real"),
        ("serve checkpoints/lm-tts-voice", "tokenizer.path", "checkpoints/codec-real"),
        ("finetune a --from checkpoints/lm-tts-voice", "tokenizer.path", "checkpoints/codec-real"),
        ("speak a --model checkpoints/lm-tts-mini", "tokenizer.path", "checkpoints/codec-mini"),
        ("decode codes --onnx 'my codec' -o out", "onnx", "my codec"),
        ("reconstruct a.wav --window 8 --codec 'my codec'", "tokenizer.path", "my codec"),
        ("finetune 'my voice' --from checkpoints/lm-tts-mini", "init", "checkpoints/lm-tts-mini"),
        ("finetune 'my voice' --lora", "lora", True),
        ("finetune 'my voice' --whisper a/b --set rehearse=0", "weights.whisper", "a/b"),
        ("finetune 'my voice'", "folder", "my voice"),
        ("push runs/a/final me/a --licence mit --consent 'she, in writing'", "consent", "she, in writing"),
        ("push runs/a/final me/a --card", "card", True),
        ("pull me/a -o here", "folder", "here"),
    ],
)
def test_a_sentence_is_the_settings_of_its_program(line: str, key: str, value: object) -> None:
    from omegaconf import OmegaConf

    assert OmegaConf.select(settings(line), key) == value


def test_a_voice_that_is_a_file_is_heard(tmp_path: Path) -> None:
    (tmp_path / "me.wav").touch()
    cfg = settings(f"speak a --voice {tmp_path}/me.wav --voice-text 'who I am'")
    assert (cfg.task._target_, cfg.audio, cfg.audio_text) == (
        "tasks.voice_prompted_tts.VoicePromptedTTS", f"{tmp_path}/me.wav", "who I am"
    )  # fmt: skip


@pytest.mark.parametrize("name", [*COMMANDS, "evaluate", "doctor"])
def test_every_command_has_an_example_that_it_understands(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.partition("example:\n")
    for line in example.split("\n\n")[0].split(";"):
        assert parser().parse_args(shlex.split(line)[1:]).command == name


@pytest.mark.parametrize("line", ["reconstruct a.wav again.wav", "decode codes again", "transcribe a.wav said"])
def test_a_result_s_place_among_the_inputs_is_told_so(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    place = line.split()[-1]
    assert ended.value.code == 2
    assert f"{place} does not exist; if it is where the result goes, say -o {place}" in capsys.readouterr().err


def test_every_evaluation_is_known_and_tells_its_settings(capsys: pytest.CaptureFixture) -> None:
    assert {"tts", "asr", "reconstruction", "compare"} <= set(evaluations())
    main(["evaluate", "tts", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: almkit evaluate [key=value ...]") and "recognisers:" in text


def test_nothing_heavy_is_imported_before_the_program() -> None:
    code = "import almkit.command, almkit, sys; almkit.command.parser(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "hydra", "omegaconf", "transformers", "yaml"} & set(run.stdout.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with recordings in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk").mkdir()
    for number in (0, 1):
        source = REPOSITORY / f"data/mini/speech/speech-test-000{number}.flac"
        (tmp_path / f"talk/{number}.flac").write_bytes(source.read_bytes())
    return tmp_path


def status(*arguments: str) -> object:
    """How ``almkit ARGUMENTS`` ends."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.slow
def test_from_any_directory_with_what_ships(here: Path, capfd: pytest.CaptureFixture, monkeypatch) -> None:
    assert status("speak", "peter carried the purple ladder", "-o", "said.wav", "--temperature", "0.2") == 0
    assert soundfile.info("said.wav").samplerate == 24_000 and Path("said.wav").stat().st_size > 40_000
    capfd.readouterr()
    assert status("transcribe", "said.wav", "talk", "--json") == 0  # a file and a folder
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines[0]["written"] == "peter carried the purple ladder" and [line["heard"] for line in lines] == [
        ["said.wav"], ["talk/0.flac"], ["talk/1.flac"]
    ]  # fmt: skip
    Path("bad.wav").write_bytes(b"no audio")
    source = Path("talk/1.flac").read_bytes()
    Path("caf\udce9.flac").write_bytes(source)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"talk/1.flac\nbad.wav\r\ncaf\xe9.flac\n")))
    assert status("transcribe", "-") == 1  # not all was done
    out = capfd.readouterr().out.splitlines()
    assert out[0] == f"talk/1.flac: {lines[2]['written']}" and "bad.wav" in out[1] and "not UTF-8: rename it" in out[2]
    assert status("caption", "said.wav", "-o", "captions") == 0
    assert json.loads(Path("captions/items.jsonl").read_text())["written"]
    short = ["--set", "length.max_seconds=0.5"]
    for name in ("sound", "music"):
        assert status(name, "a dog barks", "a bass", "-o", name, *short) == 0
        assert [path.name for path in sorted(Path(name).glob("[!.]*"))] == ["0000.wav", "0001.wav", "items.jsonl"]
    assert status("continue", "talk/0.flac", "--out", "longer.wav", *short) == 0
    assert soundfile.info("longer.wav").duration > soundfile.info("talk/0.flac").duration


@pytest.mark.slow
def test_codes_in_files_are_the_reconstruction(here: Path, capfd: pytest.CaptureFixture) -> None:
    assert status("encode", "talk", "-o", "codes") == status("decode", "codes", "-o", "decoded") == 0
    assert status("reconstruct", "talk", "-o", "again", "--json") == 0
    *_, line = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert line["source"] == "talk/1.flac" and line["frames"] > 10 and line["encode_time"] > 0
    for name in ("0.flac", "1.flac"):
        heard, kept = (soundfile.read(f"{folder}/{name}")[0] for folder in ("talk", "decoded"))
        assert np.array_equal(kept, soundfile.read(f"again/{name}")[0]) and len(kept) == -(-len(heard) * 3 // 2)
    assert Path("codes/0.safetensors").stat().st_size < 2000
    assert status("reconstruct", "talk/0.flac", "-o", "0.wav") == 0 and Path("0.wav").is_file()
    assert status("decode", "codes", "--levels", "1", "-o", "less") == 2
    assert "open the codec that made them" in capfd.readouterr().out
    Path("codes/bad.safetensors").write_bytes(b"x" * 20)
    whole = Encoded.load("codes/0.safetensors")
    broken = {"none": {"codes": whole.codes[:0]}, "no-sound": {"samples": 0}}
    broken["rate"] = {"tokenizer": {**whole.tokenizer, "sample_rate": float("inf")}}
    for name, fault in broken.items():
        dataclasses.replace(whole, **fault).save(f"codes/{name}.safetensors")
    whole.save("codes/two\nlines.safetensors")
    assert status("decode", "codes", "-o", "decoded") == 1
    out = capfd.readouterr().out
    assert all(f"codes/{name}.safetensors is no file of codes" in out for name in ("bad", *broken))
    assert "two\\nlines.safetensors: its name cannot be used" in out
    assert status("encode", "talk/0.flac", "talk", "-o", "codes") == 2
    assert "would both become '0': name it once" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("transcribe nowhere.wav", "audio=nowhere.wav does not exist."),
        ("speak a b -o one.wav", "out=one.wav is a file of one clip"),
        ("speak a --model checkpoints/none", "no language model at 'checkpoints/none'"),
        ("speak a --codec none", "no codec checkpoint at 'none'"),
        ("speak a --voice nobody", "has heard rms, slt: choose one of them."),
        ("speak ' '", "there is no text to generate from."),
        ("transcribe talk/0.flac --model checkpoints/lm-tts-mini", "has learnt tts and not asr: take another."),
        ("encode nowhere", "nowhere does not exist"),
        ("encode ''", "say which audio"),
        ("serve checkpoints/none --port 0", "no language model at 'checkpoints/none'"),
        ("serve --host 0.0.0.0 --port 0", "host=0.0.0.0 is open to others: set a key in the environment variable"),
        ("speak a --set temprature=1", "'temprature' is not a key of configs/lm_generate.yaml."),
        ("evaluate tts limit=0.5", "limit=0.5 must be a whole number"),
        ("decode talk --onnx nowhere", "talk holds no files of codes"),
        ("pull nobody", "repo=nobody: name a repository of the hub, ORG/NAME."),
        ("push talk me/a", "folder=talk holds no trained model"),
        ("finetune nowhere", "corpus folder nowhere does not exist"),
        ("finetune talk --from checkpoints/lm-spoken-mini", "and not tts: take another."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(here: Path, refusal, line: str, sentence: str) -> None:
    assert sentence in refusal(main, shlex.split(line))
