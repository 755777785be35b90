"""Options of the codec's training that cannot be carried out together, refused before any work."""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf

from codec.network.architecture import MAX_WINDOW
from training.config import ConfigError
from training.launch import pick_device
from training.schema import is_number


def check_options(cfg: DictConfig) -> None:
    """Refuse options of configs/codec_train.yaml that cannot work together.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if cfg.precision is None and launched not in ("no", "bf16"):
        raise ConfigError(
            f"precision=null leaves accelerate launch its {launched}: say precision=bf16 or precision=no."
        )
    pick_device(cfg.device)
    flowing = cfg.stage == 3
    weights = {name: cfg.loss[name] for name in cfg.loss if name not in ("resolutions", "draw", "pitch_scale")}
    weights = {name: value for name, value in weights.items() if (name in ("flow", "regression")) == flowing}
    if cfg.gan.start is None and not flowing:
        weights |= {"adversarial": 0, "features": 0}
    for key, values in (("loss", weights), ("trainer.domain_weights", dict(cfg.trainer.domain_weights))):
        if not any(values.values()):
            raise ConfigError(f"{key}: all weights that count are 0, so nothing would be learnt: raise one of them.")
    resolutions = cfg.loss.resolutions
    pairs = [list(pair) if OmegaConf.is_list(pair) else [] for pair in resolutions]
    if not pairs or any(len(pair) != 2 or not all(is_number(n, whole=True) and n >= 1 for n in pair) for pair in pairs):
        raise ConfigError(f"loss.resolutions={resolutions} must be pairs [window samples, mel bands].")
    if cfg.loss.draw > len(resolutions):
        raise ConfigError(f"loss.draw={cfg.loss.draw} is more than the {len(resolutions)} of loss.resolutions.")
    if len(cfg.gan.sizes) != len(cfg.gan.channels):
        raise ConfigError(
            f"gan.sizes has {len(cfg.gan.sizes)} entries, gan.channels {len(cfg.gan.channels)}: give one per size."
        )
    if cfg.loss.hearing and cfg.hearing.encoder is None:
        raise ConfigError("loss.hearing needs a listener: hearing.encoder=FOLDER or a hub id.")
    if cfg.hearing.encoder is not None and not cfg.loss.hearing:
        raise ConfigError("hearing.encoder is not used: give loss.hearing a weight.")
    if cfg.hearing.encoder is not None and cfg.trainer.crop_seconds > 30:
        raise ConfigError(f"trainer.crop_seconds={cfg.trainer.crop_seconds}: a listener hears at most 30 s.")
    if flowing:
        check_flow(cfg)
    if cfg.stage == 2 and cfg.init is None:
        raise ConfigError("stage=2 needs init=FOLDER, the final/ of a stage-1 run.")
    if cfg.reopen is not None and (cfg.init is None or cfg.stage is not None):
        raise ConfigError("reopen needs init=FOLDER of a trained codec, and no stage.")
    if cfg.reopen is not None and (cfg.codec.whiten or cfg.codec.semantic_dim):
        raise ConfigError("reopen: with codec.whiten or codec.semantic_dim the code space has a form of its own.")
    if cfg.reopen is not None and not bool(cfg.loss.pitch_axis) < cfg.codec.code_dim <= cfg.codec.encoder_dim:
        raise ConfigError(
            f"reopen takes the axes of the code space from the queries: codec.code_dim={cfg.codec.code_dim} must be at "
            f"most codec.encoder_dim={cfg.codec.encoder_dim}, and above the axis of loss.pitch_axis."
        )
    if cfg.reopen is not None and cfg.trainer.quantize_from >= cfg.trainer.max_steps:
        raise ConfigError(
            f"reopen begins the codebooks anew at step trainer.quantize_from={cfg.trainer.quantize_from}: "
            f"trainer.max_steps={cfg.trainer.max_steps} must be above it."
        )


def check_flow(cfg: DictConfig) -> None:
    """Refuse options of stage 3 that cannot work together.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    flow = cfg.flow
    if cfg.init is None:
        raise ConfigError("stage=3 needs init=FOLDER of a trained codec, whose codes it decodes.")
    if cfg.gan.start is not None or cfg.gan.balancer or cfg.hearing.encoder is not None:
        raise ConfigError(
            "stage=3 makes no waveform while it learns: give gan.start=null gan.balancer=false hearing.encoder=null."
        )
    if cfg.semantic_centres is not None:
        raise ConfigError("semantic_centres: stage=3 changes no code; leave them out.")
    if (flow.target == "latent") != (flow.autoencoder is not None):
        raise ConfigError(
            "flow.target=latent needs flow.autoencoder=FOLDER, the final/ of a stage-1 run; other targets have none."
        )
    if flow.prior == "regression" and not 0 < flow.regression_steps < cfg.trainer.max_steps:
        raise ConfigError(
            f"flow.prior=regression needs its head: flow.regression_steps={flow.regression_steps} must be above 0 and "
            f"below trainer.max_steps={cfg.trainer.max_steps}, or give flow.prior=zero."
        )


def check_crop(cfg: DictConfig, sample_rate: int, hop: int) -> None:
    """Refuse a crop that does not hold the longest window of queries, or the longest of the losses twice.

    Raises:
        ConfigError: with the least that does.
    """
    least = max(MAX_WINDOW * hop, 2 * max(window for window, _ in cfg.loss.resolutions)) / sample_rate
    if cfg.trainer.crop_seconds < least:
        raise ConfigError(f"trainer.crop_seconds={cfg.trainer.crop_seconds} must be at least {least:g}.")
