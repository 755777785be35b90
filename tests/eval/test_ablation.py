"""The ablation's plan: stages in their order, shared where they are equal, each row differing in what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from eval.comparison.plan import Plan, make_plan
from eval.comparison.table_rows import collect
from training.config import compose


def ablation(**changes: object) -> DictConfig:
    cfg = compose("eval_compare", ["comparison=ablation", "comparison.speech_hours=0"]).comparison
    OmegaConf.set_struct(cfg, False)
    return OmegaConf.merge(cfg, OmegaConf.create(changes))


def codec_of(plan: Plan, row: str) -> str:
    (name,) = {n for cell in plan.cells.values() if cell.row == row for n in cell.needs if n.startswith("codecs/")}
    return name


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(ablation(), Path("runs/comparison-ablation"))


@pytest.mark.slow
def test_a_row_goes_through_first_stage_centres_and_second_stage(plan: Plan) -> None:
    last = plan.cells[codec_of(plan, "full")]
    first, prior = last.needs
    assert plan.cells[prior].script == "codec/semantic_prior.py" and plan.cells[prior].needs == (first,)
    arguments = last.arguments()
    folder = "runs/comparison-ablation/cells"
    assert {f"init={folder}/{first}/run/final", f"semantic_centres={folder}/{prior}/centres.safetensors"} < set(
        arguments
    )
    assert "stage=1" in plan.cells[first].arguments() and "stage=2" in arguments
    assert f"encoder: {folder}/{first}/run," in " ".join(plan.cells[prior].arguments())


@pytest.mark.slow
def test_equal_first_stages_are_trained_once_and_no_two_rows_share_a_codec(plan: Plan) -> None:
    codecs = {row: codec_of(plan, row) for row in plan.rows}
    assert len(set(codecs.values())) == len(plan.rows) == 9
    first = {row: [n for n in plan.cells[name].needs if "stage1" in n] for row, name in codecs.items()}
    assert first["full"] == first["no-ar"] == first["single-stage"] == first["w3"] == first["w10"]
    assert (
        len({tuple(names) for names in first.values()}) == 5
    )  # no-queries, no-prior, no-mae have their own; plain none


@pytest.mark.slow
def test_the_word_probe_reads_the_row_s_own_tokens_of_speech(plan: Plan, tmp_path: Path) -> None:
    assert all(f"{row}/words" in plan.cells for row in plan.rows)
    here = make_plan(ablation(), tmp_path)
    cell = here.cells["full/words"]
    assert cell.needs == ("full/tokens-corpus",), "without flite the corpus' own speech"
    record = here.folder("full/tokens-corpus") / "tokens.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"folder": "runs/tokens/mine"}')
    arguments = cell.arguments()
    assert "ctc_shards=runs/tokens/mine" in arguments and "probes=[]" in arguments
    compose("eval_semantics", arguments)
    cfg = ablation()
    cfg.tasks, cfg.evaluations.words = ["text_to_music"], None
    assert not any("tokens-speech" in name or name.endswith("/words") for name in make_plan(cfg, tmp_path).cells)


def test_all_rows_have_as_many_steps(plan: Plan) -> None:
    def steps(name: str) -> int:
        return int([a for a in plan.cells[name].arguments() if a.startswith("trainer.max_steps=")][-1].split("=")[1])

    for row in plan.rows:
        last = plan.cells[codec_of(plan, row)]
        first = [steps(n) for n in last.needs if "stage1" in n and "stage=2" in last.arguments()]
        assert steps(last.name) + sum(first) == 500, row


def test_single_stage_takes_the_centres_but_no_weights(plan: Plan) -> None:
    arguments = plan.cells[codec_of(plan, "single-stage")].arguments()
    assert any(a.startswith("semantic_centres=") for a in arguments)
    assert not any(a.startswith(("init=", "stage=")) for a in arguments)


@pytest.mark.slow
def test_the_table_counts_the_steps_of_both_stages(tmp_path: Path) -> None:
    here = make_plan(ablation(), tmp_path)
    for row in ("full", "plain"):
        final = here.cells[codec_of(here, row)]
        for name in [*(n for n in final.needs if "stage1" in n), final.name]:
            here.folder(name).mkdir(parents=True, exist_ok=True)
            config = compose("codec_train", here.cells[name].arguments())
            (here.folder(name) / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        tokens = here.folder(f"{row}/tokens-corpus")
        tokens.mkdir(parents=True)
        tokenizer = {"parameters": 1, "bitrate": 412.5, "frame_rate": 12.5, "levels": 3, "codebook_sizes": [2048] * 3,
                     "fingerprint": row}  # fmt: skip
        found = {"tokenizer": tokenizer, "encoded_hours": 1.0, "seconds": 60.0, "totals": {}}
        (tokens / "tokens.json").write_text(json.dumps(found))
        (tokens / "done.json").write_text('{"command": "", "seconds": 1.0, "attempts": 1, "seed": 0, "results": []}')
    said = collect(here, ablation(), {}).table().text("markdown")
    assert "150 + 350 steps" in said and "trained here, 500 steps" in said


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"train": ["codec=mini", "stage=2"]}, "needs stage1"),
        ({"train": ["codec=mini"], "prior": True}, "needs stage1"),
        ({"stage1": ["codec=mini"]}, "come before train"),
    ],
)
def test_impossible_rows_are_refused(row: dict, reason: str, refusal: Callable[..., str]) -> None:
    assert reason in refusal(make_plan, ablation(rows={"odd": {"tokenizer": "almtokenizer", **row}}), Path("runs/x"))
