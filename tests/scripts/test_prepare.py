"""Every data set in miniature, in its published layout: what is read, what is refused, what is written again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from json_files import read_json, read_lines
from programs import TINY_CODEC, run_program

import preparation.recipe as recipe_module
import prepare
from codec.corpus import read_corpus
from preparation.good_sounds import split_of
from preparation.good_sounds import stamps as good_stamps


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".opus":
        soundfile.write(path, np.zeros(4800, np.float32), 48_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, np.zeros(160, np.float32), 16_000)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def librispeech(root: Path) -> None:
    text(root / "LibriSpeech/dev-clean/84/121/84-121.trans.txt", "84-121-0000 GO ON\n84-121-0001 STOP\n")
    text(root / "LibriSpeech/test-other/7/8/7-8.trans.txt", "7-8-0000 YES\n")
    for name in ("dev-clean/84/121/84-121-0000", "dev-clean/84/121/84-121-0001", "test-other/7/8/7-8-0000"):
        sound(root / f"LibriSpeech/{name}.flac")


def libritts(root: Path) -> None:
    for name in ("train-clean-100/103/1241/103_1241_000000_000001", "test-clean/61/70/61_70_000000_000002"):
        sound(root / f"LibriTTS_R/{name}.wav")
        text(root / f"LibriTTS_R/{name}.normalized.txt", "Matthew Cuthbert.\n")
        text(root / f"LibriTTS_R/{name}.original.txt", "M. Cuthbert.\n")


def vctk(root: Path) -> None:
    for name in ("p225/p225_001", "p315/p315_001"):
        sound(root / f"wav48_silence_trimmed/{name}_mic1.flac")
        sound(root / f"wav48_silence_trimmed/{name}_mic2.flac")
    text(root / "txt/p225/p225_001.txt", "Please call Stella.\n")


def ljspeech(root: Path) -> None:
    text(root / "LJSpeech-1.1/metadata.csv", 'LJ001-0001|In 1455, "he"|In fourteen fifty-five, "he"\n')
    sound(root / "LJSpeech-1.1/wavs/LJ001-0001.wav")


def mls(root: Path) -> None:
    for split, number in (("train", "1_2_000001"), ("dev", "3_4_000002"), ("test", "5_6_000003")):
        text(root / split / "transcripts.txt", f"{number}\tguten tag\n")
        speaker, book, _ = number.split("_")
        sound(root / split / "audio" / speaker / book / f"{number}{'.opus' if split == 'dev' else '.flac'}")


def audiocaps(root: Path) -> None:
    head = "audiocap_id,youtube_id,start_time,caption\n"
    text(root / "train.csv", head + '91139,r1nicOVtvkQ,130,"A woman talks, and birds sing"\n')
    text(root / "val.csv", head + "1,Yabc,30,A dog\n2,Yabc,30,A dog barks\n3,Yabc,30,Barking\n")
    text(root / "test.csv", head + "7,gone,0,A clip that is not on the web any more\n8,here,0,Rain\n")
    sound(root / "audio/train/r1nicOVtvkQ_130.wav")
    sound(root / "audio/YYabc.flac")
    sound(root / "test/8.wav")


def clotho(root: Path) -> None:
    head = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6)) + "\n"
    for part in ("development", "validation", "evaluation"):
        text(root / f"clotho_captions_{part}.csv", head + "Distorted AM Radio.wav,one,two,three,four,five\n")
        sound(root / part / "Distorted AM Radio.wav")


def fsd50k(root: Path) -> None:
    text(root / "FSD50K.ground_truth/dev.csv",
         'fname,labels,mids,split\n64760,"Electric_guitar,Guitar",/m/0,train\n1,Rain,/m/1,val\n')  # fmt: skip
    text(root / "FSD50K.ground_truth/eval.csv", "fname,labels,mids\n37199,Wind,/m/2\n")
    licences = {"64760": {"license": "http://creativecommons.org/licenses/by/3.0/"}}
    text(root / "FSD50K.metadata/dev_clips_info_FSD50K.json", json.dumps(licences))
    for name in ("dev_audio/64760", "dev_audio/1", "eval_audio/37199"):
        sound(root / f"FSD50K.{name}.wav")


def esc50(root: Path) -> None:
    lines = [f"{fold}-1-A-0.wav,{fold},0,vacuum_cleaner,True,1,A" for fold in range(1, 6)]
    text(root / "meta/esc50.csv", "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines]))
    for fold in range(1, 6):
        sound(root / f"audio/{fold}-1-A-0.wav")


def musiccaps(root: Path) -> None:
    head = (
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval"
    )
    text(
        root / "musiccaps-public.csv",
        head + '\n-a,30,40,/m/0,"[]","A low, slow song",4,False,True\nb,0,10,,,Fast,4,,False\n',
    )
    sound(root / "audio/[-a]-[30-40].wav")
    sound(root / "audio/b.wav")


def medley_solos(root: Path) -> None:
    text(root / "Medley-solos-DB_metadata.csv",
         "subset,instrument,instrument_id,song_id,uuid4\ntest,clarinet,0,0,0e\ntraining,flute,3,1,1b\n")  # fmt: skip
    sound(root / "Medley-solos-DB/Medley-solos-DB_test-0_0e.wav")
    sound(root / "Medley-solos-DB/Medley-solos-DB_training-3_1b.wav")


def nsynth(root: Path) -> None:
    for split, source in (("train", "acoustic"), ("valid", "synthetic"), ("test", "electronic")):
        name = f"bass_{split}_000-060-100"
        note = {"instrument_family_str": "bass", "instrument_source_str": source, "pitch": 60, "velocity": 100,
                "qualities_str": ["dark", "long_release"]}  # fmt: skip
        text(root / f"nsynth-{split}/examples.json", json.dumps({name: note}))
        sound(root / f"nsynth-{split}/audio/{name}.wav")


def audiofolder(root: Path) -> None:
    sound(root / "test/a.wav")
    text(root / "metadata.jsonl", json.dumps({"file_name": "test/a.wav", "text": "hello", "mood": "calm"}) + "\n")


def good_sounds(root: Path) -> None:
    sounds = {
        "1": {
            "id": 1,
            "instrument": "flute",
            "note": "C",
            "octave": 4,
            "klass": "good-sound",
            "player": "almudena",
            "attack": 0,
            "decay": 1600,
            "sustain": 4000,
            "release": 16000,
            "offset": 24000,
        },
        "2": {"id": 2, "instrument": "sax_alto", "note": "Bb", "octave": 3, "klass": "scale-good", "dynamics": None},
    }
    takes = {
        "1": {"id": 1, "microphone": "akg", "filename": "sound_files/flute_almudena_reference/akg/0000.wav"},
        "2": {"id": 2, "microphone": "neumann", "filename": "sound_files/flute_almudena_reference/neumann/0000.wav"},
        "3": {"id": 3, "microphone": "iphone", "filename": "sound_files/saxo_raul_recordings/iphone/0001.wav"},
    }
    for number, take in takes.items():
        take["sound_id"] = 2 if number == "3" else 1
        sound(root / "good-sounds" / str(take["filename"]))
    text(root / "sounds.json", json.dumps(sounds))
    text(root / "takes.json", json.dumps(takes))


def huggingface(root: Path) -> None:
    """Parquet that refers to files; with the audio inside: test_prepare_huggingface.py."""
    for split in ("train", "validation"):
        sound(root / f"wavs/{split}.flac")
        audio = [{"bytes": None, "path": str(root / f"wavs/{split}.flac")}]
        table = pyarrow.table({"audio": audio, "text": [f"the {split} clip"], "speaker": [7]})
        (root / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, root / f"data/{split}-00000-of-00001.parquet")


# clips per split, and one clip in full
EXPECTED = {
    "librispeech": ({"valid": 2, "test-other": 1}, ("84-121-0001", "STOP", [], "84", "speech")),
    "libritts": ({"train": 1, "test": 1}, ("61_70_000000_000002", "Matthew Cuthbert.", [], "61", "speech")),
    "vctk": ({"train": 2}, ("p225_001", "Please call Stella.", [], "p225", "speech")),
    "ljspeech": ({"train": 1}, ("LJ001-0001", 'In fourteen fifty-five, "he"', [], "LJ", "speech")),
    "mls": ({"train": 1, "valid": 1, "test": 1}, ("3_4_000002", "guten tag", [], "3", "speech")),
    "audiocaps": (
        {"train": 1, "valid": 1, "test": 1}, ("Yabc_30", None, ["A dog", "A dog barks", "Barking"], None, "sound")
    ),
    "clotho": (
        {"train": 1, "valid": 1, "test": 1},
        ("evaluation/Distorted AM Radio", None, ["one", "two", "three", "four", "five"], None, "sound"),
    ),
    "fsd50k": ({"train": 1, "valid": 1, "test": 1}, ("64760", None, ["electric guitar, guitar"], None, "sound")),
    "esc50": ({"train": 3, "valid": 1, "test": 1}, ("5-1-A-0", None, ["vacuum cleaner"], None, "sound")),
    "musiccaps": ({"train": 1, "test": 1}, ("-a", None, ["A low, slow song"], None, "music")),
    "medley_solos": ({"train": 1, "test": 1}, ("1b", None, ["flute"], None, "music")),
    "nsynth": (
        {"train": 1, "valid": 1, "test": 1},
        ("bass_train_000-060-100", None, ["a note of an acoustic bass, dark, long release"], None, "music"),
    ),
    "good_sounds": (
        {"train": 2, "test": 1},
        ("saxo_raul_recordings/iphone/0001", None, ["a scale of an alto saxophone"], None, "music"),
    ),
    "huggingface": (
        {"train": 1, "valid": 1}, ("validation/validation", "the validation clip", [], "7", "speech")
    ),
    "audiofolder": ({"test": 1}, ("test/a", "hello", [], None, "speech")),
}  # fmt: skip


def run(name, root, out):
    return prepare.main([name, "--root", str(root), "--out", str(out)])


def test_every_recipe_has_a_miniature():
    assert sorted(EXPECTED) == prepare.NAMES


@pytest.mark.parametrize("name", EXPECTED)
def test_a_miniature_becomes_a_corpus(name, tmp_path, capsys):
    root, out = tmp_path / "published", tmp_path / "corpora" / name
    globals()[name](root)
    files = sorted(root.rglob("*"))
    assert run(name, root, out) == 0
    assert "written" in capsys.readouterr().out
    clips, rejects = read_corpus(out)
    assert not rejects
    splits, (identity, spoken, captions, speaker, domain) = EXPECTED[name]
    assert {s: sum(clip.split == s for clip in clips) for s in {clip.split for clip in clips}} == splits
    clip = next(clip for clip in clips if clip.id == identity)
    assert (clip.text, clip.captions, clip.speaker, clip.domain) == (spoken, captions, speaker, domain)
    assert all(clip.licence and clip.extra["source"].startswith("https://") for clip in clips)
    assert all(root in clip.path.parents for clip in clips)  # referenced where it lies
    assert sorted(root.rglob("*")) == files
    before = (out / "metadata.jsonl").stat().st_mtime_ns
    assert run(name, root, out) == 0  # again: nothing to do
    assert "is current" in capsys.readouterr().out
    assert (out / "metadata.jsonl").stat().st_mtime_ns == before
    assert {path.name for path in out.iterdir()} <= {"metadata.jsonl", "missing.jsonl"}


@pytest.mark.slow
def test_a_codec_learns_from_fsd50k_by_one_command(tmp_path, monkeypatch, capsys):
    """slow: trains twice. All clips, and then so many, drawn, of the train and of the valid split."""
    monkeypatch.chdir(tmp_path)
    root = Path("FSD50K")
    fsd50k(root)
    head = "fname,labels,mids,split\n"
    rows = [f"{n},Rain,/m/1,{'val' if n > 4 else 'train'}" for n in range(1, 9)]
    text(root / "FSD50K.ground_truth/dev.csv", head + "\n".join(rows))
    for number in range(1, 9):
        wave = 0.1 * np.sin(np.arange(8000) * number / 40)
        soundfile.write(root / f"FSD50K.dev_audio/{number}.wav", wave, 16_000)
    assert run("fsd50k", root, "corpora/fsd50k") == 0
    steps = ["trainer.max_steps=1", "trainer.quantize_from=1", "trainer.valid_every=1", "data.root=corpora/fsd50k"]
    for name, more, counts in (
        ("all", [], "{'sound': 4} training clips, 4 validation clips"),
        ("some", ["data.train_subset=3", "data.valid_subset=1"], "{'sound': 3} training clips, 1 validation clips"),
    ):
        capsys.readouterr()
        run_program("codec_train", f"name={name}", *TINY_CODEC, *steps, *more)
        assert counts in capsys.readouterr().out and Path(f"runs/{name}/final/model.safetensors").is_file()


def test_good_sounds_has_stamps_in_seconds_and_no_performance_in_two_splits(tmp_path):
    """One microphone's file has another rate; a scale has neither stamps nor a note."""
    good_sounds(tmp_path / "g")
    path = tmp_path / "g/good-sounds/sound_files/flute_almudena_reference/neumann/0000.wav"
    soundfile.write(path, np.zeros(160, np.float32), 8_000)
    assert run("good_sounds", tmp_path / "g", tmp_path / "out") == 0
    clips = {clip.id.split("/")[1]: clip for clip in read_corpus(tmp_path / "out")[0]}
    stamps = {"attack": 0, "decay": 0.1, "sustain": 0.25, "release": 1.0, "offset": 1.5}
    assert {key: clips["akg"].extra[key] for key in stamps} == stamps
    assert clips["neumann"].extra["offset"] == 3.0 and "offset" not in clips["iphone"].extra
    assert (
        clips["akg"].split == clips["neumann"].split and clips["akg"].extra["sound"] == clips["neumann"].extra["sound"]
    )
    assert clips["akg"].extra["note"] == "C" and "note" not in clips["iphone"].extra
    splits = [split_of(number) for number in range(1000)]
    assert 550 < splits.count("train") < 650 and 100 < splits.count("valid") < 200 < splits.count("test")
    wrong = {"attack": 9, "decay": 1, "sustain": 2, "release": 3, "offset": 4}
    assert good_stamps(wrong, path) == good_stamps({**wrong, "attack": None}, path) == {}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("wrong", ["empty", "another", "absent"])
