"""Train an ALMTokenizer: accelerate launch codec/train.py [codec=mini] [key=value ...]

Trains on the audio of data.root (and corpora=[...]), writes runs/<name>/: config.yaml, log.jsonl, checkpoints/,
samples/ at each validation, and final/ (a save_pretrained folder). stage=1 trains the ends, stage=2 init=FOLDER the
rest on top of them; without a stage everything is trained at once. init=FOLDER of a trained codec warm-starts any of
these. gan.start=N adds discriminators. A killed run continues exactly where its last checkpoint stands when the same
command is given again.
"""

from __future__ import annotations

import training.help  # noqa: F401

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from codec.corpus import Clip, CorpusError, Reject, left_out, read_audio, read_usable_corpus, spread
from codec.interface import TokenizerError
from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig
from codec.objectives.adversarial import Adversary, Balancer
from codec.objectives.hearing import Listener
from codec.pretrained import FILES, find_folder, holds_weights, load_whole
from codec.recipe.averaging import WeightAverage
from codec.recipe.crops import CropSampler
from codec.recipe.initialise import calibrate, check_kmeans, initialise_codebooks
from codec.recipe.options import check_crop, check_options
from codec.recipe.schedule import parameter_groups
from codec.recipe.stages import StagedCodec
from codec.recipe.step import Learner
from codec.recipe.validation import validate
from codec.semantics.centres import read_centres
from training import processes
from training.checkpoint import CheckpointError, latest_checkpoint, save_checkpoint, save_folder
from training.config import ConfigError, hydra_entry, refusing
from training.failure import NonFiniteLoss
from training.launch import LONGEST_WAIT, check_processes, decide, leave_at_exit, on_cpu
from training.lock import hold
from training.log import RunLog, duration
from training.run_folder import check_recipe, choose_checkpoint, set_aside, write_settings
from training.stopping import Stop
from training.threads import set_threads
from training.tracking import Tracker, TrackerError

OBJECTIVES = "objectives.safetensors"
BOOKS = "quantizer.books."


