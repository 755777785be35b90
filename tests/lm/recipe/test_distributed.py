"""Two processes give the gradient of one, under DDP and FSDP2, with the chunked and the plain head."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from codec.shards import ShardWriter, TokenizerInfo
from lm.model import build_lm, load_lm, save_lm
from lm.network.objective import Objective
from lm.recipe.data import StepData
from lm.recipe.train_log import validation_lines
from lm.recipe.validation import Validation, with_idle_rows
from lm.sequences.document_set import render_documents
from lm.sequences.packing import IGNORE, PackedRows
from tasks.asr import ASR
from tasks.mixture import Example, Mixture
from tasks.tts import TTS
from tests.lm.conftest import tiny_config
from tests.lm.distributed_gradients import VALID_CLIPS, validate
from training.config import CONFIG_DIR

SCRIPT = Path(__file__).parents[1] / "distributed_gradients.py"
CASES = ["ddp-legal-chunked", "ddp-vocabulary-plain", "fsdp2-legal-chunked", "fsdp2-vocabulary-plain"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, rows, text_tokenizer, vocabulary) -> dict[str, Path]:
    """Folders with a model, tied and untied, and the batch of one step."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in ("tied", "untied")}
    documents = render_documents(rows, TTS(), vocabulary, text_tokenizer, 96)
    batch = StepData(documents, vocabulary, 96, 6, seed=0, hide=0.2).batch(0)
    parts = batch.rows.tensors()
    info = TokenizerInfo("stand-in", "a1" * 32, 16000, 12.5, vocabulary.codebook_sizes)
    for kind, folder in found.items():
        config = tiny_config(tie_word_embeddings=kind == "tied", initializer_range=0.1)
        save_lm(folder, build_lm(config, vocabulary, 4), vocabulary, text_tokenizer)
        torch.save({"parts": parts, "targets": batch.targets}, folder / "batch.pt")
        with ShardWriter(folder / "tokens", info) as writer:
            for row in rows[:3]:
                writer.add(row)
    return found


def alone(source: Path, legal: bool) -> dict[str, torch.Tensor]:
    model, vocabulary, _ = load_lm(source)
    batch = torch.load(source / "batch.pt")
    objective = Objective(model, vocabulary, legal).train()
    (objective(*batch["parts"]).total / batch["targets"]).backward()
    return {name: parameter.grad for name, parameter in objective.named_parameters()}


@pytest.fixture(scope="module")
def together(sources) -> dict[str, dict]:
    """What two processes find, by kind and case: how, over what, with which head."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    command += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", str(SCRIPT), *sources.values(), "--", *CASES]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stdout + done.stderr
    return {f"{kind}-{case}": torch.load(sources[kind] / f"{case}.pt") for kind in sources for case in CASES}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert set(first) == set(second)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_two_processes_give_the_gradient_and_the_validation_of_one(sources, together, kind, case):
    how, over, _ = case.split("-")
    source, found = sources[kind], together[f"{kind}-{case}"]
    assert largest_difference(found["gradients"], alone(source, over == "legal")) < 1e-5
    model, vocabulary, _ = load_lm(source)
    if how == "fsdp2":  # What is saved is whole: the weights of all processes after one step.
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        assert {name: value.shape for name, value in found["weights"].items()} == shapes
        model.load_state_dict(found["weights"])
    objective = Objective(model, vocabulary, over == "legal")
    for clips, validation in zip(VALID_CLIPS, found["validation"], strict=True):
        assert validation == pytest.approx(validate(objective, str(source), clips, 0, 1), abs=1e-5)
        assert ("gap" in validation) == (clips > 1)


def test_a_task_with_one_clip_has_no_wrong_condition_and_is_in_no_gap(rows, model, vocabulary, text_tokenizer):
    mixture = Mixture({"asr": ASR(), "tts": TTS()})
    asr, tts = (task.select(rows[:2]) for task in mixture.tasks)
    examples = [*map(partial(Example, mixture.tasks[0]), asr), Example(mixture.tasks[1], tts[0])]

    def run(chosen: list[Example]) -> tuple[dict[str, float], str]:
        validation = Validation(chosen, mixture, vocabulary, text_tokenizer, 96, 9, 0)
        found = validation.run(Objective(model, vocabulary, True), torch.device("cpu"), 4, 0, 1, lambda sums: sums)
        return found, " ".join(validation_lines(1, found, vocabulary.levels, validation.tasks))

    values, said = run(examples)
    assert values["gap"] == values["gap/asr"] and "gap/tts" not in values and "gap_1" not in values
    assert values["loss"] != values["loss/asr"] and "wrong condition" in said and "accuracy" in said
    values, said = run(examples[2:])
    assert "loss_1" in values and "accuracy_1" in values and "wrong condition" not in said and "accuracy" in said
    assert not any(name.startswith("gap") for name in values)


@pytest.mark.parametrize(("rows", "world"), [(1, 2), (2, 2), (3, 2), (3, 8), (0, 2)])
def test_each_process_has_as_many_rows(rows, world):
    arrays = np.arange(rows * 5).reshape(rows, 5)
    filled = with_idle_rows(PackedRows(arrays, arrays, arrays, arrays), world)
    assert len({len(filled.input_ids[rank::world]) for rank in range(world)}) == 1
    assert (filled.targets[rows:] == IGNORE).all() and (filled.targets[:rows] == arrays).all()


def test_the_head_stays_in_the_root_unit(model, vocabulary):
    """accelerate finds heads and embeddings by these methods and makes units of them."""
    objective = Objective(model, vocabulary)
    assert not hasattr(objective, "get_output_embeddings") and not hasattr(objective, "get_input_embeddings")


@pytest.mark.parametrize("name", ["single", "ddp", "fsdp2", "multi_node"])
def test_launch_files_are_what_accelerate_reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    path = CONFIG_DIR / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"
    assert yaml.safe_load(path.read_text())["num_processes"] % config.num_machines == 0
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
