"""The generation command: every task with its inputs and limits, files, best of n, and the stream."""

from __future__ import annotations

import json
import queue
import shutil
import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoConfig

from codec.corpus import read_audio
from codec.interface import AudioTokenizer, Codes
from lm.audio_model import AudioModel
from lm.generate import main, speak
from lm.generation.asking import sampling_of, texts_of
from lm.generation.batch import Generation
from lm.generation.frames import Steps, best_of, generate
from lm.generation.sampling import Sampling
from lm.generation.streaming import StreamDecoder
from lm.model import ModelError, save_lm
from lm.sequences.documents import render
from lm.serving.speaking import Speaking
from tasks.base import Request, TaskError
from tasks.phonemes import pronunciations
from tasks.text import _function, normalisers
from tasks.tts import TTS
from training.config import ConfigError, compose, group_options

TASKS = [name for name in group_options("task") if name not in ("all", "mixture")]
HEARING = [name for name in TASKS if name in ("asr", "audio_captioning", "music_captioning")]
SPEAKING = [name for name in TASKS if name not in HEARING]


def made(*overrides: str):
    return instantiate(compose("lm_train", list(overrides)).task)


class Voice(AudioTokenizer):
    """Decodes a frame to 10 samples that depend on ``sight`` frames on both sides."""

    name, sample_rate, samples_per_frame, causal = "stand-in", 125, 10, False
    codebook_sizes, fingerprint = (2048,) * 3, ""

    def __init__(self, description, sight=2):
        self.description, self.sight = description, sight

    def describe(self):
        return self.description

    def encode(self, wav, lengths=None):
        frames = wav[0, : len(wav[0]) // 10 * 10].view(-1, 10).abs().sum(1)
        return Codes.from_clips([(frames[:, None] * torch.tensor([7.0, 11.0, 13.0]) * 100).long() % 8])

    def decode(self, codes: Codes) -> torch.Tensor:
        frames = codes.codes.double().sum(1)  # [batch, frames]
        kernel = torch.linspace(1, 2, 2 * self.sight + 1, dtype=torch.float64)[None, None]
        mixed = torch.nn.functional.conv1d(frames[:, None], kernel, padding=self.sight)[:, 0]
        return (mixed.repeat_interleave(10, dim=1) / 500).float()


def test_a_stream_with_enough_context_is_the_whole(vocabulary):
    voice = Voice(vocabulary.tokenizer)
    codes = np.random.default_rng(0).integers(0, 8, (37, 3))
    whole = voice.decode(Codes.from_clips([torch.from_numpy(codes)]))[0].numpy()
    for step in (1, 5, 37):
        decoder = StreamDecoder(voice, frames=4, context=3, ahead=2)
        pieces = [piece for i in range(0, 37, step) for piece in decoder.feed(codes[i : i + step])]
        assert {len(piece) for piece in pieces} == {1: {40}, 5: {50, 80}, 37: {350}}[step]
        pieces += decoder.finish()
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    blind = StreamDecoder(voice, frames=4, context=0, ahead=0)
    heard = np.concatenate([*(piece for frame in codes for piece in blind.feed(frame[None])), *blind.finish()])
    assert heard.shape == whole.shape and np.abs(heard - whole).max() > 1e-3  # the test can fail
    assert list(StreamDecoder(voice, 4, 3, 2).finish()) == []


@pytest.fixture
def setup(lively_model, vocabulary, text_tokenizer, tmp_path, monkeypatch):
    """A saved model and a configuration of the command."""
    monkeypatch.chdir(tmp_path)
    save_lm(tmp_path / "lm", lively_model, vocabulary, text_tokenizer)
    module = types.ModuleType("stand_in_voice")
    module.load = lambda device="cpu": Voice(vocabulary.tokenizer)
    monkeypatch.setitem(__import__("sys").modules, "stand_in_voice", module)
    return configured(tmp_path)


def configured(tmp_path, *overrides):
    cfg = compose("lm_generate", [f"model={tmp_path}/lm", f"out={tmp_path}/out", "device=cpu", *overrides])
    cfg.tokenizer = OmegaConf.create({"_target_": "stand_in_voice.load"})
    return cfg


def items(cfg):
    with open(f"{cfg.out}/items.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.slow
def test_texts_become_files_whatever_is_generated_with_them(setup, tmp_path):
    setup.text = ["anna carried apples", "peter found the green table", "monkeys"]
    speak(setup)
    together = items(setup)
    for item in together:
        wave, rate = soundfile.read(tmp_path / "out" / item["audio"])
        assert rate == 125 and len(wave) == item["frames"] * 10 and item["legal"]
    setup.text, setup.out, setup.seed = "peter found the green table", str(tmp_path / "alone"), 1
    speak(setup)
    alone = items(setup)[0]
    assert {**alone, "id": "0001", "audio": "0001.wav"} == {
        **together[1],
        "log_probability": alone["log_probability"],
        "candidates": alone["candidates"],
    }


INPUTS = {
    "text": "text=[anna carried apples,peter]",
    "audio": "audio={}/heard.wav",
    "audio_text": "audio_text=a guitar",
}


@pytest.fixture
def heard(tmp_path):
    """A recording of 16 frames."""
    wave = 0.5 * np.random.default_rng(0).standard_normal(1280).clip(-1, 1)
    soundfile.write(tmp_path / "heard.wav", wave, 1000, subtype="PCM_16")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_generated_from_what_it_needs_and_from_nothing_else(setup, heard, capsys, refusal, name):
    task = made(f"task={name}")
    inputs = {key: value.format(heard) for key, value in INPUTS.items()}
    short = "task.decoding.max_tokens=5" if task.target == "text" else "length.max_seconds=0.9"
    cfg = configured(heard, f"task={name}", short, *(inputs[key] for key in task.needs))
    speak(cfg)
    made_items = items(cfg)
    assert len(made_items) == (2 if "text" in task.needs else 1)
    for item in made_items:
        if task.target == "text":
            assert (
                isinstance(item["written"], str) and f"{heard}/heard.wav: {item['written']}" in capsys.readouterr().out
            )
            continue
        wave, rate = soundfile.read(heard / "out" / item["audio"])
        given = 16 if name == "continuation" else 0  # it is heard first, in the same file
        assert len(wave) == 10 * (given + item["frames"]) and 1 <= item["frames"] <= 0.9 * 12.5 and item["legal"]
    assert [item.get("text") for item in made_items] == (
        ["anna carried apples", "peter"] if "text" in task.needs else [None]
    )
    for key in INPUTS:
        others = [inputs[other] for other in task.takes if other != key]
        if key in task.needs:
            assert f"task={name} needs {key}" in refusal(speak, configured(heard, f"task={name}", *others))
        if key not in task.takes:
            assert f"task={name} reads no {key}" in refusal(
                speak, configured(heard, f"task={name}", *(inputs[k] for k in {*task.needs, key}))
            )


@pytest.mark.slow
def test_interleaved_sentences_hear_what_was_said_before(setup, heard, lively_model, vocabulary, text_tokenizer):
    texts = ["anna carried apples", "peter found the table", "monkeys", "a guitar"]
    listed = f"text=[{','.join(texts)}]"
    whole = [f"audio={heard}/heard.wav", "audio_text=who", "task.sentences=3", "length.max_seconds=0.9"]
    cfg = configured(heard, "task=interleaved", listed, *whole)
    speak(cfg)
    task = made("task=interleaved", "task.sentences=3", "task.decoding.max_seconds=0.9")
    wave = read_audio(heard / "heard.wav", 125)
    before = [Request("", "who", codes=Voice({}).encode(torch.from_numpy(wave)[None]).clip(0).numpy())]
    for i, text in enumerate(texts):
        document = task.document(task.asked("", text, before), with_target=False)
        assert len(document.segments) == 2 * min(3, i + 2)  # the sentences before it, no more than were trained
        prompt = render(document, vocabulary, text_tokenizer).ids
        most = int(task.seconds(task.asked("", text, before))[1] * 12.5)
        clip = generate(lively_model, vocabulary, [prompt], most, sampling=sampling_of(cfg, task), seeds=[i])[0]
        said = soundfile.read(heard / f"out/{i:04d}.wav")[0]
        np.testing.assert_allclose(
            said, Voice({}).decode(Codes.from_clips([torch.from_numpy(clip.codes)]))[0], atol=1e-4
        )
        before.append(Request("", text, codes=clip.codes))
    joined = soundfile.read(heard / "out/whole.wav")[0]
    assert len(joined) == 10 * sum(len(said.codes) for said in before[1:])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["task=all", "text=a"], "task=all is several tasks"),
        (["task=text_to_sound", "text=dog", "length.most_per_character=1"], "length.most_per_character"),
        (["task=tts", "text=a", "length.least_per_character=9"], "length.least_per_character=9 is above most_per"),
        (["task=asr", "audio=nowhere.wav"], "nowhere.wav"),
        (["task=voice_prompted_tts", "text=[a,b,c]", "audio=[x,y]", "audio_text=[u,v]"], "2 recordings for 3 texts"),
        (
            ["task=voice_prompted_tts", "text=a", "audio=[x,y]", "audio_text=u"],
            "audio_text has 1 texts for 2 recordings",
        ),
        (["task=interleaved", "text=a", "audio=heard.wav"], "needs audio_text"),
        (["task=interleaved", "text=a", "audio_text=u"], "audio=FILE, which is missing"),
        (["task=continuation", "audio=heard.wav", "domain=noise"], "domain=noise"),
        (["task=text_to_sound", "text=dog", "speaker=slt"], "speaker=slt: task=text_to_sound takes no voice by name"),
        (["task=asr", "audio=heard.wav", "speaker=slt"], "speaker=slt: task=asr takes no voice by name"),
        (["task=tts"], 'needs text="..." or file=FILE'),
    ],
)
def test_inputs_that_cannot_be_used_are_one_sentence(setup, heard, capsys, overrides, reason):
    for name in "xy":
        (heard / name).write_bytes((heard / "heard.wav").read_bytes())
    with pytest.raises(ConfigError):
        speak(configured(heard, *overrides))
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_recording_beyond_the_models_positions_is_refused_and_a_limit_ends_there(setup, heard, refusal):
    soundfile.write(heard / "long.wav", np.zeros(1000 * 60), 1000)
    assert "positions: shorten it" in refusal(speak, configured(heard, "task=continuation", f"audio={heard}/long.wav"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asr", "continuation"])
def test_a_recording_that_cannot_be_heard_stops_none_beside_it(setup, heard, capsys, refusal, name):
    """Its line says why, the others are what they are alone, and the command does not end as if all was done."""
    (heard / "bad.wav").write_bytes(b"no audio")
    soundfile.write(heard / "long.wav", np.zeros(1000 * 60), 1000)
    short = "task.decoding.max_tokens=5" if name == "asr" else "length.max_seconds=0.9"
    files = [f"{heard}/{file}.wav" for file in ("bad", "heard", "long", "heard")]
    cfg = configured(heard, f"task={name}", short, f"audio=[{','.join(files)}]", "sampling.temperature=0")
    made = speak(cfg)
    assert made == items(cfg) and [item["heard"] for item in made] == [[file] for file in files]
    assert ["error" in item for item in made] == [True, False, True, False]
    assert "bad.wav" in made[0]["error"] and "positions: shorten it" in made[2]["error"]
    assert made[1].get("written") == made[3].get("written") and made[1].get("frames") == made[3].get("frames")
    assert "2 of 4 could not be made" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main.__wrapped__(cfg)
    assert ended.value.code == 1
    assert "bad.wav" in refusal(speak, configured(heard, f"task={name}", short, f"audio={files[0]}"))


def test_the_stream_of_a_continuation_begins_with_what_was_heard(setup, heard, capsys):
    waves = {}
    for mode in ("false", "true"):
        speak(configured(heard, "task=continuation", f"audio={heard}/heard.wav", f"stream={mode}", "stream_ahead=2"))
        waves[mode] = soundfile.read(heard / "out/0000.wav")[0]
    assert "first audio after" in capsys.readouterr().out
    (item,) = items(setup)
    assert 0 < item["first_audio_seconds"] <= item["generation_seconds"]
    np.testing.assert_allclose(waves["true"], waves["false"], atol=1e-4)


def test_best_of_n_takes_the_best_and_begins_with_n_of_one(lively_model, vocabulary, ask, rows):
    prompts = ask(rows[:3])
    single = generate(lively_model, vocabulary, prompts, 10, seeds=[4, 5, 6])
    found = best_of(lively_model, vocabulary, prompts, 4, 10, seeds=[4, 5, 6])
    for (best, group), first in zip(found, single, strict=True):
        assert len(group) == 4 and group[0].codes.tolist() == first.codes.tolist()
        assert (best.ended, best.log_probability) == max((c.ended, c.log_probability) for c in group)


def test_a_long_text_is_said_in_parts_that_lie_joined(setup, vocabulary):
    """Whole, while it is made, and by the server's threads: the codes of its parts, one behind the other."""
    door, task, text = AudioModel(setup.model, Voice(vocabulary.tokenizer)), made("task=tts"), "Dogs. They bark. Cats."
    door.longest_texts = {"tts": 12}
    whole, short = door.prompts(task, [task.asked("x", text, []), task.asked("y", "They bark.", [])])
    parts = door.prompts(task, [task.asked("x", part, []) for part in ("Dogs.", "They bark.", "Cats.")])
    assert [part.ids.tolist() for part in whole.parts] == [part.ids.tolist() for part in parts]
    assert [part.most for part in whole.parts] == [part.most for part in parts] and whole.read > short.read
    (clip, clips), (_, [alone, _]) = door.generate([whole, short], Sampling(), [7, 8], count=2)
    of_parts = [found for _, found in door.generate(parts, Sampling(), [7] * 3, count=2)]
    for candidate, said in zip(clips, zip(*of_parts, strict=True), strict=True):
        assert candidate.codes.tolist() == np.concatenate([part.codes for part in said]).tolist()
        assert candidate.ended == all(part.ended for part in said)
        tokens = sum(part.log_probability * part.n_frames for part in said) / candidate.n_frames
        assert candidate.log_probability == pytest.approx(tokens)
    assert clip in clips and alone.codes.tolist() == door.generate([short], Sampling(), [8])[0][0].codes.tolist()
    streamed = Steps(door.stream_codes(whole, Sampling(), 7, StreamDecoder(door.tokenizer, 4, 3, 2)))
    heard = np.concatenate(list(streamed))
    assert streamed.result.codes.tolist() == clips[0].codes.tolist()
    np.testing.assert_allclose(heard, door.decode([clips[0].codes])[0], atol=1e-6)
    (cut,) = door.prompts(task, [task.asked("x", text, [])], in_all=(len(clips[0].codes) - 1.5) / 12.5)
    kept = clips[0].codes[:-2].tolist()
    ((short_of_it, _),) = door.generate([cut], Sampling(), [7])
    assert (short_of_it.codes.tolist(), short_of_it.ended) == (kept, False)
    steps = Steps(door.stream_codes(cut, Sampling(), 7, StreamDecoder(door.tokenizer, 4, 3, 2)))
    assert len(np.concatenate(list(steps))) == 10 * len(kept) and steps.result.codes.tolist() == kept
    speaking, told = Speaking(door, 1, 8, (4, 3, 2)), queue.SimpleQueue()
    for prompt, seed in ((whole, 7), (short, 8)):  # the second waits until all of the first is said
        speaking.ask(prompt, Sampling(), seed, told.put)
    ends = []
    while len(ends) < 2:
        ends += [news] if isinstance(news := told.get(timeout=60), Generation) else []
    assert speaking.close(60)
    assert [end.codes.tolist() for end in ends] == [clips[0].codes.tolist(), alone.codes.tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEAKING)
def test_each_task_owns_its_limits(setup, vocabulary, name):
    """Speech follows its characters, sounds and music never do, and `max_seconds` holds for all."""
    task = made(f"task={name}", "task.decoding.max_seconds=4")
    reference = Request("r", "who", codes=np.zeros((5, 3), np.int64))
    asked = [task.asked("x", text, [reference]) for text in ("dog", "d" * 10, "d" * 60)]
    speech = name in ("tts", "voice_prompted_tts", "interleaved")
    assert [task.seconds(row) for row in asked] == (
        [(0.06, 1.75), (0.2, 3.5), (1.2, 4.0)] if speech else [(0.0, 4.0)] * 3
    )
    door = AudioModel(setup.model, Voice(vocabulary.tokenizer))
    prompts = door.prompts(task, asked)
    assert [prompt.most for prompt in prompts] == ([21, 43, 50] if speech else [50] * 3)
    assert [prompt.least for prompt in prompts] == ([1, 2, 15] if speech else [1] * 3)
    (full,) = door.prompts(task, asked[:1], max_seconds=60.0)
    assert len(full.ids) + 3 * (full.most + 1) <= 256 < len(full.ids) + 3 * (full.most + 2), (
        "the positions are the limit"
    )
    with pytest.raises(TaskError, match=f"task {name}: decoding.max_seconds is missing"):
        type(task)().seconds(asked[0])


def test_a_text_that_cannot_be_said_stops_none_beside_it(setup, tmp_path, capsys):
    (tmp_path / "lm/state.json").write_text(json.dumps({"normalise": "basic"}))
    made = speak(configured(tmp_path, "text=[hello,'***',good morning]"))
    assert "leaves nothing" in made[1]["error"] and made[0]["frames"] and made[2]["frames"]
    assert "1 of 3 could not be made" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in SPEAKING if name != "continuation"])
