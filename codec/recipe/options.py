"""Options of the codec's training that cannot be carried out, refused before any work."""

from __future__ import annotations

import os
from math import inf

from omegaconf import DictConfig, OmegaConf

from training.config import ABOVE_ZERO, BELOW_ONE, SEED, ConfigError, check_ranges
from training.launch import pick_device

SHARE = (0.0, 1.0)
RANGES = {
    "seed": SEED,
    "threads": (1, inf),
    "trainer.max_steps": (1, inf),
    "trainer.batch_size": (1, inf),
    "trainer.accumulate": (1, inf),
    "trainer.ema": (0, BELOW_ONE),
    "trainer.learning_rate": (ABOVE_ZERO, inf),
    "trainer.warmup_steps": (0, inf),
    "trainer.final_lr_share": SHARE,
    "trainer.betas": (0, BELOW_ONE),
    "trainer.weight_decay": (0, inf),
    "trainer.clip_norm": (ABOVE_ZERO, inf),
    "trainer.quantize_from": (0, inf),
    "trainer.init_batches": (1, inf),
    "trainer.default_window_share": SHARE,
    "trainer.level_dropout": SHARE,
    "trainer.unquantised_share": SHARE,
    "trainer.gain_db": (-inf, inf),
    "trainer.valid_every": (1, inf),
    "trainer.valid_clips": (0, inf),
    "trainer.save_every": (1, inf),
    "trainer.keep": (1, inf),
    "trainer.log_every": (1, inf),
    "loss.draw": (1, inf),
    "mae.share": SHARE,
    "mae.mask_run": (1, inf),
    "mae.encoder_layers": (1, inf),
    "mae.decoder_layers": (1, inf),
    "ar.width": (1, inf),
    "ar.layers": (1, inf),
    "ar.span": (1, inf),
    "hearing.layers": (1, inf),
    "gan.start": (0, inf),
    "gan.sizes": (1, inf),
    "gan.channels": (1, inf),
    "gan.crop_seconds": (0, inf),
    "gan.update_share": (ABOVE_ZERO, 1),
    "gan.learning_rate": (ABOVE_ZERO, inf),
    "gan.betas": (0, BELOW_ONE),
    "gan.weight_decay": (0, inf),
    "gan.clip_norm": (ABOVE_ZERO, inf),
    "gan.balancer_decay": (0, BELOW_ONE),
}
CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": (None, "no", "bf16"),
    "stage": (None, 1, 2),
    "gan.kind": ("mel", "stft"),
    "gan.loss": ("hinge", "least_squares"),
}
PAIRS = ("trainer.betas", "trainer.gain_db", "mae.share", "gan.betas")


def check_options(cfg: DictConfig) -> None:
    """Refuse options of configs/codec_train.yaml that cannot work, by themselves or together.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    for key, choices in CHOICES.items():
        if (chosen := OmegaConf.select(cfg, key)) not in choices:
            named = ", ".join("null" if choice is None else str(choice) for choice in choices)
            raise ConfigError(f"{key}={chosen} is unknown; choose one of {named}.")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if cfg.precision is None and launched not in CHOICES["precision"]:
        raise ConfigError(
            f"precision=null leaves accelerate launch its {launched}: say precision=bf16 or precision=no."
        )
    pick_device(cfg.device)
    check_ranges(cfg, RANGES, optional=("threads", "gan.start"))
    check_ranges(cfg, {f"trainer.domain_weights.{name}": 0 for name in cfg.trainer.domain_weights})
    check_ranges(cfg, {f"loss.{name}": 0 for name in cfg.loss if name not in ("resolutions", "draw")})
    weights = {name: cfg.loss[name] for name in cfg.loss if name not in ("resolutions", "draw")}
    if cfg.gan.start is None:
        weights |= {"adversarial": 0, "features": 0}
    for key, values in (("loss", weights), ("trainer.domain_weights", dict(cfg.trainer.domain_weights))):
        if not any(values.values()):
            raise ConfigError(f"{key}: all weights that count are 0, so nothing would be learnt: raise one of them.")
    for key in PAIRS:
        group, name = key.split(".")
        pair = list(cfg[group][name])
        if len(pair) != 2 or (name != "betas" and pair[0] > pair[1]):
            order = "" if name == "betas" else ", the smaller first"
            raise ConfigError(f"{key}={pair} must be two numbers{order}.")
    resolutions = cfg.loss.resolutions
    if not resolutions or any(len(pair) != 2 or min(pair) < 1 for pair in resolutions):
        raise ConfigError(f"loss.resolutions={resolutions} must be pairs [window samples, mel bands].")
    if cfg.loss.draw > len(resolutions):
        raise ConfigError(f"loss.draw={cfg.loss.draw} is more than the {len(resolutions)} of loss.resolutions.")
    listens = [f"loss.{name}" for name in ("hearing", "words") if cfg.loss[name]]
    if listens and cfg.hearing.encoder is None:
        raise ConfigError(f"{' and '.join(listens)} need a listener: hearing.encoder=FOLDER or a hub id.")
    if cfg.hearing.encoder is not None and not listens:
        raise ConfigError("hearing.encoder is not used: give loss.hearing or loss.words a weight.")
    if cfg.hearing.encoder is not None and cfg.trainer.crop_seconds > 30:
        raise ConfigError(f"trainer.crop_seconds={cfg.trainer.crop_seconds}: a listener hears at most 30 s.")
    if cfg.stage == 2 and cfg.init is None:
        raise ConfigError("stage=2 needs init=FOLDER, the final/ of a stage-1 run.")


def check_crop(cfg: DictConfig, sample_rate: int, hop: int) -> None:
    """Refuse a crop that does not hold the longest window of queries, or the longest of the losses twice.

    Raises:
        ConfigError: with the least that does.
    """
    least = max(10 * hop, 2 * max(window for window, _ in cfg.loss.resolutions)) / sample_rate
    check_ranges(cfg, {"trainer.crop_seconds": least})
