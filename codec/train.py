"""Train an ALMTokenizer: accelerate launch codec/train.py [codec=mini] [key=value ...]

Trains on the audio of data.root (and corpora=[...]), writes runs/<name>/: config.yaml, log.jsonl, checkpoints/,
samples/ at each validation, and final/ (a save_pretrained folder). stage=1 trains the ends, stage=2 init=FOLDER the
rest on top of them; without a stage everything is trained at once. init=FOLDER of a trained codec warm-starts any of
these; stage=3 trains a flow decoder for its codes, which stay as they are. gan.start=N adds discriminators. A killed
run continues exactly where its last checkpoint stands when the same command is given again.
"""

from __future__ import annotations

import training.help  # noqa: F401

import math
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from omegaconf import DictConfig, OmegaConf

from codec.corpus import Clip, CorpusError, Reject, left_out, read_usable_corpus, spread
from codec.model import ALMTokenizer
from codec.network.architecture import architecture_of
from codec.objectives.hearing import Listener
from codec.objectives.losses import StagedCodec
from codec.recipe.ceiling import check_ceiling
from codec.recipe.crops import Batches, CropSampler, regression_steps
from codec.recipe.diagnostics import diagnose
from codec.recipe.initialise import (
    calibrate,
    calibrate_flow,
    check_kmeans,
    flow_of,
    initialise_codebooks,
    know_experts,
    measure_residual,
    read_init,
    reopen_space,
    take_ends,
    take_over,
)
from codec.recipe.options import check_crop, check_options
from codec.recipe.run import Run, StepReport, recipe_of
from codec.recipe.validation import validate
from codec.semantics.centres import read_centres
from training import processes
from training.checkpoint import latest_checkpoint, save_checkpoint, save_folder
from training.config import ConfigError, hydra_entry, refusing
from training.failure import HelperEnded, NonFiniteLoss
from training.launch import LONGEST_WAIT, check_launcher, check_processes, check_sharding, decide, leave_at_exit, on_cpu
from training.lock import hold
from training.log import RunLog, duration
from training.run_folder import choose_checkpoint, set_aside, write_settings
from training.stopping import Stop
from training.threads import set_threads
from training.tracking import Tracker, TrackerError

GATE_CLIPS = 12  # of the training that gate 0 of stage 3 looks at, where none is held out


def read_clips(cfg: DictConfig) -> tuple[list[Clip], list[Clip], list[Reject]]:
    """The clips of all corpora to learn from, those of the first to validate on, and what was left out of them."""
    clips, valid, rejects = list[Clip](), list[Clip](), list[Reject]()
    for number, root in enumerate([cfg.data.root, *cfg.corpora]):
        with refusing(CorpusError):
            found, bad = read_usable_corpus(root)
        own, held = ([clip for clip in found if clip.split == split] for split in ("train", "valid"))
        if number == 0:
            own = spread(own, cfg.data.train_subset or 0, seed=cfg.seed)
            valid = spread(held, cfg.data.valid_subset or 0, seed=cfg.seed)
        clips += own
        rejects += bad
    if not clips:
        raise ConfigError(f"{cfg.data.root} has no clip in its train split: name another folder with data.root.")
    count = cfg.trainer.valid_clips
    if not count:
        return clips, [], rejects
    domains = sorted({clip.domain for clip in valid}, key=lambda domain: (domain != "speech", domain))
    parts = [[clip for clip in valid if clip.domain == domain] for domain in domains]
    if cfg.stage == 3:  # is about sounds and music as much as about speech
        dealt = zip_longest(*(spread(part, math.ceil(count / len(parts))) for part in parts))
        return clips, [clip for row in dealt for clip in row if clip is not None][:count], rejects
    speech, other = [c for c in valid if c.domain == "speech"], [c for c in valid if c.domain != "speech"]
    return clips, (spread(speech, count) + spread(other, count))[:count], rejects


class Progress:
    """The log line of every ``trainer.log_every`` steps: losses, speed, and the time that is left."""

    def __init__(self, cfg: DictConfig, step: int, log: RunLog, tracker: Tracker) -> None:
        self.train, self.log, self.tracker = cfg.trainer, log, tracker
        self.began, self.first = time.monotonic(), step
        self.since, self.seconds = self.began, 0.0

    def tell(self, step: int, report: StepReport, seconds: float) -> None:
        """After ``step`` steps, of which the last heard ``seconds`` of audio."""
        self.seconds += seconds
        if step % self.train.log_every and step != 1:
            return
        now = time.monotonic()
        total = report.losses.pop("loss")
        values = {name: round(value, 5) for name, value in report.losses.items()}
        speed = self.seconds / (now - self.since)
        left = (now - self.began) / (step - self.first) * (self.train.max_steps - step)
        record = {"loss": total, **values, "lr": report.rate, "grad_norm": report.norm, "audio_s_per_s": speed}
        self.log.log(step, dict(record))
        self.tracker.scalars(step, record)
        parts = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.log.line(
            f"step {step}/{self.train.max_steps} | loss {total:.3f} | {parts} | grad {report.norm:.2f} | "
            f"lr {report.rate:.1e} | {speed:.1f} audio s/s | {duration(left)} left"
        )
        self.seconds, self.since = 0.0, now


