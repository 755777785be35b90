"""Files that ids name stay in their folder, each id has its own, and none is too long: every writer of such files."""

import hashlib
import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import page_fixtures
import pytest
import soundfile
from json_files import read_lines, write_lines
from programs import run_program
from tiny_models import tiny_codec
from tiny_tones import write_corpus

from codec.corpus import Clip
from codec.recipe.validation import validate
from codec.reconstruct import find_audio, reconstruct_files
from demo_page import Options, build_page
from eval.harness.clips import find_generated, read_generated
from eval.harness.scored import split_usable, write_clip
from listening_test import write_listening_test
from page.data import read_evaluation
from page.sections import make_sections
from training.config import REPOSITORY
from training.identity import file_names, path_inside

ODD = [  # ids that are fine
    "plain", "speech/0001", "A", "a", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "a/b",
    "a_b", "b.wav/c", "b", "n" * 251, "n" * 251 + "m", "x" * 900, "/".join(["y" * 200] * 5), "$x_{$", "<b>&'\"", "*?|",
    "~", "-x",
]  # fmt: skip
WRONG = ["../../victim/song", "/etc/victim", "a/../../b", "", ".", "a//b", "a\nb", "a\0b", "\ud800", "z" * 2000]


def folded(path: object) -> str:
    """What a file system without case and forms of accents takes a name for."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def check_files(folder: Path, count: int, suffix: str) -> None:
    files = [path.relative_to(folder) for path in folder.rglob(f"*{suffix}") if path.is_file()]
    assert len(files) == count == len(set(map(folded, files)))


def write(path: Path, value: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(2400, value, np.float32), 24_000)
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file beside the folder that is written, which must stay as it is."""
    path = tmp_path / "victim/song.wav"
    path.parent.mkdir()
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine" and [p.name for p in path.parent.iterdir()] == ["song.wav"]