@contextmanager
def continuing(checkpoint: Path) -> Iterator[None]:
    """What fails inside the ``with`` block fails because the training was begun with other options."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise ConfigError(
            f"{checkpoint} cannot be continued with these options ({reason}): give this training another name, or "
            "resume=none to start over."
        ) from error


def read_init(path: str) -> ALMTokenizer:
    """The codec that a training begins with: a final/ folder or a checkpoint of this program, or a hub id."""
    folder = find_folder(path, FILES)
    if folder is None or not holds_weights(folder):
        raise ConfigError(f"init={path}: there is no model.safetensors; name a final/ folder of codec/train.py.")
    with refusing(TokenizerError):
        return load_whole(ALMTokenizer, folder)


def read_clips(cfg: DictConfig) -> tuple[list[Clip], list[Clip], list[Reject]]:
    """The clips of all corpora to learn from, those of the first to validate on, and what was left out of them."""
    clips, valid, rejects = list[Clip](), list[Clip](), list[Reject]()
    for number, root in enumerate([cfg.data.root, *cfg.corpora]):
        with refusing(CorpusError):
            found, bad = read_usable_corpus(root)
        clips += [clip for clip in found if clip.split == "train"]
        rejects += bad
        if number == 0:
            valid = [clip for clip in found if clip.split == "valid"]
    if not clips:
        raise ConfigError(f"{cfg.data.root} has no clip in its train split: name another folder with data.root.")
    speech, other = [c for c in valid if c.domain == "speech"], [c for c in valid if c.domain != "speech"]
    count = cfg.trainer.valid_clips
    chosen = (spread(speech, count) + spread(other, count))[:count] if count else []
    return clips, chosen, rejects


# Keys that change no number of the curve.
FREE_KEYS = ("name", "preset", "resume", "device", "tracker", "threads", "init", "corpora", "data")
FREE_TRAINER = ("valid_every", "valid_clips", "save_every", "keep", "log_every", "compile", "batch_size", "accumulate")


def recipe(cfg: DictConfig, clips: Sequence[Clip], init: ALMTokenizer | None, world: int) -> dict[str, Any]:
    """What makes a run the same run: a checkpoint continues only under an equal recipe.

    It holds the crops of a step over all ``world`` processes, which may be spread in another way, and what is heard and
    begun with instead of the names of its folders.
    """
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    train = settings["trainer"]
    crops = train["batch_size"] * train["accumulate"] * world
    settings["trainer"] = {k: v for k, v in train.items() if k not in FREE_TRAINER}
    heard = "\n".join(f"{clip.id} {clip.domain} {clip.path.stat().st_size}" for clip in clips)
    corpus = hashlib.sha256(heard.encode("utf-8", "surrogateescape")).hexdigest()
    kept = {key: value for key, value in settings.items() if key not in FREE_KEYS}
    begun = None if init is None else init.fingerprint[:12]
    return {
        **kept,
        "init": begun,
        "trainer.batch_size × accumulate × processes": crops,
        "clips of the corpus": f"{len(clips)}, {corpus[:12]}",
    }


def different_keys(theirs: ALMTokenizerConfig, ours: ALMTokenizerConfig) -> str:
    """Where the configurations differ: ``key=ours, there theirs``."""
    there, here = theirs.to_dict(), ours.to_dict()
    skip = ("transformers_version", "architectures", "dtype", "auto_map")
    keys = [key for key in here if key not in skip and here[key] != there.get(key)]
    return ", ".join(f"codec.{key}={here[key]}, there {there.get(key)}" for key in keys)


def train_codec(cfg: DictConfig) -> None:
    """Train as ``cfg`` (configs/codec_train.yaml) says."""
    # ---- configuration -----------------------------------------------------------------------------------------
    check_options(cfg)
    set_threads(cfg.threads)
    init = None if cfg.init is None else read_init(cfg.init)
    centres = read_centres(cfg)
    # weights of a trained codec bring their codebooks: the quantiser works from the first step
    brings_codes = init is not None and cfg.stage is None and init.quantizer.begun
    quantize_from = 0 if brings_codes else int(cfg.trainer.quantize_from)
    config = ALMTokenizerConfig(**cast(dict[str, Any], OmegaConf.to_container(cfg.codec, resolve=True)))
    listener = None
    if cfg.hearing.encoder is not None:
        listener = Listener(cfg.hearing.encoder, cfg.hearing.layers, config.sample_rate)
    torch.manual_seed(cfg.seed)
    with refusing(ValueError):
        core = ALMTokenizer(config)
        staged = StagedCodec(core, cfg, listener.dim if listener else 0)
    check_crop(cfg, config.sample_rate, config.hop)
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    accelerator = Accelerator(cpu=on_cpu(cfg.device), mixed_precision=cfg.precision, kwargs_handlers=[waiting])
    check_processes(accelerator.num_processes)
    leave_at_exit()
    clusters = cfg.stage != 1 and not brings_codes
    crop = int(cfg.trainer.crop_seconds * config.sample_rate)
    if clusters and quantize_from < cfg.trainer.max_steps:
        check_kmeans(cfg, config, crop)
    clips, valid_clips, rejects = read_clips(cfg)
    run_dir = Path("runs") / (cfg.name or f"codec-{cfg.preset}" + (f"-stage{cfg.stage}" if cfg.stage else ""))
    decide(lambda: hold(run_dir))
    log = RunLog(run_dir, accelerator.is_main_process)
    train = cfg.trainer
    try:
        settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
        tracker = Tracker(cfg.tracker, run_dir, settings, accelerator.is_main_process)
    except TrackerError as error:
        raise ConfigError(str(error)) from error

    # ---- data --------------------------------------------------------------------------------------------------
    roots = ", ".join(map(str, [cfg.data.root, *cfg.corpora]))
    if rejects:
        log.line(left_out(roots, rejects))
    with refusing(ValueError):
        sampler = CropSampler(clips, config.sample_rate, dict(train.domain_weights), tuple(train.gain_db), cfg.seed)
    counts = {d: len(c) for d, c in sampler.by_domain.items()}
    log.line(f"corpus {roots}: {counts} training clips, {len(valid_clips)} validation clips, {len(rejects)} rejected")
    for domain in sorted(set(counts) - set(sampler.domains)):
        log.line(f"left out: {counts[domain]} clips of domain {domain}, as trainer.domain_weights.{domain}=0 says")

    # ---- model and optimiser -----------------------------------------------------------------------------------
    optimizer = torch.optim.AdamW(
        parameter_groups(staged, train.weight_decay), lr=train.learning_rate, betas=tuple(train.betas), fused=True
    )
    with refusing(ValueError):
        adversary = None if cfg.gan.start is None else Adversary(cfg.gan, config.sample_rate, accelerator, cfg.seed)
    balancer = Balancer(cfg.gan.balancer_decay) if cfg.gan.balancer else None
    step = 0
    checkpoint = choose_checkpoint(run_dir, cfg.resume, log.line)
    this_recipe = recipe(cfg, clips, init, accelerator.num_processes)
    if checkpoint is not None:
        state = json.loads((checkpoint / "state.json").read_text())
        if "recipe" in state:
            check_recipe(state["recipe"], this_recipe, checkpoint)
        else:
            log.line(f"{checkpoint} does not say with what settings it was trained: they are not compared.")
        step = state["step"]
        with continuing(checkpoint):
            core.load_state_dict(load_file(checkpoint / "model.safetensors"))
            optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
            if staged.objectives():
                staged.load_state_dict(load_file(checkpoint / OBJECTIVES), strict=False)
            if adversary is not None:
                seen = torch.load(checkpoint / "adversary.pt", map_location="cpu", weights_only=True)
                adversary.load_state_dict(seen)
            if balancer is not None:
                balancer.load_state_dict(state["balancer"])
        log.line(f"resumed from {checkpoint} at step {step}")
    elif init is not None:
        # what the old codec does not have starts from the statistics of the data
        calibrate(core, sampler, cfg, crop)
        try:
            weights = init.state_dict()
            if cfg.stage is not None:  # stage 1 has no codebooks, stage 2 begins with new ones
                weights = {key: value for key, value in weights.items() if not key.startswith(BOOKS)}
                weights |= {key: value for key, value in core.state_dict().items() if key.startswith(BOOKS)}
            found = core.load_state_dict(weights, strict=False)
            if found.unexpected_keys:
                raise RuntimeError(f"unknown keys {', '.join(found.unexpected_keys)}")
            if found.missing_keys:
                log.line(f"not in {cfg.init}, starts anew: {', '.join(found.missing_keys)}")
        except RuntimeError as error:
            differing = different_keys(init.config, config) or "unknown difference"
            raise ConfigError(
                f"init={cfg.init} is another architecture ({differing}): give its codec=… preset or keys."
            ) from error
    else:
        calibrate(core, sampler, cfg, crop)
    if centres is not None:
        core.quantizer.books[0].mapped = "weight" in centres
        if checkpoint is None:
            core.quantizer.books[0].set_centres(centres["centres"], centres.get("weight"), centres.get("bias"))
    parameters = sum(p.numel() for p in core.parameters())
    log.line(f"model: {parameters / 1e6:.2f} M parameters, {core.bitrate:.1f} bit/s at w={core.window}")
    if train.compile:
        core.encoder.compile()  # in place: the names of the weights stay
        core.decoder.compile()
    model, optimizer = accelerator.prepare(staged, optimizer)
    listener = listener.to(accelerator.device) if listener else None
    average = WeightAverage(staged, train.ema) if train.ema else None
    if average is not None and checkpoint is not None:
        with continuing(checkpoint):
            average.load(load_file(checkpoint / "average.safetensors", device=str(accelerator.device)))

    def begin() -> None:
        set_aside(run_dir, checkpoint, step, log.line)
        write_settings(cfg, run_dir, step, log.line)
        log.rewind(step)

    decide(begin)  # not before all that could refuse

    def write(folder: Path) -> None:
        core.save_pretrained(folder)
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        if staged.objectives():
            save_file({k: v.contiguous() for k, v in staged.objectives().items()}, folder / OBJECTIVES)
        if adversary is not None:
            torch.save(adversary.state_dict(), folder / "adversary.pt")
        if average is not None:
            save_file(average.shadow, folder / "average.safetensors")
        extra = {} if balancer is None else {"balancer": balancer.state_dict()}
        (folder / "state.json").write_text(json.dumps({"step": step, "recipe": this_recipe, **extra}))

    def save() -> None:
        save_checkpoint(run_dir, step, write, train.keep)

    stop = Stop().listen()

    # ---- loop --------------------------------------------------------------------------------------------------
    model.train()
    reconstruct = staged.reconstruct if cfg.stage == 1 else None  # stage 1 has no codes to score
    learner = Learner(model, staged, optimizer, sampler, adversary, listener, balancer, accelerator, crop, cfg)
    began, began_step, audio_seconds, since = time.monotonic(), step, 0.0, time.monotonic()
    while step < train.max_steps:
        if step == quantize_from and clusters:
            latents = initialise_codebooks(core, sampler, cfg, step, crop)
            log.line(f"step {step}: codebooks initialised by k-means on {latents} latents")
        report = learner.step(step, bypass=step < quantize_from)
        told = learner.agree(step, report, stop.asked)
        step += 1
        if average is not None:
            average.update(step)
        audio_seconds += report.samples / config.sample_rate * accelerator.num_processes

        if step % train.log_every == 0 or step == 1:
            now = time.monotonic()
            total = report.losses.pop("loss")
            values = {name: round(value, 5) for name, value in report.losses.items()}
            speed = audio_seconds / (now - since)
            left = (now - began) / (step - began_step) * (train.max_steps - step)
            record = {"loss": total, **values, "lr": report.rate, "grad_norm": report.norm, "audio_s_per_s": speed}
            log.log(step, dict(record))
            tracker.scalars(step, record)
            parts = " ".join(f"{name} {value:.3f}" for name, value in values.items())
            log.line(
                f"step {step}/{train.max_steps} | loss {total:.3f} | {parts} | grad {report.norm:.2f} | "
                f"lr {report.rate:.1e} | {speed:.1f} audio s/s | {duration(left)} left"
            )
            audio_seconds, since = 0.0, now
        if step % train.valid_every == 0 or step == train.max_steps:
            if accelerator.is_main_process and valid_clips:
                samples_dir = run_dir / "samples" / f"step_{step:07d}"
                with average.applied() if average is not None else nullcontext():
                    scores = validate(core, valid_clips, samples_dir, reconstruct=reconstruct)
                tracker.scalars(step, scores, "valid")
                for path in sorted(samples_dir.rglob("*.wav")):
                    name = path.relative_to(samples_dir).with_suffix("").as_posix()
                    tracker.audio(step, name, read_audio(path, config.sample_rate), config.sample_rate)
                tracker.picture(step, "spectrograms", samples_dir / "spectrograms.png")
                log.log(step, {f"valid_{k}": v for k, v in scores.items()})
                log.line(f"valid {step}: " + " ".join(f"{k} {v:.3f}" for k, v in scores.items()))
                model.train()
                since = time.monotonic()
            accelerator.wait_for_everyone()
        if step % train.save_every == 0 or step == train.max_steps or told:
            decide(save)
        if told:
            stop.close()
            tracker.close()
            log.line(f"{stop.name}: saved step {step}; the same command continues.")
            stop.leave()

    stop.close()
    tracker.close()

    def finish() -> None:
        with average.applied() if average is not None else nullcontext():
            save_folder(run_dir / "final", lambda folder: core.save_pretrained(folder))
        log.line(f"done: {run_dir / 'final'} (newest checkpoint {latest_checkpoint(run_dir)})")

    decide(finish)


@hydra_entry("codec_train")
def main(cfg: DictConfig) -> None:
    try:
        train_codec(cfg)
    except (CheckpointError, CorpusError) as error:
        raise ConfigError(str(error)) from None
    except NonFiniteLoss as error:
        if processes.place()[0]:  # all processes know of it, one says it
            raise SystemExit(2) from None
        raise ConfigError(str(error)) from None


if __name__ == "__main__":
    main()
