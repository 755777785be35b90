"""Train a language model on audio tokens.

    accelerate launch lm/train.py task=tts                                  # from scratch on the embedded corpus
    accelerate launch lm/train.py task=tts init=checkpoints/lm-tts-mini     # continue from trained weights
    accelerate launch lm/train.py task=all                                  # one model for six tasks
    accelerate launch lm/train.py task=[tts,asr] task.tasks.tts.weight=2    # a mixture of one's own
    accelerate launch lm/train.py task=tts lm.variant=depth                 # the paper's variant (lm/depth.py)
    accelerate launch lm/train.py task=tts lm=qwen-0.5b tuning.method=lora trainer.optimiser=adamw

The same command continues a run that was stopped or killed, exactly. Everything lies in runs/<name>/:
config.yaml, log.jsonl, checkpoints/, and at the end final/, a plain LlamaForCausalLM folder with
audio_vocabulary.json.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.encode import load_tokenizer
from codec.interface import TokenizerError
from codec.shards import ShardError
from lm.data import DocumentSet, StepBatch, StepData, render_documents, step_batches
from lm.depth import DepthLM, DepthObjective
from lm.distributed import gather_model, gather_optimiser, scatter_optimiser, whole
from lm.documents import TextSegment
from lm.model import VARIANTS, ModelError, build_lm, code_vectors_of, load_lm, parameter_groups, save_lm
from lm.muon import Muon
from lm.objective import Objective
from lm.patterns import PATTERNS
from lm.run_state import (
    OPTIMISER_FILE,
    STATE_FILE,
    check_recipe,
    computes_in_bf16,
    learning_rate,
    pattern_name,
    read_state,
    recipe,
    versions,
)
from lm.text_tokenizer import TextTokenizerError, load_text_tokenizer, train_text_tokenizer
from lm.token_rows import TokenRowsError, find_token_rows
from lm.tracking import TrackedLog, TrackingError
from lm.tuning import METHODS, add_lora, freeze_all_but_new_rows, load_adapter, merged, save_adapter
from lm.validation import Validation
from lm.vocabulary import AudioVocabulary, VocabularyError
from tasks.base import Task, TaskError
from tasks.normalisation import normalisers
from training.checkpoint import CheckpointError, resolve_resume, rotate, save_folder, step_folder
from training.config import ConfigError, hydra_entry, save_config
from training.log import duration

REFUSALS = (
    CheckpointError,
    ModelError,
    ShardError,
    TaskError,
    TextTokenizerError,
    TokenizerError,
    TokenRowsError,
    TrackingError,
    VocabularyError,
)


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient is NaN or infinite; names the documents."""


def check_options(cfg: DictConfig, world: int, sharded: bool = False) -> None:
    """Refuse options that cannot work together, before anything is loaded."""
    trainer = cfg.trainer
    for key, choices in {
        "schedule": ("cosine", "wsd", "constant"),
        "loss_over": ("legal", "vocabulary"),
        "precision": ("auto", "fp32", "bf16"),
        "optimiser": ("adamw", "muon"),
        "head": ("chunked", "plain"),
        "track": ("none", "tensorboard", "wandb"),
    }.items():
        if trainer[key] not in choices:
            raise ConfigError(f"trainer.{key}={trainer[key]} is unknown; choose one of {', '.join(choices)}.")
    if cfg.device not in ("auto", "cpu"):
        raise ConfigError(f"device={cfg.device} is unknown; choose auto or cpu.")
    if trainer.batch_rows % world:
        raise ConfigError(f"trainer.batch_rows={trainer.batch_rows} must be a multiple of the {world} processes.")
    if cfg.lm.pattern not in ("auto", *PATTERNS):
        raise ConfigError(f"lm.pattern={cfg.lm.pattern} is unknown; choose one of auto, {', '.join(PATTERNS)}.")
    if sharded and (trainer.optimiser != "adamw" or cfg.tuning.method != "full" or cfg.lm.variant != "flat"):
        raise ConfigError("FSDP needs trainer.optimiser=adamw, tuning.method=full and lm.variant=flat; DDP takes all.")
    if sharded and cfg.tuning.warmup_new_rows:
        raise ConfigError("FSDP needs tuning.warmup_new_rows=0: warm up with DDP, then continue with init=FOLDER.")
    if cfg.lm.variant not in VARIANTS:
        raise ConfigError(f"lm.variant={cfg.lm.variant} is unknown; choose one of {', '.join(VARIANTS)}.")
    method = cfg.tuning.method
    if method not in METHODS:
        raise ConfigError(f"tuning.method={method} is unknown; choose one of {', '.join(METHODS)}.")
    if method != "full" and not (cfg.init or cfg.lm.pretrained):
        raise ConfigError(f"tuning.method={method} needs trained weights: give init=FOLDER or lm.pretrained=FOLDER.")
    if method == "lora" and trainer.optimiser != "adamw":
        raise ConfigError("tuning.method=lora needs trainer.optimiser=adamw: muon is for whole matrices.")
    if method == "lora" and cfg.lm.variant == "depth":
        raise ConfigError("tuning.method=lora needs lm.variant=flat: a new depth transformer must train as a whole.")


