"""Train a language model on audio tokens.

    accelerate launch lm/train.py task=tts                                  # from scratch on the embedded corpus
    accelerate launch lm/train.py task=tts init=checkpoints/lm-tts-mini     # continue from trained weights
    accelerate launch lm/train.py task=all                                  # one model for six tasks
    accelerate launch lm/train.py task=[tts,asr] task.tasks.tts.weight=2    # a mixture of one's own
    accelerate launch lm/train.py task=tts lm.variant=depth                 # the paper's variant (lm/network/depth.py)
    accelerate launch lm/train.py task=tts lm=qwen-0.5b tuning.method=lora trainer.optimiser=adamw

The same command continues a run that was stopped or killed, exactly. Everything lies in runs/<name>/:
config.yaml, log.jsonl, checkpoints/, and at the end final/, a plain LlamaForCausalLM folder with
audio_vocabulary.json.
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
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
from lm.model import ModelError, code_vectors_of, parameter_groups, save_lm
from lm.network.attention import attention_of, set_attention
from lm.network.depth import DepthLM, DepthObjective
from lm.network.objective import Objective
from lm.recipe.data import StepData, render_documents, step_batches
from lm.recipe.distributed import gather_model, gather_optimiser, scatter_optimiser, whole
from lm.recipe.listening import Listening
from lm.recipe.muon import Muon
from lm.recipe.options import check_options, level_weights
from lm.recipe.starting_point import check_start, starting_point
from lm.recipe.throughput import peak_flops, training_flops
from lm.recipe.token_rows import TokenRowsError, find_token_rows, left_out
from lm.recipe.tracking import TrackedLog
from lm.recipe.train_log import Meter, non_finite_message, shares_of_tasks, validation_lines
from lm.recipe.tuning import add_lora, freeze_all_but_new_rows, load_adapter, merged, save_adapter
from lm.recipe.validation import Validation
from lm.run_state import (
    OPTIMISER_FILE,
    STATE_FILE,
    allowing_more_steps,
    computes_in_bf16,
    learning_rate,
    read_state,
    recipe,
    versions,
)
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from tasks.base import TaskError, make_task
from tasks.text import normalisers, note_on_english
from training.checkpoint import CheckpointError, save_checkpoint, save_folder
from training.config import ConfigError, hydra_entry
from training.failure import NonFiniteLoss
from training.launch import LONGEST_WAIT, check_processes, decide, leave_at_exit, on_cpu
from training.lock import hold
from training.log import duration
from training.run_folder import check_recipe, choose_checkpoint, set_aside, write_settings
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
    # Precision is our own autocast below, so accelerate gets "no" whatever its configuration file says.
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    accelerator = Accelerator(cpu=on_cpu(cfg.device), mixed_precision="no", kwargs_handlers=[waiting])
    check_processes(accelerator.num_processes)
    leave_at_exit()
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    sharded = accelerator.distributed_type == DistributedType.FSDP
    check_options(cfg, world, sharded)
    check_start(cfg)
    threads = set_threads(cfg.threads)
    trainer = cfg.trainer
    task = make_task(cfg.task)
    task.use_normaliser(normalisers(cfg.text.normalise))
    run_dir = Path("runs") / (cfg.name or f"lm-{task.name}")
    decide(lambda: hold(run_dir))
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
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
    if note := note_on_english(cfg.text.normalise, task, rows):
        log.line(note)

    # ---- model, vocabulary, text tokenizer: from a checkpoint, from init, or new -------------------------
    checkpoint = choose_checkpoint(run_dir, cfg.resume, log.line)
    lora = cfg.tuning.method == "lora"
    trained = (None if lora else checkpoint) or cfg.init  # adapters go onto the weights that the run began with
    model, vocabulary, text_tokenizer = starting_point(
        cfg, trained, description, vectors, rows, task, run_dir, accelerator
    )
    weights_of_levels = level_weights(trainer.level_weights, vocabulary.levels)
    is_depth = isinstance(model, DepthLM)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    adapted = None
    if lora:
        torch.manual_seed(cfg.seed)
        adapted = add_lora(model, cfg.tuning, vocabulary)
        model = adapted.base_model.model
        if checkpoint:
            load_adapter(adapted, checkpoint)
    if not set_attention(model.lm if is_depth else model, attention_of(trainer.attention, device, trainer.compile)):
        log.line(f"trainer.attention={trainer.attention} does not fit this model, which keeps transformers' own.")
    if trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable()

    # ---- documents ---------------------------------------------------------------------------------------
    documents = render_documents(rows, task, vocabulary, text_tokenizer, None, trainer.row_length, is_depth)
    everything = trainer.loss_on == "everything"
    learns_text = everything or any(task.task_of(row).target == "text" for row in rows)
    if documents.too_long:
        log.line(
            f"data: {len(documents.too_long)} documents are longer than trainer.row_length={trainer.row_length} and "
            f"are left out: {', '.join(documents.too_long[:5])}{' …' if len(documents.too_long) > 5 else ''}"
        )
    if not len(documents):
        raise TokenRowsError(f"no document fits trainer.row_length={trainer.row_length}: raise it.")
    data = StepData(
        documents,
        vocabulary,
        trainer.row_length,
        trainer.batch_rows,
        cfg.seed,
        trainer.curriculum_steps,
        trainer.curriculum_share,
        trainer.hide,
        trainer.drop_condition,
        everything,
    )
    if len(set(documents.tasks)) > 1:
        log.line(f"data: {shares_of_tasks(documents)}")
    validation = None
    if valid_rows:
        validation = Validation(
            valid_rows,
            task,
            vocabulary,
            text_tokenizer,
            None,
            trainer.row_length,
            trainer.valid_clips,
            cfg.seed,
            is_depth,
        )
    else:
        log.line("data: the corpus has no valid split for this task, so there is no validation.")
    listening = None
    if sampled and valid_rows:
        listening = Listening(valid_rows, task, vocabulary, text_tokenizer, codec, trainer.valid_audio)
    elif cfg.tracker and trainer.valid_audio and sharded:
        log.line("tracker: under FSDP no process has the whole model, so no audio is generated at validation.")

    # ---- optimiser and state -----------------------------------------------------------------------------
    this_recipe = recipe(cfg, documents.hash, vocabulary.hash)
    kind = DepthObjective if is_depth else Objective
    legal = trainer.loss_over == "legal"
    objective = kind(model, vocabulary, legal, weights_of_levels, trainer.head, everything)
    objective.to(device).train()
    groups = parameter_groups(model, trainer.weight_decay)
    shares = [1.0, 1.0]  # of the learning rate, per group
    if trainer.optimiser == "muon":
        groups[0]["orthogonal"] = True
        shares[0] = trainer.muon_lr / trainer.lr
        optimiser: torch.optim.Optimizer = Muon(groups, trainer.lr, betas=tuple(trainer.betas))
    else:
        optimiser = torch.optim.AdamW(groups, lr=trainer.lr, betas=tuple(trainer.betas), fused=True)
    step, seconds_before = 0, 0.0
    if checkpoint:
        state = read_state(checkpoint)
        step, seconds_before = state["step"], state["seconds"]
        check_recipe(allowing_more_steps(state["recipe"], trainer, step), this_recipe, checkpoint)
        # several processes on CPUs call their device cpu:0, which torch.load does not know
        place = "cpu" if device.type == "cpu" else device
        moments = torch.load(checkpoint / OPTIMISER_FILE, map_location=place, weights_only=True)
        if not state.get("optimiser_by_name"):
            if sharded:
                raise CheckpointError(f"{checkpoint} was written without FSDP: continue it so, or give init=FOLDER.")
            optimiser.load_state_dict(moments)
    if trainer.compile:
        (model.lm if is_depth else model).base_model.compile(dynamic=False)
    objective, optimiser = accelerator.prepare(objective, optimiser)
    if checkpoint and state.get("optimiser_by_name"):
        scatter_optimiser(accelerator.unwrap_model(objective), optimiser.optimizer, moments)

    def begin() -> None:
        set_aside(run_dir, checkpoint, step, log.line)
        write_settings(cfg, run_dir, step, log.line)
        log.rewind(step if checkpoint else -1)  # validation at step 0 is repeated, too

    decide(begin)  # not before all that could refuse
    parameters = sum(p.numel() for p in model.parameters())
    hours = documents.audio_tokens(vocabulary) / vocabulary.levels / description["frame_rate"] / 3600
    log.line(
        f"{run_dir}: {parameters / 1e6:.1f} M parameters, {len(documents):,} documents, {hours:.2f} h of audio, "
        f"{(documents.lengths * documents.weights).sum() / 1e6:.2f} M tokens per epoch; {device.type}, "
        f"{'bf16 autocast' if bf16 else 'fp32'}, "
        f"{world} process{'es' if world > 1 else ''}"
        + (f" of {threads} thread{'s' if threads > 1 else ''}; " if device.type == "cpu" else "; ")
        + (f"continues at step {step}" if checkpoint else f"starts from {cfg.init or cfg.lm.pretrained or 'scratch'}")
    )

    warm_up = trainer.max_steps if cfg.tuning.method == "new_rows" else cfg.tuning.warmup_new_rows

    # ---- loop --------------------------------------------------------------------------------------------
    stop = Stop().listen()
    started = time.monotonic()

    def add_up(sums: torch.Tensor) -> torch.Tensor:
        return accelerator.reduce(sums, "sum")

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def save(final: bool = False) -> None:
        state = {
            "step": step,
            "written": time.time(),
            "seconds": seconds(),
            "task": task.name,
            "recipe": this_recipe,
            "normalise": cfg.text.normalise if isinstance(cfg.text.normalise, str) else dict(cfg.text.normalise),
            "versions": versions(),
            **meter.state(add_up),
            **({"optimiser_by_name": True} if sharded else {}),
        }
        # Under FSDP every process takes part in putting the weights together; the first one writes them.
        weights = gather_model(objective) if sharded else None
        moments = None
        if not final:
            moments = gather_optimiser(objective, optimiser.optimizer) if sharded else optimiser.state_dict()

        def write(folder: Path) -> None:
            if adapted is not None and not final:
                save_adapter(adapted, folder)
            else:
                stock = model if adapted is None else merged(adapted)
                save_lm(folder, stock, vocabulary, text_tokenizer, weights)
            (folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            if not final:
                torch.save(moments, folder / OPTIMISER_FILE)

        def put() -> None:
            if final:
                save_folder(run_dir / "final", write)
            else:
                save_checkpoint(run_dir, step, write, trainer.keep)

        decide(put)

    def validate() -> None:
        if validation is None:
            return
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            values = validation.run(objective, device, trainer.micro_rows, rank, world, add_up)
        log.log(step, {f"valid_{key}": value for key, value in values.items()})
        for line in validation_lines(step, values, vocabulary.levels, validation.tasks):
            log.line(line)
        if listening is not None:
            for name, wave in listening.spoken(model).items():
                log.audio(step, f"{name}/generated", wave, description["sample_rate"])
        accelerator.wait_for_everyone()

    peak = peak_flops(device, trainer.peak_tflops)
    meter = Meter(
        vocabulary.levels,
        documents.task_names,
        learns_text,
        description["frame_rate"],
        device,
        partial(training_flops, model, vocabulary, legal),
        peak * world if peak else None,
    )
    if checkpoint and accelerator.is_main_process:
        meter.restore(state)
    if listening is not None and step == 0:
        for name, wave in listening.recorded().items():
            log.audio(step, f"{name}/codec", wave, description["sample_rate"])
    if step == 0:
        validate()
    batches = step_batches(data, step, trainer.max_steps, rank, world, trainer.workers)
    while step < trainer.max_steps:
        batch = next(batches)
        lr = learning_rate(step, trainer)
        for group, share in zip(optimiser.param_groups, shares, strict=True):
            group["lr"] = lr * share
        torch.manual_seed(cfg.seed * 1_000_003 + step * world + rank)  # dropout: a function of the step as well
        arrays = (batch.rows.input_ids, batch.rows.position_ids, batch.rows.targets, batch.tasks)
        parts = [torch.from_numpy(array) for array in arrays]
        starts = range(0, len(parts[0]), trainer.micro_rows)
        per_target = []
        for start in starts:
            *micro, tasks = [part[start : start + trainer.micro_rows].to(device) for part in parts]
            last = start == starts[-1]  # only then are gradients exchanged
            with nullcontext() if last else accelerator.no_sync(objective):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = objective(*micro)
                # DDP averages over processes: times world, so that the sum is divided by the global count
                # once.
                accelerator.backward(loss.total * (world / batch.targets))
            meter.add(loss, micro[2], tasks)
            per_target.append(loss.per_target)
        if step < warm_up:
            freeze_all_but_new_rows(model, tables, vocabulary.text_size)
        norm = whole(accelerator.clip_grad_norm_(objective.parameters(), trainer.grad_clip))
        if not torch.isfinite(norm):
            raise NonFiniteLoss(non_finite_message(step, batch, torch.cat(per_target)))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        meter.step(batch)

        if step % trainer.log_every == 0 or step == trainer.max_steps:
            values, line = meter.report(step, trainer.max_steps, lr, float(norm), batch.epoch, seconds(), add_up)
            log.log(step, values)
            log.line(line)
            meter.restart()
        if step % trainer.valid_every == 0 or step == trainer.max_steps:
            before = time.monotonic()
            validate()
            meter.pause(time.monotonic() - before)  # validation is not training time in tok/s
        told = add_up(torch.tensor(float(stop.asked), device=device)) if world > 1 else stop.asked
        if step % trainer.save_every == 0 or step == trainer.max_steps or told:
            save()
        if told:
            log.line(f"stopped by {stop.name} at step {step}; the checkpoint is saved, the same command continues.")
            break
    stop.close()
    if step < trainer.max_steps:
        log.close()
        stop.leave()

    # ---- the model to keep -------------------------------------------------------------------------------
    final = run_dir / "final"
    if decide(lambda: not (final / STATE_FILE).is_file() or read_state(final)["step"] != step):
        save(final=True)
        scored = ", ".join(f"`{command}`" for command in task.evaluations)
        log.line(f"{final}: trained {step} steps in {duration(seconds())}; score it with {scored}.")
    else:
        log.line(f"{final}: is current, nothing was to do (resume=none trains again).")
    log.close()
    return final


@hydra_entry("lm_train")
def main(cfg: DictConfig) -> None:
    try:
        train(cfg)
    except (*REFUSALS, NonFiniteLoss) as error:
        raise ConfigError(str(error)) from None


if __name__ == "__main__":
    main()