def test_a_text_of_which_the_normaliser_leaves_nothing_is_refused(name):
    task = made(f"task={name}")
    task.use_normaliser(normalisers("basic"))
    heard = [Request("r", "who", codes=np.zeros((5, 3), np.int64))]
    task.document(task.asked("x", "a dog!", heard), with_target=False)
    with pytest.raises(TaskError, match=f"task {name}: of the text '!!!' text.normalise leaves nothing: write words"):
        task.document(task.asked("x", "!!!", heard), with_target=False)


def test_a_model_whose_texts_need_what_is_not_here_is_refused_at_the_door(setup, vocabulary, tmp_path, monkeypatch):
    (tmp_path / "lm/state.json").write_text('{"normalise": "phonemes"}')
    assert AudioModel(setup.model, Voice(vocabulary.tokenizer)).normalise == "phonemes"
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    pronunciations.cache_clear()
    _function.cache_clear()
    with pytest.raises(ModelError, match="lm: normalising texts as phonemes needs `pip install pocketsphinx`"):
        AudioModel(setup.model, Voice(vocabulary.tokenizer))


@pytest.mark.slow
def test_words_that_are_not_said_are_named(setup, tmp_path, capsys):
    (tmp_path / "lm/state.json").write_text('{"normalise": "phonemes"}')
    setup.text = ["anna carried 3rds apples"]
    speak(setup)
    assert "1 of 4 words are not in its dictionary, as 3RDS: they" in capsys.readouterr().out
    assert items(setup)[0]["text"] == "anna carried 3rds apples", "what a judge compares with is the words"