def make_task(config: DictConfig) -> Task:
    """The task, or the mixture of tasks, of ``cfg.task``.

    Raises:
        TaskError: options of a task that cannot work.
    """
    try:
        return instantiate(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, TaskError):
            raise error.__cause__ from None
        raise


def train(cfg: DictConfig) -> Path:
    """Train as ``cfg`` (configs/lm_train.yaml) says; returns the folder of the final model."""
    # ---- where and with what -----------------------------------------------------------------------------
    # Precision is our own autocast below, so accelerate gets "no" whatever its configuration file says.
    accelerator = Accelerator(cpu=cfg.device == "cpu", mixed_precision="no")
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    sharded = accelerator.distributed_type == DistributedType.FSDP
    check_options(cfg, world, sharded)
    trainer = cfg.trainer
    task = make_task(cfg.task)
    task.use_normaliser(normalisers(cfg.text.normalise))
    run_dir = Path("runs") / (cfg.name or f"lm-{task.name}")
    log = TrackedLog(run_dir, accelerator.is_main_process, trainer.track)
    bf16 = trainer.precision == "bf16" or (trainer.precision == "auto" and computes_in_bf16(device))

    # ---- data: rows of tokens ----------------------------------------------------------------------------
    codec = load_tokenizer(cfg.tokenizer, device)
    shipped = Path(cfg.data.tokens) if cfg.data.tokens else None
    found = find_token_rows(cfg.data.name, Path(cfg.data.root), shipped, codec, accelerator, log.line)
    description: dict[str, Any] = codec.describe()
    vectors = code_vectors_of(codec) if cfg.lm.init_rows == "codebook" else None
    del codec  # its memory is not needed any more
    rows = task.select(found.split("train"))
    valid_rows = task.select(found.split("valid"))
    if not rows:
        raise TokenRowsError(f"no clip of the train split fits task={task.name}; it uses {', '.join(task.domains)}.")
    for source in found.sources:
        log.line(f"data: {source}")

    # ---- model, vocabulary, text tokenizer: from a checkpoint, from init, or new -------------------------
    checkpoint = resolve_resume(run_dir, cfg.resume)
    lora = cfg.tuning.method == "lora"
    trained = (None if lora else checkpoint) or cfg.init  # adapters go onto the weights that the run began with
    if trained:
        model, vocabulary, text_tokenizer = load_lm(trained)
        if cfg.adopt_tokenizer and tuple(description["codebook_sizes"]) == vocabulary.codebook_sizes:
            vocabulary = dataclasses.replace(vocabulary, tokenizer=description)
        vocabulary.check_tokenizer(description, f"the tokenizer of this training ({cfg.tokenizer.path})")
    else:
        if cfg.lm.pretrained:
            text_tokenizer = load_text_tokenizer(cfg.lm.pretrained)
        else:
            folder = run_dir / "text_tokenizer"
            if accelerator.is_main_process:
                texts = (
                    segment.text
                    for row in rows
                    for variant in range(task.variants(row))
                    for segment in task.document(row, variant=variant).segments
                    if isinstance(segment, TextSegment) and segment.text
                )
                train_text_tokenizer(texts, cfg.lm.text_tokenizer.vocab_size, folder)
            accelerator.wait_for_everyone()
            text_tokenizer = load_text_tokenizer(folder)
        vocabulary = AudioVocabulary(
            len(text_tokenizer), tuple(description["codebook_sizes"]), description, pattern=pattern_name(cfg.lm)
        )
        model = build_lm(cfg.lm, vocabulary, cfg.seed, vectors)
    is_depth = isinstance(model, DepthLM)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    adapted = None
    if lora:
        torch.manual_seed(cfg.seed)
        adapted = add_lora(model, cfg.tuning, vocabulary)
        model = adapted.base_model.model
        if checkpoint:
            load_adapter(adapted, checkpoint)
    if trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable()

    # ---- documents ---------------------------------------------------------------------------------------
    documents = render_documents(rows, task, vocabulary, text_tokenizer, None, trainer.row_length, is_depth)
    learns_text = any(task.task_of(row).target == "text" for row in rows)
    if documents.too_long:
        log.line(
            f"data: {len(documents.too_long)} documents are longer than trainer.row_length={trainer.row_length} and "
            f"are left out: {', '.join(documents.too_long[:5])}{' …' if len(documents.too_long) > 5 else ''}"
        )
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

    # ---- optimiser and state -----------------------------------------------------------------------------
    this_recipe = recipe(cfg, documents.hash, vocabulary.hash)
    kind = DepthObjective if is_depth else Objective
    legal, chunked = trainer.loss_over == "legal", trainer.head == "chunked"
    objective = kind(model, vocabulary, legal, trainer.level_weights, chunked)
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
        check_recipe(state["recipe"], this_recipe, checkpoint)
        step, seconds_before = state["step"], state["seconds"]
        moments = torch.load(checkpoint / OPTIMISER_FILE, map_location=device, weights_only=True)
        if not state.get("optimiser_by_name"):
            if sharded:
                raise CheckpointError(f"{checkpoint} was written without FSDP: continue it so, or give init=FOLDER.")
            optimiser.load_state_dict(moments)
    if trainer.compile:
        (model.lm if is_depth else model).model.compile(dynamic=False)
    objective, optimiser = accelerator.prepare(objective, optimiser)
    if checkpoint and state.get("optimiser_by_name"):
        scatter_optimiser(accelerator.unwrap_model(objective), optimiser.optimizer, moments)
    if accelerator.is_main_process:
        save_config(cfg, run_dir)
    log.rewind(step)
    parameters = sum(p.numel() for p in model.parameters())
    hours = documents.audio_tokens(vocabulary) / vocabulary.levels / description["frame_rate"] / 3600
    log.line(
        f"{run_dir}: {parameters / 1e6:.1f} M parameters, {len(documents):,} documents, {hours:.2f} h of audio, "
        f"{(documents.lengths * documents.weights).sum() / 1e6:.2f} M tokens per epoch; {device.type}, "
        f"{'bf16 autocast' if bf16 else 'fp32'}, "
        f"{world} process{'es' if world > 1 else ''}; "
        + (f"continues at step {step}" if checkpoint else f"starts from {cfg.init or cfg.lm.pretrained or 'scratch'}")
    )

    warm_up = trainer.max_steps if cfg.tuning.method == "new_rows" else cfg.tuning.warmup_new_rows

    # ---- loop --------------------------------------------------------------------------------------------
    stop: list[int] = []
    previous_handler = signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    started = time.monotonic()

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def save(final: bool = False) -> Path:
        state = {
            "step": step,
            "seconds": seconds(),
            "task": task.name,
            "recipe": this_recipe,
            "normalise": cfg.text.normalise if isinstance(cfg.text.normalise, str) else dict(cfg.text.normalise),
            "versions": versions(),
            "since_last_line": accelerator.reduce(sums.clone(), "sum").tolist(),
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

        target = run_dir / "final" if final else step_folder(run_dir, step)
        if accelerator.is_main_process:
            save_folder(target, write)
            if not final:
                rotate(run_dir, trainer.keep)
        accelerator.wait_for_everyone()
        return target

    def validate() -> None:
        if validation is None:
            return
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            values = validation.run(
                objective,
                device,
                trainer.micro_rows,
                rank,
                world,
                lambda sums: accelerator.reduce(sums, "sum"),
            )
        log.log(step, {f"valid_{key}": value for key, value in values.items()})
        kinds = [kind for kind in (*map(str, range(1, vocabulary.levels + 1)), "text") if f"loss_{kind}" in values]
        per_kind = {name: [values[f"{name}_{kind}"] for kind in kinds] for name in ("loss", "gap", "accuracy")}
        log.line(
            f"valid {step:5d} | loss {values['loss']:.3f} ({join(per_kind['loss'], '.2f')}) | "
            f"wrong condition {values['gap']:+.3f} ({join(per_kind['gap'], '+.2f')}) | "
            f"accuracy {join(per_kind['accuracy'], '.1%')}"
            + (f" | {values['bits_per_second']:.0f} bit/s" if "bits_per_second" in values else "")
        )
        members = [name for name in validation.tasks if f"loss/{name}" in values]
        if members:
            parts = [f"{name} {values[f'loss/{name}']:.3f} ({values[f'gap/{name}']:+.2f})" for name in members]
            log.line(f"valid {step:5d} | {' | '.join(parts)}")

    sums = torch.zeros(3, vocabulary.levels + 1, dtype=torch.float64, device=device)  # since the last log line
    if checkpoint and accelerator.is_main_process:
        sums += torch.tensor(state["since_last_line"], dtype=torch.float64, device=device)
    tokens = audio_tokens = 0
    window_start = time.monotonic()
    if step == 0:
        validate()
    batches = step_batches(data, step, trainer.max_steps, rank, world, trainer.workers)
    while step < trainer.max_steps:
        batch = next(batches)
        lr = learning_rate(step, trainer)
        for group, share in zip(optimiser.param_groups, shares, strict=True):
            group["lr"] = lr * share
        torch.manual_seed(cfg.seed * 1_000_003 + step * world + rank)  # dropout: a function of the step as well
        parts = [torch.from_numpy(a) for a in (batch.rows.input_ids, batch.rows.position_ids, batch.rows.targets)]
        starts = range(0, len(parts[0]), trainer.micro_rows)
        per_target = []
        for start in starts:
            micro = [part[start : start + trainer.micro_rows].to(device) for part in parts]
            last = start == starts[-1]  # only then are gradients exchanged
            with nullcontext() if last else accelerator.no_sync(objective):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = objective(*micro)
                # DDP averages over processes: times world, so that the sum is divided by the global count
                # once.
                accelerator.backward(loss.total * (world / batch.targets))
            sums += torch.stack([loss.loss, loss.correct, loss.count])
            per_target.append(loss.per_target)
        if step < warm_up:
            freeze_all_but_new_rows(model, tables, vocabulary.text_size)
        norm = whole(accelerator.clip_grad_norm_(objective.parameters(), trainer.grad_clip))
        if not torch.isfinite(norm):
            raise NonFiniteLoss(non_finite_message(step, batch, torch.cat(per_target)))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        tokens += batch.tokens
        audio_tokens += batch.audio_tokens

        if step % trainer.log_every == 0 or step == trainer.max_steps:
            total = accelerator.reduce(sums.clone(), "sum").cpu()
            elapsed = time.monotonic() - window_start
            mean, accuracy = total[0] / total[2].clamp(min=1), total[1] / total[2].clamp(min=1)
            audio_rate = audio_tokens / vocabulary.levels / description["frame_rate"] / elapsed
            left = (trainer.max_steps - step) * seconds() / step
            # Kinds that have targets: in recognition and captioning there is no level.
            levels = [k for k in range(vocabulary.levels) if total[2, k]]
            shown = [k for k in range(vocabulary.levels + 1) if total[2, k] and (k < vocabulary.levels or learns_text)]
            log.log(
                step,
                {
                    "loss": float(total[0].sum() / total[2].sum()),
                    **{f"loss_{k + 1}": float(mean[k]) for k in levels},
                    **{f"accuracy_{k + 1}": float(accuracy[k]) for k in levels},
                    **({"loss_text": float(mean[-1]), "accuracy_text": float(accuracy[-1])} if learns_text else {}),
                    "lr": lr,
                    "grad_norm": float(norm),
                    "tokens_per_second": tokens / elapsed,
                    "audio_seconds_per_second": audio_rate,
                    "epoch": batch.epoch,
                    "seconds": seconds(),
                },
            )
            log.line(
                f"step {step:6d}/{trainer.max_steps} | loss {float(total[0].sum() / total[2].sum()):.3f} "
                f"({join(mean[shown].tolist(), '.2f')}) | lr {lr:.1e} | grad {float(norm):.2f} | "
                f"{tokens / elapsed:,.0f} tok/s | {audio_rate:.0f} s audio/s | epoch {batch.epoch:.2f} | "
                f"{duration(left)} left"
            )
            sums.zero_()
            tokens = audio_tokens = 0
            window_start = time.monotonic()
        if step % trainer.valid_every == 0 or step == trainer.max_steps:
            before = time.monotonic()
            validate()
            window_start += time.monotonic() - before  # validation is not training time in tok/s
        told = accelerator.reduce(torch.tensor(len(stop), device=device), "sum") if world > 1 else len(stop)
        if step % trainer.save_every == 0 or step == trainer.max_steps or told:
            save()
        if told:
            log.line(f"stopped by SIGTERM at step {step}; the checkpoint is saved, the same command continues.")
            break
    signal.signal(signal.SIGTERM, previous_handler)

    # ---- the model to keep -------------------------------------------------------------------------------
    final = run_dir / "final"
    if step >= trainer.max_steps:
        if not (final / STATE_FILE).is_file() or read_state(final)["step"] != step:
            save(final=True)
            log.line(f"{final}: trained {step} steps in {duration(seconds())}; hear it with `python eval/tts.py`.")
        else:
            log.line(f"{final}: is current, nothing was to do (resume=none trains again).")
    log.close()
    accelerator.end_training()
    return final


def shares_of_tasks(documents: DocumentSet) -> str:
    """``asr 120 documents, 20 % of the tokens; tts …``, per epoch."""
    tokens = documents.lengths * documents.weights
    names = np.array(documents.tasks)
    parts = [
        f"{name} {round(documents.weights[names == name].sum()):,} documents, "
        f"{tokens[names == name].sum() / tokens.sum():.0%} of the tokens"
        for name in sorted(set(documents.tasks))
    ]
    return "; ".join(parts)


def join(values: list[float], form: str) -> str:
    """``[1.234, 5.678], ".1f"`` → ``1.2 5.7``."""
    return " ".join(format(value, form) for value in values)


def non_finite_message(step: int, batch: StepBatch, per_target: torch.Tensor) -> str:
    """One sentence that names the documents whose loss is not finite, over all processes."""
    learnt = torch.from_numpy(batch.rows.targets) >= 0
    row, column = learnt.nonzero(as_tuple=True)[:2]  # folded targets have levels as well
    bad = ~torch.isfinite(per_target.cpu())
    names = sorted(
        {
            batch.names[int(r)][int(batch.rows.document[int(r), int(c)])]
            for r, c in zip(row[bad], column[bad], strict=True)
        }
    )
    what = "loss" if names else "gradient"
    names = sorted(set(gather_object(names or [name for row_names in batch.names for name in row_names])))
    listed = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
    return (
        f"the {what} of step {step} is not finite; documents: {listed}. "
        "The last checkpoint is intact: lower trainer.lr, or look at these documents."
    )


@hydra_entry("lm_train")
def main(cfg: DictConfig) -> None:
    try:
        train(cfg)
    except (*REFUSALS, NonFiniteLoss) as error:
        raise ConfigError(str(error)) from None


if __name__ == "__main__":
    main()