def look(run: Run, clips: list[Clip], run_dir: Path, log: RunLog, tracker: Tracker) -> None:
    """Validate on ``clips``, and log and track what came of it."""
    step, rate = run.steps, run.codec.config.sample_rate
    folder = run_dir / "samples" / f"step_{step:07d}"

    def heard(name: str, wav: np.ndarray, output: np.ndarray) -> None:
        tracker.audio(step, name, output, rate)
        tracker.audio(step, f"{name}-original", wav, rate)

    with run.exported():  # stage 1 has no codes to score
        reconstruct = run.staged.reconstruct if run.cfg.stage == 1 else None
        scores = validate(run.codec, clips, folder, heard, reconstruct=reconstruct)
        if run.cfg.stage == 3:
            scores |= diagnose(run.codec, clips)
    run.model.train()
    tracker.scalars(step, scores, "valid")
    tracker.picture(step, "spectrograms", folder / "spectrograms.png")
    log.log(step, {f"valid_{k}": v for k, v in scores.items()})
    log.line(f"valid {step}: " + " ".join(f"{k} {v:.3f}" for k, v in scores.items()))


def train_codec(cfg: DictConfig) -> None:
    """Train as ``cfg`` (configs/codec_train.yaml) says."""
    # ---- configuration -----------------------------------------------------------------------------------------
    check_options(cfg)
    set_threads(cfg.threads)
    train = cfg.trainer
    init = None if cfg.init is None else read_init(cfg.init)
    centres = read_centres(cfg)
    if cfg.stage == 3 and init is not None and not init.quantizer.begun:
        raise ConfigError(
            f"init={cfg.init}: its codebooks are random, so there are no codes to decode; train it first."
        )
    config = architecture_of(cfg.codec)
    # weights of a trained codec bring their codebooks: the quantiser works from the first step
    brings_codes = init is not None and cfg.stage in (None, 3) and init.quantizer.begun
    if cfg.reopen is not None or (init is not None and config.pitch_input and not init.config.pitch_input):
        brings_codes = False  # they know nothing of a space made anew, or of an axis that is to say the pitch
    quantize_from = 0 if brings_codes else int(train.quantize_from)
    clusters = cfg.stage != 1 and not brings_codes
    know_experts(config)
    autoencoder = None
    if cfg.stage == 3:
        autoencoder = None if cfg.flow.autoencoder is None else read_init(cfg.flow.autoencoder, "flow.autoencoder")
        config.flow = flow_of(cfg, config, autoencoder)
    crop = int(train.crop_seconds * config.sample_rate)
    listener = None
    if cfg.hearing.encoder is not None:
        listener = Listener(cfg.hearing.encoder, cfg.hearing.layers, config.sample_rate)
    torch.manual_seed(cfg.seed)
    with refusing(ValueError):
        codec = ALMTokenizer(config)
        staged = StagedCodec(codec, cfg)
    check_crop(cfg, config.sample_rate, config.hop)
    check_launcher()
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    accelerator = Accelerator(cpu=on_cpu(cfg.device), mixed_precision=cfg.precision, kwargs_handlers=[waiting])
    check_processes(accelerator.num_processes)
    check_sharding(False)
    leave_at_exit()
    if clusters and quantize_from < train.max_steps:
        check_kmeans(cfg, config, crop)
    clips, valid_clips, rejects = read_clips(cfg)
    run_dir = Path("runs") / (cfg.name or f"codec-{cfg.preset}" + (f"-stage{cfg.stage}" if cfg.stage else ""))
    decide(lambda: hold(run_dir, reads=[cfg.data.root, *cfg.corpora]))
    log = RunLog(run_dir, accelerator.is_main_process)
    with refusing(TrackerError):
        settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
        tracker = Tracker(cfg.tracker, run_dir, settings, accelerator.is_main_process)

    # ---- data --------------------------------------------------------------------------------------------------
    roots = ", ".join(map(str, [cfg.data.root, *cfg.corpora]))
    if rejects:
        log.line(left_out(roots, rejects))
    with refusing(ValueError):
        weights, gain = dict(train.domain_weights), tuple(train.gain_db)
        sampler = CropSampler(clips, config.sample_rate, weights, gain, cfg.seed, train.draw_by == "duration")
    counts = {d: len(c) for d, c in sampler.by_domain.items()}
    log.line(f"corpus {roots}: {counts} training clips, {len(valid_clips)} validation clips, {len(rejects)} rejected")
    for domain in sorted(set(counts) - set(sampler.domains)):
        log.line(f"left out: {counts[domain]} clips of domain {domain}, as trainer.domain_weights.{domain}=0 says")

    if clusters and quantize_from >= train.max_steps:
        log.line(
            f"final/ will have no codes: trainer.max_steps={train.max_steps} ends before the quantiser begins "
            f"(trainer.quantize_from={quantize_from})"
        )

    # ---- model, and where it begins ----------------------------------------------------------------------------
    checkpoint = choose_checkpoint(run_dir, cfg.resume, log.line)
    if centres is not None:
        codec.quantizer.books[0].mapped = "weight" in centres
    if checkpoint is None:
        calibrate(codec, sampler, cfg, crop)
        # what the old codec does not have starts from the statistics of the data
        missing = [] if init is None else take_over(codec, init, cfg)
        if others := [name for name in missing if not (cfg.stage == 3 and name.startswith("flow."))]:
            log.line(f"not in {cfg.init}, starts anew: {', '.join(others)}")
        if cfg.reopen is not None:
            lost = reopen_space(codec, sampler, cfg, crop)
            log.line(f"code space of {cfg.init} anew from its queries; {lost:.2%} of what its decoder hears is lost")
        if autoencoder is not None:
            take_ends(codec, autoencoder)
        if "flow.mean" in missing:
            calibrate_flow(codec, sampler, cfg, crop)
        if centres is not None:
            codec.quantizer.books[0].set_centres(**centres)
    recipe = recipe_of(cfg, clips, init, accelerator.num_processes)
    run = Run(cfg, staged, listener, accelerator, recipe, quantize_from)
    if checkpoint is not None:
        run.load(checkpoint)
        log.line(f"resumed from {checkpoint} at step {run.steps}")
    parameters = sum(p.numel() for p in codec.parameters())
    log.line(f"model: {parameters / 1e6:.2f} M parameters, {codec.bitrate:.1f} bit/s at w={codec.window}")
    ceiling: dict[str, float] = {}
    if cfg.stage == 3 and checkpoint is None:
        judged, folder = valid_clips or spread(clips, GATE_CLIPS), run_dir / "samples" / "ceiling"
        ceiling = decide(lambda: check_ceiling(codec, judged, folder, log.line))
    # not before all that could refuse
    decide(lambda: set_aside(run_dir, checkpoint, run.steps, log.line))
    decide(lambda: write_settings(cfg, run_dir, run.steps, log.line))
    decide(lambda: log.rewind(run.steps))
    if ceiling:
        log.log(run.steps, dict(ceiling))

    # ---- loop --------------------------------------------------------------------------------------------------
    run.model.train()
    stop = Stop().listen()
    progress, told = Progress(cfg, run.steps, log, tracker), False
    with Batches(sampler, cfg, config, accelerator.process_index).from_step(run.steps) as batches:
        while run.steps < train.max_steps and not told:
            if run.steps == quantize_from and clusters:
                latents = initialise_codebooks(codec, sampler, cfg, run.steps, crop)
                log.line(f"step {run.steps}: codebooks initialised by k-means on {latents} latents")
            if cfg.stage == 3 and run.steps == regression_steps(cfg) > 0:
                run.adopt_average()
                left = measure_residual(codec, sampler, cfg, crop)
                log.line(
                    f"step {run.steps}: the regression head leaves {left:.3f} of the target's variance to the flow"
                )
            report = run.step(next(batches))
            told = run.agree(report, stop.asked)
            progress.tell(run.steps, report, report.samples / config.sample_rate * accelerator.num_processes)
            last = run.steps == train.max_steps
            if run.steps % train.valid_every == 0 or last:
                if accelerator.is_main_process and valid_clips:
                    look(run, valid_clips, run_dir, log, tracker)
                    progress.since = time.monotonic()
                accelerator.wait_for_everyone()
            if run.steps % train.save_every == 0 or last or told:
                decide(lambda: save_checkpoint(run_dir, run.steps, run.save, train.keep))

    if told:
        log.line(f"{stop.name}: saved step {run.steps}; the same command continues.")
        stop.close()
        tracker.close()
        stop.leave()
    with run.exported():
        decide(lambda: save_folder(run_dir / "final", lambda folder: codec.save_pretrained(folder)))
    log.line(f"done: {run_dir / 'final'} (newest checkpoint {latest_checkpoint(run_dir)})")
    stop.close()  # not before: who asks while the final folder is written gets it
    tracker.close()


@hydra_entry("codec_train")
def main(cfg: DictConfig) -> None:
    try:
        with refusing(CorpusError, HelperEnded):
            train_codec(cfg)
    except NonFiniteLoss as error:
        if processes.place()[0]:  # all processes know of it, one says it
            raise SystemExit(2) from None
        raise ConfigError(str(error)) from None


if __name__ == "__main__":
    main()
