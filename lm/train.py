"""Train a language model on audio tokens.

    accelerate launch lm/train.py task=tts                                  # from scratch on the embedded corpus
    accelerate launch lm/train.py task=tts init=checkpoints/lm-tts-mini     # continue from trained weights
    accelerate launch lm/train.py task=all                                  # one model for six tasks
    accelerate launch lm/train.py task=[tts,asr] task.tasks.tts.weight=2    # a mixture of one's own
    accelerate launch lm/train.py task=tts lm.variant=depth                 # the paper's variant (lm/network/depth.py)
    accelerate launch lm/train.py task=tts lm=qwen-0.5b tuning=lora

The same command continues a run that was stopped or killed, exactly. Everything lies in runs/<name>/:
config.yaml, log.jsonl, checkpoints/, and at the end final/, a plain LlamaForCausalLM folder with
audio_vocabulary.json.
"""

from __future__ import annotations

import training.help  # noqa: F401

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from omegaconf import DictConfig, OmegaConf

from codec.interface import TokenizerError
from codec.load import load_tokenizer
from codec.shards import ShardError
from lm.generation.asking import manner, other_words
from lm.model import ModelError, code_vectors_of, parameter_groups
from lm.network.attention import attention_of, set_attention
from lm.network.depth import DepthLM, DepthObjective
from lm.network.objective import Objective
from lm.recipe.data import StepData, step_batches
from lm.recipe.keeping import keeping_of
from lm.recipe.listening import Listening
from lm.recipe.muon import Muon
from lm.recipe.options import check_options, level_weights
from lm.recipe.run import Run
from lm.recipe.starting_point import check_start, starting_point
from lm.recipe.throughput import peak_flops, training_flops
from lm.recipe.token_rows import TokenRowsError, find_token_rows, left_out
from lm.recipe.tracking import TrackedLog
from lm.recipe.train_log import Meter, shares_of_tasks, validation_lines
from lm.recipe.validation import Validation
from lm.run_state import (
    STATE_FILE,
    asked_of,
    computes_in_bf16,
    longest_texts,
    named_speakers,
    normalisation_of,
    read_state,
    recipe,
    versions,
)
from lm.sequences.document_set import render_documents
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from tasks.base import TaskError, make_task
from tasks.text import check_names, normalisers, note_on_texts
from training.checkpoint import CheckpointError
from training.config import hydra_entry, refusing
from training.failure import HelperEnded, NonFiniteLoss
from training.launch import LONGEST_WAIT, check_launcher, check_processes, check_sharding, decide, leave_at_exit, on_cpu
from training.lock import hold
from training.log import duration
from training.run_folder import choose_checkpoint, set_aside, write_settings
from training.stopping import Stop
from training.threads import set_threads
from training.tracking import TrackerError

REFUSALS = (
    CheckpointError,
    ModelError,
    ShardError,
    TaskError,
    TextTokenizerError,
    TokenizerError,
    TokenRowsError,
    TrackerError,
    VocabularyError,
)