def test_positions_are_read_under_each_familys_own_name(setup, vocabulary, tmp_path):
    """GPT-2 calls them n_positions."""
    model = shutil.copytree(setup.model, tmp_path / "gpt2")
    sizes = {"n_positions": 96, "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": vocabulary.size}
    AutoConfig.for_model("gpt2", **sizes).save_pretrained(model)
    assert AudioModel(model, Voice(vocabulary.tokenizer)).places == 96


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("temperature", [0.5, -1, 0.5], "sampling.temperature=(0.5, -1, 0.5) must be at least 0."),
        ("temperature", float("nan"), "sampling.temperature=nan must be at least 0."),
        ("temperature", [], "sampling.temperature=() must be a number or a list of them, at least 0."),
        ("top_p", 0, "sampling.top_p=0 must be above 0 and at most 1."),
        ("top_k", 2.5, "sampling.top_k=2.5 must be a whole number or a list of them, at least 0."),
        ("guidance", [1, 2, 3], "sampling.guidance=(1, 2, 3) must be a number, at least 0."),
        ("repetition_share", 2, "sampling.repetition_share=2 must be from 0 to 1."),
        ("repetition_window", float("nan"), "sampling.repetition_window=nan must be a whole number, at least 0."),
    ],
)
def test_what_nothing_can_be_drawn_with_is_refused(setup, refusal, key, value, reason):
    setup.sampling[key] = value
    assert reason in refusal(sampling_of, setup, TTS())


