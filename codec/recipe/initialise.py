"""What a codec's training begins with: normalisation of its ends, weights of another codec, codebooks by k-means.

The first and the last look at a sample of the training crops that is the same however many processes share the work,
and of bounded size: a global batch grows with the number of processes, the memory of each process must not.
"""

from __future__ import annotations

import math

import torch
from omegaconf import DictConfig

from codec.interface import TokenizerError
from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig
from codec.pretrained import FILES, find_folder, holds_weights, load_whole
from codec.recipe.crops import CropSampler
from training import processes
from training.config import ConfigError, refusing

CALIBRATION_STEPS, CALIBRATION_CROPS = 16, 32  # so many steps' crops, of each step at most so many
LATENTS = 1 << 18  # k-means looks at no more: 128 for each of 2048 codes
BOOKS = "quantizer.books."
# crops that no step of the training draws
CALIBRATION, CODEBOOKS = 1 << 29, 1 << 30


def global_batch(cfg: DictConfig) -> int:
    """Crops per optimiser step, of all processes."""
    return cfg.trainer.batch_size * cfg.trainer.accumulate * processes.place()[1]


def calibrate(core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int) -> None:
    """Set the normalisation of the ends, the same in all processes; ``crop`` samples are cut to whole windows."""
    unit = core.config.hop * core.config.window
    count, samples = min(global_batch(cfg), CALIBRATION_CROPS), crop // unit * unit
    batches = (sampler.batch(CALIBRATION + i, 0, count, samples)[0] for i in range(CALIBRATION_STEPS))
    core.calibrate([wav.to(core.device) for wav in batches])


def read_init(path: str) -> ALMTokenizer:
    """The codec that a training begins with: a final/ folder or a checkpoint of this program, or a hub id."""
    folder = find_folder(path, FILES)
    if folder is None or not holds_weights(folder):
        raise ConfigError(f"init={path}: there is no model.safetensors; name a final/ folder of codec/train.py.")
    with refusing(TokenizerError):
        return load_whole(ALMTokenizer, folder)


def take_over(core: ALMTokenizer, init: ALMTokenizer, cfg: DictConfig) -> list[str]:
    """Give ``core`` the weights of ``init``; returns the names of those that it lacks, which keep what they have.

    Raises:
        ConfigError: it is another architecture.
    """
    weights = init.state_dict()
    if cfg.stage is not None:  # stage 1 has no codebooks, stage 2 begins with new ones
        weights = {key: value for key, value in weights.items() if not key.startswith(BOOKS)}
        weights |= {key: value for key, value in core.state_dict().items() if key.startswith(BOOKS)}
    try:
        found = core.load_state_dict(weights, strict=False)
        if found.unexpected_keys:
            raise RuntimeError(f"unknown keys {', '.join(found.unexpected_keys)}")
    except RuntimeError as error:
        differing = different_keys(init.config, core.config) or "unknown difference"
        raise ConfigError(
            f"init={cfg.init} is another architecture ({differing}): give its codec=… preset or keys."
        ) from error
    return found.missing_keys


def different_keys(theirs: ALMTokenizerConfig, ours: ALMTokenizerConfig) -> str:
    """Where the configurations differ: ``key=ours, there theirs``."""
    there, here = theirs.to_dict(), ours.to_dict()
    skip = ("transformers_version", "architectures", "dtype", "auto_map")
    keys = [key for key in here if key not in skip and here[key] != there.get(key)]
    return ", ".join(f"codec.{key}={here[key]}, there {there.get(key)}" for key in keys)


def of_kmeans(cfg: DictConfig, config: ALMTokenizerConfig, crop: int) -> tuple[int, int, int]:
    """What k-means looks at: batches, crops of each, windows of a crop of ``crop`` samples."""
    windows = crop // (config.hop * config.window)
    batches = min(cfg.trainer.init_batches, max(1, LATENTS // windows))
    return batches, min(global_batch(cfg), max(1, LATENTS // (batches * windows))), windows


def check_kmeans(cfg: DictConfig, config: ALMTokenizerConfig, crop: int) -> None:
    """Refuse a start with fewer latents than a codebook has codes; its training would end at that step.

    Raises:
        ConfigError: with the least ``trainer.init_batches``.
    """
    batches, crops, windows = of_kmeans(cfg, config, crop)
    largest = max(config.codebook_sizes[1 if config.semantic_dim else 0 :], default=0)
    if batches * crops * windows < largest:
        least = math.ceil(largest / (global_batch(cfg) * windows))
        raise ConfigError(
            f"trainer.init_batches={cfg.trainer.init_batches} gives k-means {batches * crops * windows:,} latents for "
            f"a codebook of {largest:,} codes: trainer.init_batches must be at least {least}."
        )


def initialise_codebooks(model: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, step: int, crop: int) -> int:
    """k-means of the codebooks on latents of ``init_batches`` global batches, or of a part of each; returns how many.

    The processes take turns in encoding, batch after batch, and all of them cluster all latents.
    """
    batches, of_step, windows = of_kmeans(cfg, model.config, crop)
    samples = windows * model.config.hop * model.window
    size, (rank, world) = cfg.trainer.batch_size, processes.place()
    latents = [torch.zeros(0, model.config.code_dim, device=model.device)]
    with torch.no_grad():
        for i in range(rank * batches // world, (rank + 1) * batches // world):
            for first in range(0, of_step, size):
                wav, _ = sampler.batch(CODEBOOKS + i, first, min(size, of_step - first), samples)
                frames = model.encode_latents(wav.to(model.device), model.window)
                latents.append(model.quantizer(frames, bypass=True).inputs.flatten(0, 1))
    collected = processes.rows(torch.cat(latents))
    generator = torch.Generator().manual_seed(cfg.seed + step)
    model.quantizer.initialise(collected, global_batch(cfg) * windows, 15, generator)
    return len(collected)
