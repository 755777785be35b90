"""Train an ALMTokenizer: accelerate launch codec/train.py [codec=mini] [key=value ...]

Trains on the audio of data.root (and corpora=[...]), writes runs/<name>/: config.yaml, log.jsonl, checkpoints/,
samples/ at each validation, and final/ (a save_pretrained folder). A killed run continues exactly where its last
checkpoint stands when the same command is given again.
"""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from codec.corpus import read_corpus
from codec.crops import CropSampler
from codec.losses import Resolution, pitch_loss, spectral_losses
from codec.model import MAX_WINDOW, MIN_WINDOW, ALMTokenizer, ALMTokenizerConfig
from codec.validation import validate
from training.checkpoint import latest_checkpoint, resolve_resume, rotate, save_folder, step_folder
from training.config import ConfigError, hydra_entry, save_config
from training.log import RunLog, duration


def learning_rate(step: int, cfg: DictConfig) -> float:
    """Linear warm-up, then cosine decay to ``final_lr_share`` of the peak."""
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, cfg.max_steps - cfg.warmup_steps)
    share = cfg.final_lr_share + (1 - cfg.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return cfg.learning_rate * share


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def draw_step(step: int, cfg: DictConfig, codec: ALMTokenizerConfig) -> tuple[int, int | None, list[Resolution], int]:
    """What a step draws, from (seed, step) alone: window, levels (None = all), loss resolutions, noise offset."""
    rng = np.random.default_rng([cfg.seed, step, 1 << 20])
    train = cfg.trainer
    window = codec.window
    if rng.random() >= train.default_window_share:
        window = int(rng.integers(MIN_WINDOW, MAX_WINDOW + 1))
    levels = None
    if rng.random() < train.level_dropout and len(codec.codebook_sizes) > 1:
        levels = int(rng.integers(1, len(codec.codebook_sizes)))
    chosen = rng.choice(len(cfg.loss.resolutions), size=cfg.loss.draw, replace=False)
    resolutions = [Resolution(*cfg.loss.resolutions[int(i)]) for i in sorted(chosen)]
    return window, levels, resolutions, int(rng.integers(1 << 17))


def initialise_codebooks(model: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, step: int, crop: int) -> int:
    """k-means of the codebooks on latents of ``init_batches`` batches (drawn beyond the training's steps)."""
    latents = []
    windows = crop // (model.config.hop * model.window)
    samples = windows * model.config.hop * model.window
    with torch.no_grad():
        for i in range(cfg.trainer.init_batches):
            wav, _ = sampler.batch((1 << 30) + i, 0, cfg.trainer.batch_size, samples)
            wav = wav.to(model.query.device)
            latents.append(model.quantizer(model.encode_latents(wav, model.window), bypass=True)[1].flatten(0, 1))
    collected = torch.cat(latents)
    generator = torch.Generator().manual_seed(cfg.seed + step)
    model.quantizer.initialise(collected, cfg.trainer.batch_size * windows, 15, generator)
    return len(collected)


def losses_of(
    model: torch.nn.Module, wav: Tensor, draw: tuple, cfg: DictConfig, step: int, rank: int
) -> dict[str, Tensor]:
    """All losses of one batch ``wav [batch, samples]``, unweighted."""
    window, levels, resolutions, noise_offset = draw
    codec = model.module.config if hasattr(model, "module") else model.config
    bypass = step < cfg.trainer.quantize_from
    generator = None if bypass else torch.Generator().manual_seed(cfg.seed * 1_000_003 + step * 1009 + rank)
    out = model(wav, window=window, levels=levels, update=generator, bypass=bypass, noise_offset=noise_offset)
    losses: dict[str, Tensor] = {}
    for resolution in resolutions:
        for name, value in spectral_losses(out.wav, wav, codec.sample_rate, resolution).items():
            losses[name] = losses.get(name, 0) + value / len(resolutions)
    losses["commitment"] = out.quantized.commitment
    if out.frequency is not None:
        losses["pitch"] = pitch_loss(
            out.frequency, wav, codec.sample_rate, codec.hop, codec.pitch_low, codec.pitch_high
        )
    return losses


@hydra_entry("codec_train")
def main(cfg: DictConfig) -> None:
    # ---- configuration -----------------------------------------------------------------------------------------
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    accelerator = Accelerator(cpu=cfg.device == "cpu")
    run_dir = Path("runs") / (cfg.name or f"codec-{cfg.preset}")
    log = RunLog(run_dir, accelerator.is_main_process)
    train = cfg.trainer
    if accelerator.is_main_process:
        save_config(cfg, run_dir)

    # ---- data --------------------------------------------------------------------------------------------------
    clips, valid_clips, rejects = [], [], []
    for number, root in enumerate([cfg.data.root, *cfg.corpora]):
        found, bad = read_corpus(root)
        clips += [c for c in found if c.split == "train"]
        rejects += bad
        if number == 0:
            valid_clips = [c for c in found if c.split == "valid"]
    for reject in rejects[:5]:
        log.line(f"rejected: {reject}")
    if not clips:
        raise ConfigError(f"no clip of the train split in {cfg.data.root}; build it with `make setup`.")
    valid_clips = sorted(valid_clips, key=lambda c: (c.domain != "speech", c.id))[: train.valid_clips]
    config = ALMTokenizerConfig(**OmegaConf.to_container(cfg.codec, resolve=True))
    sampler = CropSampler(clips, config.sample_rate, dict(train.domain_weights), tuple(train.gain_db), cfg.seed)
    crop = int(train.crop_seconds * config.sample_rate)
    counts = {d: len(c) for d, c in sampler.by_domain.items()}
    log.line(f"corpus: {counts} training clips, {len(valid_clips)} validation clips, {len(rejects)} rejected")

    # ---- model and optimiser -----------------------------------------------------------------------------------
    torch.manual_seed(cfg.seed)
    model = ALMTokenizer(config)
    groups = parameter_groups(model, train.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=tuple(train.betas), fused=True)
    step = 0
    checkpoint = resolve_resume(run_dir, cfg.resume)
    if checkpoint is not None:
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True))
        step = json.loads((checkpoint / "state.json").read_text())["step"]
        log.line(f"resumed from {checkpoint} at step {step}")
    else:
        calibration = [sampler.batch((1 << 29) + i, 0, train.batch_size, crop // 1920 * 1920)[0] for i in range(16)]
        model.calibrate(torch.cat(calibration))
    log.rewind(step)
    parameters = sum(p.numel() for p in model.parameters())
    log.line(f"model: {parameters / 1e6:.2f} M parameters, {model.bitrate:.1f} bit/s at w={model.window}")
    model, optimizer = accelerator.prepare(model, optimizer)
    core: ALMTokenizer = accelerator.unwrap_model(model)

    def save(at: int) -> None:
        if accelerator.is_main_process:

            def write(folder: Path) -> None:
                core.save_pretrained(folder)
                torch.save(optimizer.state_dict(), folder / "optimizer.pt")
                (folder / "state.json").write_text(json.dumps({"step": at}))

            save_folder(step_folder(run_dir, at), write)
            rotate(run_dir, train.keep)
        accelerator.wait_for_everyone()

    stop = {"asked": False}
    signal.signal(signal.SIGTERM, lambda *_: stop.update(asked=True))

    # ---- loop --------------------------------------------------------------------------------------------------
    model.train()
    rank, world = accelerator.process_index, accelerator.num_processes
    began, began_step, audio_seconds, since = time.monotonic(), step, 0.0, time.monotonic()
    while step < train.max_steps:
        if step == train.quantize_from:
            found = initialise_codebooks(core, sampler, cfg, step, crop)
            log.line(f"step {step}: codebooks initialised by k-means on {found} latents")
        draw = draw_step(step, cfg, config)
        samples = crop // (config.hop * draw[0]) * config.hop * draw[0]
        wav, ids = sampler.batch(step, rank * train.batch_size, train.batch_size, samples)
        wav = wav.to(accelerator.device)
        losses = losses_of(model, wav, draw, cfg, step, rank)
        loss = sum(cfg.loss[name] * value for name, value in losses.items())
        if not torch.isfinite(loss):
            save(step)
            raise RuntimeError(f"loss is {loss.item()} at step {step}; clips of the batch: {', '.join(ids)}")
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), train.clip_norm)
        rate = learning_rate(step, train)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        audio_seconds += wav.numel() / config.sample_rate * world

        if step % train.log_every == 0 or step == 1:
            now = time.monotonic()
            values = {name: round(value.item(), 5) for name, value in losses.items()}
            speed = audio_seconds / (now - since)
            left = (now - began) / (step - began_step) * (train.max_steps - step)
            log.log(step, {"loss": loss.item(), **values, "lr": rate, "grad_norm": float(norm), "audio_s_per_s": speed})
            parts = " ".join(f"{name} {value:.3f}" for name, value in values.items())
            log.line(
                f"step {step}/{train.max_steps} | loss {loss.item():.3f} | {parts} | grad {float(norm):.2f} | "
                f"lr {rate:.1e} | {speed:.1f} audio s/s | {duration(left)} left"
            )
            audio_seconds, since = 0.0, now
        if step % train.save_every == 0 or step == train.max_steps or stop["asked"]:
            save(step)
        if stop["asked"]:
            log.line(f"SIGTERM: saved step {step}; the same command continues.")
            return
        if step % train.valid_every == 0 or step == train.max_steps:
            if accelerator.is_main_process and valid_clips:
                scores = validate(core, valid_clips, run_dir / "samples" / f"step_{step:07d}")
                log.log(step, {f"valid_{k}": v for k, v in scores.items()})
                log.line(f"valid {step}: " + " ".join(f"{k} {v:.3f}" for k, v in scores.items()))
                model.train()
                since = time.monotonic()
            accelerator.wait_for_everyone()

    if accelerator.is_main_process:
        save_folder(run_dir / "final", lambda folder: core.save_pretrained(folder))
        log.line(f"done: {run_dir / 'final'} (newest checkpoint {latest_checkpoint(run_dir)})")


if __name__ == "__main__":
    main()