def test_the_task_gives_what_sampling_leaves_open(setup):
    sampling = sampling_of(setup, TTS(decoding={"temperature": 0.3, "top_p": 0.7}))
    assert (sampling.temperature, sampling.top_p) == (0.3, 0.7)
    setup.sampling.temperature = [0.1, 0.2, 0.3]
    assert sampling_of(setup, TTS(decoding={"temperature": 0.3})).temperature == (0.1, 0.2, 0.3)


def test_what_cannot_work_is_refused(setup, tmp_path, refusal):
    setup.text, setup.file = "anna", "texts.txt"
    assert "not both" in refusal(texts_of, setup)
    setup.file = None
    setup.text, setup.stream, setup.best_of = "anna", True, 2
    assert "best_of=1" in refusal(speak, setup)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heard", "speaker", "said"),
    [
        (["rms", "slt"], "slt", ""),
        (["rms", "slt"], "null", ""),
        (["rms", "slt"], "Slt", "has heard rms, slt: choose one of them."),
        ([str(n) for n in range(30)], "slt", "18, 19 and 10 more: choose"),
        ([], "slt", "has heard no speaker by name: give speaker=null."),
        ([], "null", ""),
        (None, "slt", "speaker=slt is taken as it is"),
    ],
)
def test_a_speaker_is_one_that_the_model_has_heard(setup, tmp_path, capsys, heard, speaker, said):
    if heard is not None:
        (tmp_path / "lm/state.json").write_text(json.dumps({"speakers": heard}))
    cfg = configured(tmp_path, "text=anna", "length.max_seconds=0.2", f"speaker={speaker}")
    with pytest.raises(ConfigError) if heard is not None and said else nullcontext():
        assert speak(cfg) and items(cfg)[0].get("speaker") == cfg.speaker
    printed = capsys.readouterr()
    assert said in printed.err + printed.out and ("speaker=" in printed.err + printed.out) == bool(said)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"\xef\xbb\xbfhello there\r\nthe second line\r\n", ["hello there", "the second line"]),
        ("你好,世界\n\n 1.50 \n".encode(), ["你好,世界", "1.50"]),
        ("one\u2028line\x0b, two\x85parts\rnext".encode(), ["one\u2028line\x0b, two\x85parts", "next"]),
        (b"fine\ncaf\xe9 au lait\n", "line 2 is not UTF-8: save the file as UTF-8."),
        ("hello".encode("utf-16"), "line 1 is not UTF-8"),
        ("one\n\ufefftwo files joined\n\u200b\n\0\n\ufeff\ufeffthree".encode(), ["one", "two files joined", "three"]),
        ("می\u200cخواهم".encode(), ["می\u200cخواهم"]),
        (b"\xef\xbb\xbf\n \n", "there is no text to generate from."),
    ],
)
def test_a_text_file_is_its_lines(setup, tmp_path, refusal, data, texts):
    (tmp_path / "texts.txt").write_bytes(data)
    setup.file = str(tmp_path / "texts.txt")
    if isinstance(texts, list):
        assert texts_of(setup) == texts
        return
    assert texts in refusal(texts_of, setup)


def test_a_command_line_that_is_not_utf8_is_refused(setup, refusal):
    setup.text = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert "is not UTF-8" in refusal(texts_of, setup)