def test_a_wrong_root_is_one_sentence_that_says_where_the_set_is_obtained(name, wrong, tmp_path, capsys):
    root = tmp_path / wrong
    if wrong != "absent":
        root.mkdir()
    if wrong == "another":
        text(root / "some" / "readme.txt", "not it")
    assert run(name, root, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "obtained from https://" in message and str(root) in message
    assert not (tmp_path / "out").exists()


def test_counts_are_compared_with_the_published_ones(tmp_path, capsys):
    librispeech(tmp_path / "l")
    run("librispeech", tmp_path / "l", tmp_path / "a")
    printed = capsys.readouterr().out
    assert "dev-clean: 2 clips of 2,703 published" in printed and "not there: dev-other" in printed
    recipe = prepare.recipe("esc50")
    esc50(tmp_path / "e")
    whole = type(recipe)(recipe.title, recipe.source, recipe.licence, recipe.read, {"train": 3, "valid": 1, "test": 1})
    assert prepare.prepare(whole, tmp_path / "e", tmp_path / "b").lines == [
        "test: 1 clips, as published (1)", "train: 3 clips, as published (3)", "valid: 1 clips, as published (1)",
    ]  # fmt: skip


def test_clips_without_audio_are_listed_and_come_back(tmp_path, capsys):
    audiocaps(tmp_path / "a")
    run("audiocaps", tmp_path / "a", tmp_path / "out")
    assert "1 clips have no audio" in capsys.readouterr().out
    assert read_json(tmp_path / "out/missing.jsonl")["id"] == "gone_0"
    sound(tmp_path / "a/audio/gone_0.wav")
    run("audiocaps", tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out/missing.jsonl").exists() and len(read_corpus(tmp_path / "out")[0]) == 4


def test_the_data_set_itself_is_never_written_to(tmp_path, capsys):
    ljspeech(tmp_path)
    assert run("ljspeech", tmp_path, tmp_path / "new") == 1
    assert "outside" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_metadata_without_its_columns_is_refused(tmp_path, capsys):
    esc50(tmp_path / "e")
    text(tmp_path / "e/meta/esc50.csv", "filename,fold\na.wav,1\n")
    assert run("esc50", tmp_path / "e", tmp_path / "out") == 1
    assert "has no column category" in capsys.readouterr().err


def test_what_an_audiofolder_cannot_give_stops_nothing_and_is_listed(tmp_path, capsys):
    root, out = tmp_path / "published", tmp_path / "out"
    audiofolder(root)
    text(root / "metadata.jsonl", '{"file_name": "test/a.wav"}\n{"file_name": "../b.wav"}\n{"file_name": ')
    for name in ("audiofolder", "huggingface"):
        assert run(name, root, out / name) == 0
        assert (
            "no split: 0 clips\n" in (said := capsys.readouterr().out) and "2 clips have no audio or cannot be" in said
        )
        lost = [line["reason"] for line in read_lines(out / name / "missing.jsonl")]
        assert "line 2: the file does not exist" in lost[0] and "line 3 is not valid JSON" in lost[1]
        assert [clip.id for clip in read_corpus(out / name)[0]] == ["test/a"]


def test_ids_and_names_that_no_corpus_takes_are_listed(tmp_path):
    sound(tmp_path / "a.wav")
    items = [recipe_module.Item(identity, tmp_path / "a.wav", "train") for identity in ("a", "../b", "c\ud800")]
    items.append(recipe_module.Item("d", tmp_path / ("d" * 300), "train"))
    recipe = recipe_module.Recipe("a set", "https://example.com", "CC0", lambda _: items)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    recipe_module.prepare(recipe, tmp_path, out)
    lost = {row["id"]: row["reason"] for row in read_lines(out / "missing.jsonl")}
    assert set(lost) == {"../b", "c\\ud800", "d"} and "leads out" in lost["../b"] and "no such file" in lost["d"]
    assert [clip.id for clip in read_corpus(out)[0]] == ["a"]