def test_each_id_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = file_names(ODD, ".wav")
    assert list(names) == ODD and names["speech/0001"] == "speech/0001.wav" and names["plain"] == "plain.wav"
    assert len(set(map(folded, names.values()))) == len(ODD)
    for name in names.values():  # the longest path of an evaluation
        path = path_inside(tmp_path, f"wavs/generated-shuffled/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    check_files(tmp_path, len(ODD), ".wav")
    assert file_names(reversed(ODD), ".wav") == names  # whatever the order
    assert file_names(["a"], ".wav") == {"a": "a.wav"}


def test_an_id_that_takes_the_file_of_another_is_refused() -> None:
    digest = hashlib.sha256(b"A").hexdigest()[:16]
    with pytest.raises(ValueError, match="two clips would share a file"):
        file_names(["A", "a", f"A-{digest}"], ".wav")


@pytest.mark.parametrize("identity", WRONG)
def test_what_is_no_id_is_no_name_of_a_file(identity: str, tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out/a/b"
    for write_it in (
        lambda: file_names(["a", identity], ".wav"),
        lambda: path_inside(out, identity),
        lambda: write_clip(out, f"wavs/x/{identity}", np.zeros(9, np.float32), 8000),
    ):
        if identity in ("", ".") and "write_clip" in write_it.__code__.co_names:
            continue  # a folder, which is not written
        with pytest.raises(ValueError, match="no file of the name"):
            write_it()
    assert not out.exists()


def test_reconstructions_have_files_of_their_own(tmp_path: Path, victim: Path, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "source"
    odd = ["a.wav", "A.wav", "a.flac", "a.wav.ogg", f"{'n' * 251}.wav", "sub/a.wav", "sub/\n.wav", "b.flac.wav"]
    for name in odd:
        write(source / name)
    (source / "dead.wav").symlink_to("gone.wav")
    (source / "b\udce9.wav").write_bytes((source / "a.wav").read_bytes())
    (source / "c.m4a").write_bytes(b"no audio that is known")
    done, refused = reconstruct_files(source, tmp_path / "out", tiny_codec())
    check_files(tmp_path / "out", 7, ".flac")
    assert len(done) == 7 and len(refused) == 4  # every file is one or the other
    said = " ".join(refused)
    for reason in ("has control characters", "leads nowhere", "not UTF-8", "c.m4a"):
        assert reason in said
    assert said.encode()
    given = [source / "sub/\n.wav", source / "b\udce9.wav", source / "A.wav"]
    done, refused = reconstruct_files(given, tmp_path / "alone", tiny_codec())  # named one by one
    assert len(done) == 1 and len(refused) == 2 and "its name cannot be used" in refused[0]
    with pytest.raises(ValueError, match="is the source itself"):
        write(source / "a.wav.flac")  # what becomes of a.wav
        reconstruct_files(source, source, tiny_codec())


@pytest.mark.slow
def test_samples_of_a_validation_have_files_of_their_own(tmp_path: Path, victim: Path) -> None:
    audio = write(tmp_path / "a.wav")
    clips = [Clip(identity, audio, domain="sound") for identity in ODD]
    validate(tiny_codec(), clips, tmp_path / "runs/x/samples", pictures=len(clips))
    check_files(tmp_path / "runs/x/samples", len(ODD), ".wav")
    with pytest.raises(ValueError, match="no file of the name"):
        validate(tiny_codec(), [Clip("../../../victim/song", audio, domain="sound")], tmp_path / "runs/x/samples")


@pytest.mark.slow
@pytest.mark.parametrize("made", [page_fixtures.reconstruction, page_fixtures.tts], ids=lambda made: made.__name__)
def test_pages_and_listening_tests_write_into_their_folder(
    made: Callable[[Path], Path], tmp_path: Path, victim: Path
) -> None:
    evaluation = made(tmp_path / f"runs/x/eval-{made.__name__}")
    lines = read_lines(evaluation / "items.jsonl")
    ids = dict(
        zip(dict.fromkeys(line["id"] for line in lines), ["../../victim/song", "x" * 3000, "/a\0"], strict=False)
    )
    lines = [line | {"id": ids.get(line["id"], line["id"])} for line in lines]
    write_lines(evaluation / "items.jsonl", lines)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}
    build_page([evaluation], tmp_path / "out/page", Options(count=2))
    write_listening_test(
        make_sections([read_evaluation(evaluation)], ("random",), 2, 0), tmp_path / "out/test", "A test"
    )
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}
    assert {path for path in after - before if not path.name.startswith(".")} == set()
    assert len(list((tmp_path / "out").rglob("*.wav"))) > 2


EVALUATIONS = {  # configuration → options that make it short, rows whose audio is written
    "eval_asr": (["rows=[reference,resynthesis]"], ["reference", "resynthesis"]),
    "eval_captioning": (["rows=[generated]", "meteor=false"], ["reference"]),
    "eval_prompted": (
        ["embeddings=[]", "dnsmos=false", "rows=[reference,resynthesis]"],
        ["given", "reference", "resynthesis"],
    ),
    "eval_reconstruction": (
        ["metrics=[stoi]", "concat=[]", "anchors=false", "splits=[test]"],
        ["reference", "resynthesis"],
    ),
    "eval_text_to_audio": (
        ["task=text_to_sound", "rows=[reference,resynthesis]", "against=test"],
        ["reference", "resynthesis"],
    ),
    "eval_tts": (["dnsmos=false", "rows=[reference,resynthesis]"], ["reference", "resynthesis"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a corpus whose test split has odd ids, and a line that means harm."""
    tmp = tmp_path_factory.mktemp("odd")
    (tmp / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    write_corpus(tmp / "corpus")
    path = tmp / "corpus/metadata.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    shutil.copy(tmp / "corpus" / first["file_name"], tmp / "corpus/x.flac")
    rows: list[dict[str, Any]] = []
    for domain in ("speech", "sound"):
        for identity in ["A", "a", "é", "e\u0301", "n" * 253, "b.wav/c", "b", "../../victim/song"]:
            text = (
                {"text": "one two three", "speaker": "x"} if domain == "speech" else {"caption": ["a tone", "a beep"]}
            )
            head = {"file_name": "x.flac", "id": identity if domain == "speech" else f"{identity}!", "split": "test"}
            rows.append({**head, "domain": domain, **text})
    write_lines(path, rows)
    return tmp


@pytest.mark.slow
@pytest.mark.parametrize("config", EVALUATIONS)
def test_evaluations_write_a_file_for_each_clip_and_none_elsewhere(
    config: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    victim = place / "victim/song.wav"
    victim.parent.mkdir(exist_ok=True)
    victim.write_text("mine")
    options, rows = EVALUATIONS[config]
    keys = ["data.root=corpus", f"out=runs/{config}", "recognisers=[]", *options]
    model = [] if config == "eval_reconstruction" else ["model=checkpoints/lm-all-mini"]
    keys = [key for key in keys if not (key.startswith("recognisers") and config.endswith(("captioning", "to_audio")))]
    run_program(config, *keys, *model)
    out = place / "runs" / config
    items = read_lines(out / "items.jsonl")
    for row in rows:
        mine = [item for item in items if item.get("audio", "").startswith(f"wavs/{row}/")]
        written = {item["given"] if row == "given" else item["id"]: item["audio"] for item in mine}
        audio = list(written.values())
        assert len(set(map(folded, audio))) == len(audio) and (len(audio) == 7 or row == "given")
        assert all((out / name).resolve().is_relative_to(out.resolve()) and (out / name).is_file() for name in audio)
        check_files(out / "wavs" / row, len(audio), ".wav")
    assert victim.read_text() == "mine" and sorted(path.name for path in place.iterdir()) == sorted(
        ["checkpoints", "corpus", "runs", "victim"]
    )
    assert "leads out of its folder" in capfd.readouterr().out


def test_audio_of_another_system_is_found_below_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ids = ["speech/one", "two", "A", "a", "é", "n" * 253, "lost"]
    theirs = tmp_path / "theirs"
    names = file_names(ids, ".wav")
    files = ["speech/one.flac", "two.wav", names["A"], names["a"], "e\u0301.wav", names["n" * 253], "other/three.wav"]
    for number, name in enumerate(files):
        write(theirs / name, 0.01 * number)
    found = find_generated(theirs, ids)
    assert {identity: path.relative_to(theirs).as_posix() for identity, (path,) in found.items()} == dict(
        zip(ids, files[:-1], strict=False)
    )
    assert "1 files of" in capsys.readouterr().out
    clips = [Clip(identity, tmp_path, "one") for identity in ids]
    row, record = read_generated(theirs, clips)
    assert [clip.wav is not None for clip in row] == [True] * 6 + [False] and record["files"] == 6
    assert "has no file for lost" in row[-1].item["error"]


def test_two_files_of_one_clip_are_a_failure_of_that_clip(tmp_path: Path, refusal: Callable[..., str]) -> None:
    for name in ("a.wav", "a.flac", "b.wav"):
        write(tmp_path / name)
    (two, one), record = read_generated(tmp_path, [Clip(name, tmp_path, "one") for name in "ab"])
    assert two.wav is None and not two.undelivered() and one.wav is not None and record["files"] == 1
    assert "a.flac and a.wav are both named after a: keep one" in split_usable([two, one])[1]["a"]
    assert "none of the 1 clips can be read" in refusal(read_generated, tmp_path, [Clip("a", tmp_path, "one")])
    assert list(find_generated(tmp_path, ["b"])) == ["b"]  # whatever lies there besides
    for folder, reason in ((tmp_path / "gone", "no such folder"), (tmp_path, "no audio file named after a clip")):
        assert reason in refusal(find_generated, folder, ["c"])


def test_finding_audio_takes_steps_in_proportion_to_the_files(tmp_path: Path) -> None:
    def steps(count: int) -> int:
        """Calls of functions: what a clock would say depends on the machine."""
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.wav").touch()
        calls = 0

        def count_one(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count_one)
        try:
            found, _ = find_audio(folder)
        finally:
            sys.setprofile(None)
        assert len(found) == count and found["7"] == folder / "7.wav"
        return calls

    assert steps(400) < 6 * steps(100)