def train(cfg: DictConfig) -> Path:
    """Train as ``cfg`` (configs/lm_train.yaml) says; returns the folder of the final model."""
    # ---- where and with what -----------------------------------------------------------------------------
    check_launcher()
    # Precision is our own autocast below, so accelerate gets "no" whatever its configuration file says.
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    accelerator = Accelerator(cpu=on_cpu(cfg.device), mixed_precision="no", kwargs_handlers=[waiting])
    check_processes(accelerator.num_processes)
    leave_at_exit()
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    sharded = accelerator.distributed_type == DistributedType.FSDP
    check_sharding(sharded)
    check_options(cfg, world, sharded)
    check_start(cfg)
    threads = set_threads(cfg.threads)
    trainer = cfg.trainer
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    task = make_task(cfg.task)
    learnt = normalisation_of(Path(cfg.init)) if cfg.init else "none"
    if cfg.text.normalise is not None:
        check_names(cfg.text.normalise, task)
    normalise = learnt if cfg.text.normalise is None else settings["text"]["normalise"]
    task.use_normaliser(normalisers(normalise))
    run_dir = Path("runs") / (cfg.name or f"lm-{task.name}")
    decide(lambda: hold(run_dir))
    log = TrackedLog(run_dir, accelerator.is_main_process, cfg.tracker, settings)
    bf16 = trainer.precision == "bf16" or (trainer.precision == "auto" and computes_in_bf16(device))

    # ---- data: rows of tokens ----------------------------------------------------------------------------
    codec = load_tokenizer(cfg.tokenizer, device)
    found = find_token_rows(cfg.data, codec, accelerator, log.line)
    description: dict[str, Any] = codec.describe()
    vectors = code_vectors_of(codec) if cfg.lm.init_rows == "codebook" else None
    sampled = bool(cfg.tracker and trainer.valid_audio and accelerator.is_main_process and not sharded)
    if not sampled:
        del codec  # its memory is not needed any more
    rows = task.select(found.split("train"))
    valid_rows = task.select(found.split("valid"))
    if not rows:
        raise TokenRowsError(f"no clip of the train split fits task={task.name}; it uses {', '.join(task.domains)}.")
    for source in found.sources:
        log.line(f"data: {source}")
    if others := left_out(found.split("train"), rows):
        log.line(f"data: task={task.name} leaves out {others} of the training clips")
    if note := note_on_texts(normalise, task, rows):
        log.line(note)
    asked = asked_of(Path(cfg.init)) if cfg.init else {}
    if cfg.init and normalise != learnt:
        log.line(f"text.normalise={normalise}, and {cfg.init} has learnt to read by text.normalise={learnt}")
    for sentence in other_words(task, asked):
        log.line(f"{cfg.init}: {sentence}")

    # ---- model, vocabulary, text tokenizer: from a checkpoint, from init, or new -------------------------
    checkpoint = choose_checkpoint(run_dir, cfg.resume, log.line)
    keeping = keeping_of(cfg, sharded)
    model = keeping.load_model(
        checkpoint, lambda folder: starting_point(cfg, folder, description, vectors, rows, task, run_dir, accelerator)
    )
    vocabulary, text_tokenizer = keeping.vocabulary, keeping.text_tokenizer
    is_depth = isinstance(model, DepthLM)
    temporal = model.lm if is_depth else model
    if not set_attention(temporal, attention_of(trainer.attention, device, trainer.compile)):
        log.line(f"trainer.attention={trainer.attention} does not fit this model, which keeps transformers' own.")
    if trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable()

    # ---- documents ---------------------------------------------------------------------------------------
    documents = render_documents(rows, task, vocabulary, text_tokenizer, trainer.row_length, is_depth)
    everything = trainer.loss_on == "everything"
    learns_text = everything or any(task.task_of(row).target == "text" for row in rows)
    if documents.too_long:
        log.line(
            f"data: {len(documents.too_long)} documents are longer than trainer.row_length={trainer.row_length} and "
            f"are left out: {', '.join(documents.too_long[:5])}{' …' if len(documents.too_long) > 5 else ''}"
        )
    if not len(documents):
        raise TokenRowsError(f"no document fits trainer.row_length={trainer.row_length}: raise it.")
    curriculum = (trainer.curriculum_steps, trainer.curriculum_share)
    shape = (trainer.row_length, trainer.batch_rows, cfg.seed)
    data = StepData(documents, vocabulary, *shape, *curriculum, trainer.hide, trainer.drop_condition, everything)
    if len(set(documents.tasks)) > 1:
        log.line(f"data: {shares_of_tasks(documents)}")
    validation, listening = None, None
    if valid_rows:
        of_clips = (trainer.row_length, trainer.valid_clips, cfg.seed, is_depth)
        validation = Validation(valid_rows, task, vocabulary, text_tokenizer, *of_clips)
    else:
        log.line("data: the corpus has no valid split for this task, so there is no validation.")
    if sampled and valid_rows:
        listening = Listening(valid_rows, task, vocabulary, text_tokenizer, codec, trainer.valid_audio)
    elif cfg.tracker and trainer.valid_audio and sharded:
        log.line("tracker: under FSDP no process has the whole model, so no audio is generated at validation.")

    # ---- loss, optimiser, and what a checkpoint holds of both ---------------------------------------------
    legal = trainer.loss_over == "legal"
    kind = DepthObjective if is_depth else Objective
    weights_of_levels = level_weights(trainer.level_weights, vocabulary.levels)
    objective = kind(model, vocabulary, legal, weights_of_levels, trainer.head, everything)
    objective.to(device).train()
    groups, betas = parameter_groups(model, trainer.weight_decay), tuple(trainer.betas)
    if trainer.optimiser == "muon":
        groups[0]["orthogonal"] = True
        optimiser: torch.optim.Optimizer = Muon(groups, trainer.lr, betas=betas)
    else:
        optimiser = torch.optim.AdamW(groups, lr=trainer.lr, betas=betas, fused=True)
    if trainer.compile:
        temporal.base_model.compile(dynamic=False)
    frame_rate, peak = description["frame_rate"], peak_flops(device, trainer.peak_tflops)
    flops = partial(training_flops, model, vocabulary, legal)
    meter = Meter(
        vocabulary.levels, documents.task_names, learns_text, frame_rate, device, flops, peak * world if peak else None
    )
    about = {
        "task": task.name,
        "recipe": recipe(cfg, documents.hash, vocabulary.hash),
        "normalise": normalise,
        "speakers": named_speakers(rows, task, cfg.init),
        "asked": manner(task, asked),
        "longest_texts": longest_texts(rows, task, cfg.init),
        "versions": versions(),
    }
    objective, optimiser = accelerator.prepare(objective, optimiser)
    run = Run(cfg, accelerator, run_dir, keeping, objective, optimiser, meter, about, bf16)
    if checkpoint:
        run.load(checkpoint)

    def begin() -> None:
        set_aside(run_dir, checkpoint, run.done, log.line)
        write_settings(cfg, run_dir, run.done, log.line)
        log.rewind(run.done if checkpoint else -1)  # validation at step 0 is repeated, too

    decide(begin)  # not before all that could refuse
    parameters = sum(p.numel() for p in model.parameters())
    hours = documents.audio_tokens(vocabulary) / vocabulary.levels / frame_rate / 3600
    log.line(
        f"{run_dir}: {parameters / 1e6:.1f} M parameters, {len(documents):,} documents, {hours:.2f} h of audio, "
        f"{(documents.lengths * documents.weights).sum() / 1e6:.2f} M tokens per epoch; {device.type}, "
        f"{'bf16 autocast' if bf16 else 'fp32'}, "
        f"{world} process{'es' if world > 1 else ''}"
        + (f" of {threads} thread{'s' if threads > 1 else ''}; " if device.type == "cpu" else "; ")
        + (
            f"continues at step {run.done}"
            if checkpoint
            else f"starts from {cfg.init or cfg.lm.pretrained or 'scratch'}"
        )
    )

    # ---- loop --------------------------------------------------------------------------------------------
    def validate() -> None:
        if validation is None:
            return
        with run.autocast():
            values = validation.run(run.objective, device, trainer.micro_rows, rank, world, run.add_up)
        log.log(run.done, {f"valid_{key}": value for key, value in values.items()})
        for line in validation_lines(run.done, values, vocabulary.levels, validation.tasks):
            log.line(line)
        if listening is not None:
            for name, wave in listening.spoken(model).items():
                log.audio(run.done, f"{name}/generated", wave, description["sample_rate"])
        accelerator.wait_for_everyone()

    stop = Stop().listen()
    run.start_clock()
    if run.done == 0:
        if listening is not None:
            for name, wave in listening.recorded().items():
                log.audio(0, f"{name}/codec", wave, description["sample_rate"])
        validate()
    with step_batches(data, run.done, trainer.max_steps, rank, world, trainer.workers) as batches:
        for batch in batches:
            lr, norm = run.step(batch)
            last = run.done == trainer.max_steps
            if run.done % trainer.log_every == 0 or last:
                values, line = meter.report(run.done, trainer.max_steps, lr, norm, batch.epoch, run.seconds, run.add_up)
                log.log(run.done, values)
                log.line(line)
                meter.restart()
            if run.done % trainer.valid_every == 0 or last:
                before = time.monotonic()
                validate()
                meter.pause(time.monotonic() - before)  # validation is not training time in tok/s
            told = run.add_up(torch.tensor(float(stop.asked), device=device)) if world > 1 else stop.asked
            if run.done % trainer.save_every == 0 or last or told:
                run.save()
            if told:
                log.line(
                    f"stopped by {stop.name} at step {run.done}; the checkpoint is saved, the same command continues."
                )
                break
    if run.done < trainer.max_steps:
        stop.close()
        log.close()
        stop.leave()

    # ---- the model to keep -------------------------------------------------------------------------------
    final = run_dir / "final"
    if decide(lambda: not (final / STATE_FILE).is_file() or read_state(final)["step"] != run.done):
        run.save(final=True)
        scored = ", ".join(f"`{command}`" for command in task.evaluations)
        log.line(f"{final}: trained {run.done} steps in {duration(run.seconds)}; score it with {scored}.")
    else:
        log.line(f"{final}: is current, nothing was to do (resume=none trains again).")
    stop.close()  # not before: who asks while the final folder is written gets it
    log.close()
    return final


@hydra_entry("lm_train")
def main(cfg: DictConfig) -> None:
    with refusing(*REFUSALS, HelperEnded, NonFiniteLoss):
        train(cfg)


if __name__ == "__main__":
    main()
