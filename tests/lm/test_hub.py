"""lm/hub.py against a stand-in of the hub: what travels, what the card says, what is refused, and that it loads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from tiny_models import tiny_codec
from transformers import AutoModel, AutoModelForCausalLM

from codec.shards import Row, ShardWriter, TokenizerInfo
from lm import hub
from lm.model import load_lm, save_lm
from training.config import REPOSITORY, compose, group_options

CONSENT = "Anna, who recorded herself, agreed in writing."


class StandIn:
    """The hub as folders below ``hub``."""

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        Path("hub", repo).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, Path("hub", repo_id), dirs_exist_ok=True)


def download(name: str, revision: str | None, allow_patterns: list[str], local_dir: str | None) -> str:
    if not Path("hub", name).is_dir():
        raise OSError(f"there is no repository {name}\nand more")
    out = Path(local_dir or "cache")
    out.mkdir(exist_ok=True)
    for pattern in allow_patterns:
        for file in Path("hub", name).glob(pattern):
            shutil.copy(file, out)
    return str(out)


@pytest.fixture
def final(tmp_path: Path, model, vocabulary, text_tokenizer, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> Path:
    """``runs/anna/final``: a model with its run's settings, tokens and evaluation; the hub is a stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = Path("runs/anna/final")
    save_lm(folder, model, vocabulary, text_tokenizer)
    (folder / "state.json").write_text(json.dumps({"task": "tts", "step": 9, "speakers": ["anna"]}))
    (folder / "old.bin").write_bytes(b"a pickle")
    with ShardWriter("tokens", TokenizerInfo("stand-in", "a1" * 32, 24_000, 12.5, vocabulary.codebook_sizes)) as writer:
        for row in rows:
            row.licence = "CC0-1.0"
            writer.add(row)
    (folder.parent / "config.yaml").write_text("data:\n  root: x\n  tokens: tokens\n")
    score = {"value": 0.25, "low": 0.125, "high": 0.375, "n": 20, "n_failed": 0}
    results = {"rows": {"generated": {"wer/whisper": score}}, "how": {"corpus": {"name": "anna", "split": "test"}}}
    (folder.parent / "eval-tts").mkdir()
    (folder.parent / "eval-tts/results.json").write_text(json.dumps(results))
    return folder


def run(*settings: str) -> None:
    hub.main.__wrapped__(compose("hub", list(settings)))


def test_what_is_pushed_is_pulled_and_loads_by_transformers_alone(final: Path) -> None:
    run(f"folder={final}", "repo=me/anna", "licence=cc0-1.0", f"consent='{CONSENT}'")
    assert not Path("hub/me/anna/old.bin").exists()
    Path("hub/me/anna/evil.py").write_text("raise SystemExit")
    run("way=pull", "repo=me/anna", "folder=here")
    assert not Path("here/evil.py").exists()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = load_lm(final)[0](ids).logits
        assert torch.equal(AutoModelForCausalLM.from_pretrained("here")(ids).logits, expected)
    card = ModelCard.load("here/README.md")
    card.data.to_dict()
    assert card.data.license == "cc0-1.0" and {"almkit", "tts"} <= set(card.data.tags or [])
    for said in (
        "- 0.01 h of speech of rms, slt: CC0-1.0",
        "`python eval/tts.py model=me/anna`, on anna, test",
        "| generated | wer/whisper | 0.25 [0.125, 0.375] | 20 |",
        'load_model("me/anna")',
        "256 positions",
        CONSENT,
    ):
        assert said in card.text, said


def test_a_codec_needs_nobodys_consent_and_a_card_of_ones_own_stays(final: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_codec().save_pretrained("codec")
    run("folder=codec", "repo=me/codec", "licence=mit", "heard='sounds of our own, MIT'")
    ids = AutoModel.from_pretrained("hub/me/codec").config.codebook_sizes
    assert list(ids) == [32, 32, 32] and "- sounds of our own, MIT" in Path("hub/me/codec/README.md").read_text()
    run(
        f"folder={REPOSITORY}/checkpoints/lm-all-mini",
        "repo=me/a",
        "licence=mit",
        "consent='Flite may be used'",
        "card=true",
    )
    said = capsys.readouterr().out
    assert said.startswith("---\nlicense: mit\n") or "---\nlicense: mit\n" in said
    assert "# lm-all-mini: one small model for six tasks" in said and "Flite may be used" in said
    assert not Path("hub/me/a").exists()


def test_a_card_of_ones_own_is_no_way_around_consent(final: Path, refusal: Callable[..., str]) -> None:
    (final / "README.md").write_text("---\nlicense: mit\n---\n# Anna\n")
    assert "say who agreed" in refusal(run, f"folder={final}", "repo=me/anna")
    run(f"folder={final}", "repo=me/anna", f"consent='{CONSENT}'")
    assert CONSENT in Path("hub/me/anna/README.md").read_text()
    (final / "README.md").write_text("---\ntags: [a]\n---\n# Anna\n")
    assert "names no license" in refusal(run, f"folder={final}", "repo=me/anna", f"consent='{CONSENT}'")


@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(
    way: str, final: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise hub.NO_ANSWER("connection refused\nand more")

    monkeypatch.setattr(StandIn, "create_repo", fails)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    said = refusal(run, f"folder={final}", "repo=me/anna", f"way={way}", "licence=mit", f"consent='{CONSENT}'")
    assert f"me/anna cannot be {way}ed (connection refused)" in said and "log in" not in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["licence=mit"], "speaks in the voices of anna: say who agreed to that and how"),
        ([f"consent='{CONSENT}'"], "say under which licence the weights are"),
        (["repo=anna"], "repo=anna: name a repository of the hub, ORG/NAME."),
        (["folder=runs"], "folder=runs holds no trained model"),
        (["folder=null"], "say what is pushed"),
        (["way=pull", "repo=me/none", "folder=null"], "me/none cannot be pulled (there is no repository me/none)."),
    ],
)
def test_what_a_card_must_say_is_asked_for(
    settings: list[str], sentence: str, final: Path, refusal: Callable[..., str]
) -> None:
    assert sentence in refusal(run, f"folder={final}", "repo=me/anna", *settings)
    assert not Path("hub").exists()


def test_data_that_nobody_recorded_must_be_said(final: Path, refusal: Callable[..., str]) -> None:
    (final.parent / "config.yaml").unlink()
    keys = (f"folder={final}", "repo=me/anna", "licence=mit", f"consent='{CONSENT}'")
    assert "it is not recorded what runs/anna/final has heard" in refusal(run, *keys)
    (final / "config.json").unlink()
    assert "config.json cannot be read" in refusal(run, *keys)


def test_a_card_names_programs_that_exist() -> None:
    programs = {path.stem for path in (REPOSITORY / "eval").glob("*.py")}
    assert set(hub.PROGRAMS.values()) <= programs
    tasks = {task for task in group_options("task") if task not in ("all", "mixture")}
    assert tasks <= programs | set(hub.PROGRAMS), "evaluations lie in folders of their tasks' names"
