"""Every program that reads a corpus runs on a folder of one's own, metadata per split, and reads nothing else."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import TINY_CODEC, run_program
from tiny_tones import write_corpus

from training.config import REPOSITORY

EVALUATION = ["recognisers=[]", "limit=2"]
MODEL = "model=checkpoints/lm-all-mini"
SHORT: dict[str, list[str]] = {  # configuration → options that make it short
    "encode": [],
    "codec_train": [
        *TINY_CODEC, "trainer.max_steps=1", "trainer.quantize_from=1", "trainer.valid_every=1", "trainer.valid_clips=1",
    ],
    "codec_semantic_prior": ["sources=[{encoder: checkpoints/codec-mini, layer: 0, count: 4, domains: [speech]}]"],
    "codec_classical": [],
    "lm_train": ["lm=micro", "trainer.max_steps=1", "trainer.batch_rows=1"],
    "eval_asr": [MODEL, "rows=[generated]", *EVALUATION],
    "eval_captioning": [MODEL, "rows=[generated]", "meteor=false", "limit=2"],
    "eval_likelihood": [MODEL, "task=tts", "limit=2"],
    "eval_reconstruction": ["metrics=[stoi]", "concat=[]", "anchors=false", *EVALUATION],
    "eval_semantics": ["probes=[speaker]", "runs=1"],
    "eval_text_to_audio": [MODEL, "task=text_to_sound", "max_seconds=1", "limit=2"],
    "eval_tts": [MODEL, "dnsmos=false", "rows=[resynthesis]", *EVALUATION],
}  # fmt: skip

watched: list[set[str]] = []  # the files that are opened while this holds a set


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if watched and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
        watched[0].add(os.path.abspath(arguments[0]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the embedded corpus and the checkpoints, and `mine`: ten sentences and ten sounds."""
    tmp = tmp_path_factory.mktemp("own")
    for name in ("data", "checkpoints"):
        (tmp / name).symlink_to(REPOSITORY / name)
    write_corpus(tmp / "written")
    for line in (tmp / "written/metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        source, folder = tmp / "written" / row.pop("file_name"), tmp / "mine" / row.pop("split")
        folder.mkdir(parents=True, exist_ok=True)
        sound = {"id": f"sound-{row['id']}", "domain": "sound", "caption": f"a sound of {row['text']}"}
        with (folder / "metadata.jsonl").open("a", encoding="utf-8") as table:
            for clip in (row, sound):
                shutil.copy(source, folder / f"{clip['id']}.flac")
                table.write(json.dumps({**clip, "file_name": f"{clip['id']}.flac"}) + "\n")
    sys.addaudithook(_note)  # for ever: such hooks cannot be taken out
    yield tmp
    shutil.rmtree(tmp)


@pytest.mark.slow
@pytest.mark.parametrize("config", SHORT)
def test_a_program_reads_the_folder_that_was_named_and_nothing_of_another_corpus(
    config: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    out = place / "out" / config
    key = "name" if config in ("codec_train", "lm_train") else "out"
    if config == "eval_likelihood":  # of tokens, which stand in their default place
        run_program("encode", "data.root=mine")
    options = [*SHORT[config], "data.root=mine", *([] if config == "encode" else [f"{key}={out}"])]
    watched.append(set())
    try:
        run_program(config, *options)
    finally:
        opened = watched.pop()
    others = (place / "data/mini", REPOSITORY / "data/mini")
    assert not [path for path in opened if any(Path(path).is_relative_to(other) for other in others)]
    assert any(Path(path).is_relative_to(place / "mine") for path in opened)
    assert {path.name for path in place.glob("runs/tokens/*")} <= {"mine"}
    said = capfd.readouterr().out
    assert "data/mini" not in said
    if config == "lm_train":
        assert "data: 20 clips encoded from mine" in said and "h of speech (train)" in said
    if config == "codec_train":
        assert "corpus mine: {'speech': 6, 'sound': 6} training clips, 1 validation clips" in said
    if config == "eval_reconstruction":  # `-shards` is the usage of codes of shards inside the corpus
        assert "-shards" not in (out / "results.json").read_text(encoding="utf-8")
