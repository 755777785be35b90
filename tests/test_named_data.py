"""The data is what was named: every program that reads a corpus refuses one that is not there, and takes no other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from json_files import read_lines, write_lines
from programs import PROGRAMS, run_program
from tiny_models import tiny_codec
from tiny_tones import write_corpus

from codec.corpus import CorpusError
from codec.encode import encode_corpus
from codec.shards import ShardError, read_index, read_shards
from codec.shards.token_source import OWNER, check_current, corpus_name, named_shards, shipped_shards, token_folder
from lm.recipe.token_rows import TokenRowsError, find_token_rows, left_out
from training.config import CONFIG_DIR, REPOSITORY, compose

MORE = {  # what some of them must be told besides
    "codec_semantic_prior": ["sources=[{encoder: checkpoints/codec-mini, layer: 0, count: 4, domains: [speech]}]"],
}


def test_the_table_holds_every_program() -> None:
    drawing = {path.stem for path in CONFIG_DIR.glob("*.yaml") if "- data: mini" in path.read_text(encoding="utf-8")}
    assert drawing - {"ablate_lm"} == set(PROGRAMS)  # scripts/ablate_lm.py hands data.root on to two of these


@pytest.mark.slow
@pytest.mark.parametrize("root", ["missing", "empty", "file.wav", "metadata alone", "", None])
@pytest.mark.parametrize("config", PROGRAMS)
def test_a_corpus_that_is_not_there_is_refused(
    config: str, root: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(REPOSITORY)  # where the embedded corpus and the models that ship are found
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.wav").write_bytes(b"RIFF")
    (tmp_path / "metadata alone").mkdir()
    rows = [{"file_name": f"{split}.wav", "text": "a", "split": split} for split in ("train", "valid", "test")]
    write_lines(tmp_path / "metadata alone/metadata.jsonl", rows)
    folder = str(tmp_path / root) if root else root
    keys = [
        f"data.root={'null' if folder is None else folder}",
        f"{'name' if config in ('codec_train', 'lm_train') else 'out'}={tmp_path}/out",
    ]
    said = refusal(run_program, config, *keys, *MORE.get(config, []))
    assert (str(folder) if root else "no corpus folder was named") in said
    if root == "metadata alone" and config != "eval_likelihood":  # that one reads tokens, and names their folder
        assert "the first because: metadata.jsonl line 1: the file does not exist" in said
    assert not list(tmp_path.glob("out/[!.]*"))


@pytest.fixture
def corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two corpora, `mine` and `other`, in the working directory; `other` ships the shards of a tiny codec."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        write_corpus(tmp_path / name)
        table = tmp_path / name / "metadata.jsonl"
        table.write_text(table.read_text(encoding="utf-8").replace("clip-", f"{name}-"), encoding="utf-8")
    encode_corpus("other", tiny_codec(), "other/tokens")
    return tmp_path


def rows_of(*keys: str) -> tuple[set[str], list[str]]:
    said: list[str] = []
    data = compose("lm_train", list(keys)).data
    found = find_token_rows(data, tiny_codec(), Accelerator(cpu=True), said.append)
    return {row.id.split("-")[0] for row in found.rows}, said + found.sources


def test_a_training_reads_the_corpus_that_was_named_and_says_so(corpora: Path) -> None:
    ids, said = rows_of("data.root=mine")
    assert ids == {"mine"} and any("mine" in line for line in said) and not any("data/mini" in line for line in said)
    assert any("h of speech (train)" in line for line in said)
    assert rows_of("data.root=mine", "data.name=voice")[0] == {"mine"}
    assert rows_of("data.root=other")[0] == {"other"}
    assert rows_of("data.root=mine", "data.tokens=other/tokens")[0] == {"other"}  # shards that are named stand alone


def test_a_training_counts_the_clips_that_its_task_cannot_use(corpora: Path) -> None:
    rows_of("data.root=mine")
    rows = read_shards(token_folder("mine", tiny_codec()))
    assert left_out(rows, rows) == ""
    rows[1].domain = "music"
    assert left_out(rows, rows[2:]) in ("2 of 10 (1 speech, 1 music)", "2 of 10 (1 music, 1 speech)")


def test_shards_inside_a_corpus_are_enough_and_belong_to_it_alone(corpora: Path) -> None:
    for file in (corpora / "other/speech").iterdir():
        file.unlink()
    ids, said = rows_of("data.root=other")
    assert ids == {"other"} and "none of the files that the metadata of other names is there" in said[0]
    (corpora / "other/metadata.jsonl").unlink()
    assert rows_of("data.root=other")[0] == {"other"}
    with pytest.raises(TokenRowsError, match="no audio, no metadata and no token shards"):
        rows_of("data.root=other", "data.tokens=null")
    assert shipped_shards(compose("lm_train", ["data.root=mine"]).data) is None


@pytest.mark.parametrize("kept", ["metadata.jsonl", "split folders", "no metadata"])
def test_metadata_may_lie_in_the_folders_of_the_splits(corpora: Path, kept: str) -> None:
    root = corpora / "mine"
    if kept == "split folders":
        rows = read_lines(root / "metadata.jsonl")
        for row in rows:
            folder = root / row.pop("split")
            folder.mkdir(exist_ok=True)
            name = Path(row["file_name"]).name
            (root / row["file_name"]).rename(folder / name)
            with (folder / "metadata.jsonl").open("a", encoding="utf-8") as table:
                table.write(json.dumps({**row, "file_name": name}) + "\n")
    if kept != "metadata.jsonl":
        (root / "metadata.jsonl").unlink()
    find_token_rows(compose("lm_train", ["data.root=mine"]).data, tiny_codec(), Accelerator(cpu=True), print)
    found = read_shards(token_folder("mine", tiny_codec()))
    assert len(found) == 10
    if kept != "no metadata":
        assert {row.split for row in found} == {"train", "valid", "test"} and all(row.text for row in found)


def test_tokens_of_one_corpus_are_never_replaced_by_those_of_another(corpora: Path) -> None:
    encode_corpus("mine", tiny_codec(), "tokens")
    before = {path.name: path.read_bytes() for path in Path("tokens").iterdir()}
    with pytest.raises(ShardError, match=r"holds the tokens of .*mine, not of .*other"):
        encode_corpus("other", tiny_codec(), "tokens")
    assert {path.name: path.read_bytes() for path in Path("tokens").iterdir()} == before
    (corpora / "mine").rename(corpora / "moved")  # the same files elsewhere are the same corpus
    assert encode_corpus("moved", tiny_codec(), "tokens").current
    (corpora / "new").mkdir()
    for name in ("moved", "tokens"):
        (corpora / name).rename(corpora / "new" / name.replace("moved", "mine"))
    (corpora / "new/mine/speech/0.flac").touch()  # moved with its tokens and changed, it is still theirs
    assert encode_corpus("new/mine", tiny_codec(), "new/tokens").encoded == 10
    (corpora / "new/tokens").rename("tokens")
    (Path("tokens") / OWNER).write_text("{", encoding="utf-8")
    with pytest.raises(ShardError, match="is damaged"):
        encode_corpus("other", tiny_codec(), "tokens")
    assert read_index("tokens").rows


def test_the_name_of_a_cache_follows_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert corpus_name("data/mini") == "data-mini" == corpus_name(tmp_path / "data/mini")
    assert corpus_name("data/mini", "voice") == "voice"
    assert corpus_name(tmp_path.parent / "mini") == "-".join((tmp_path.parent / "mini").parts).strip("/-")
    names = {corpus_name(path) for path in ("a/data", "b/data", "../data", ".")}
    assert len(names) == 4 and all("/" not in name and name for name in names)


@pytest.mark.parametrize("name", ["../other", "a/../../b", "/elsewhere/b"])
def test_a_name_does_not_lead_out_of_the_folder_of_caches(name: str) -> None:
    with pytest.raises(CorpusError, match="leads out of runs/tokens"):
        corpus_name("data/mini", name)


def test_the_name_of_a_deep_folder_is_one_that_file_systems_take(tmp_path: Path) -> None:
    deep = [tmp_path / "/".join([part * 60] * 5) for part in ("ä", "b", "c")]
    names = [corpus_name(path) for path in deep]
    assert len(set(names)) == 3 and all(len(name.encode()) <= 200 for name in names)
    assert names[1] == corpus_name(deep[1]) != corpus_name(Path("b" * 60) / deep[1].relative_to("/"))


def test_a_cache_of_another_corpus_or_of_an_earlier_state_is_not_read(corpora: Path) -> None:
    cache = token_folder("mine", tiny_codec(), name="voice")
    encode_corpus("mine", tiny_codec(), cache)
    check_current(cache, "mine")
    with pytest.raises(ShardError, match=r"holds the tokens of .*mine, not of .*other"):
        check_current(cache, "other")
    with pytest.raises(ShardError, match=r"holds the tokens of .*mine, not of .*other"):
        rows_of("data.root=other", "data.name=voice", "data.tokens=null")
    table = corpora / "mine/metadata.jsonl"
    table.write_text(table.read_text(encoding="utf-8").replace("green", "red"), encoding="utf-8")
    with pytest.raises(ShardError, match="was made before mine changed"):
        check_current(cache, "mine")


def test_shards_that_are_named_must_be_there(tmp_path: Path) -> None:
    for folder, reason in ((tmp_path / "none", "no such folder"), (tmp_path, "no index.json is in it")):
        with pytest.raises(ShardError, match=reason):
            named_shards(compose("lm_train", [f"data.tokens={folder}"]).data)
    with pytest.raises(CorpusError, match="does not exist"):
        encode_corpus(tmp_path / "none", tiny_codec(), tmp_path / "out")
