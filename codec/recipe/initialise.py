"""What a codec's training begins with: normalisation of its ends, weights of another codec, codebooks by k-means.

The first and the last look at a sample of the training crops that is the same however many processes share the work,
and of bounded size: a global batch grows with the number of processes, the memory of each process must not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from codec.interface import TokenizerError
from codec.load import load_codec
from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig
from codec.network.experts import Expert
from codec.network.patchify import mean_and_deviation
from codec.objectives.flow import condition_of
from codec.recipe.crops import CropSampler
from training import processes
from training.config import ConfigError, refusing

CALIBRATION_STEPS, CALIBRATION_CROPS = 16, 32  # so many steps' crops, of each step at most so many
REOPENING_STEPS = 200  # the same, of which a code space is made anew
LATENTS = 1 << 18  # k-means looks at no more: 128 for each of 2048 codes
BOOKS = "quantizer.books."
LEAST_DEVIATION = 0.05  # of a number of a flow's target: what hardly varies is not blown up
ENDS = (
    "sample_rate hop analysis_ffts synthesis_fft stft_causal excitation pitch_low pitch_high tonal "
    "patchify conv_filters conv_ratios conv_causal pitch_input"
).split()
# crops that no step of the training draws
CALIBRATION, CODEBOOKS = 1 << 29, 1 << 30


def global_batch(cfg: DictConfig) -> int:
    """Crops per optimiser step, of all processes."""
    return cfg.trainer.batch_size * cfg.trainer.accumulate * processes.place()[1]


def calibrate(core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int) -> None:
    """Set the normalisation of the ends, the same in all processes; ``crop`` samples are cut to whole windows."""
    core.calibrate(list(calibration_crops(core, sampler, cfg, crop)))


def calibration_crops(
    core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int, steps: int = CALIBRATION_STEPS
) -> Iterator[Tensor]:
    """Batches of ``crop`` samples or a little less, cut to whole windows, the same in all processes."""
    unit = core.config.hop * core.config.window
    count, samples = min(global_batch(cfg), CALIBRATION_CROPS), crop // unit * unit
    for step in range(steps):
        yield sampler.batch(CALIBRATION + step, 0, count, samples)[0].to(core.device)


@torch.no_grad()
def calibrate_flow(core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int) -> None:
    """Set mean and deviation of each number of a flow's target."""
    flow = core.flow
    assert flow is not None
    batches = calibration_crops(core, sampler, cfg, crop)
    mean, deviation = mean_and_deviation(flow.target.measure(wav).flatten(0, 1).cpu() for wav in batches)
    flow.mean.copy_(mean)
    flow.deviation.copy_(deviation.clamp(min=LEAST_DEVIATION))


@torch.no_grad()
def measure_residual(core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int) -> float:
    """Set the scale of what a flow's regression head leaves of each number; returns their mean square."""
    flow = core.flow
    assert flow is not None
    squares = weights = torch.zeros(flow.target.dim, dtype=torch.float64)
    for wav in calibration_crops(core, sampler, cfg, crop):
        codes = core.quantizer(core.encode_latents(wav, core.window)).codes
        expected = flow.expected(condition_of(core, codes, core.window))
        weight = flow.weight(expected).double()
        left = (flow.normalised(flow.target.measure(wav)) - expected).square() * weight
        squares, weights = squares + left.sum((0, 1)).cpu(), weights + weight.sum((0, 1)).cpu()
    residual = (squares / weights).sqrt()
    flow.residual.copy_(residual.clamp(min=LEAST_DEVIATION))
    return float(residual.square().mean())


def flow_of(cfg: DictConfig, config: ALMTokenizerConfig, autoencoder: ALMTokenizer | None) -> dict[str, Any]:
    """The architecture of stage 3's decoder, as a codec's configuration holds it.

    Raises:
        ConfigError: the auto-encoder of a latent target has other ends, or its frames are not what it makes sound of.
    """
    made = {key: cfg.flow[key] for key in ("target", "prior", "dim", "layers", "span")}
    if autoencoder is None:
        return made
    theirs = autoencoder.config
    of_experts = ("patchify", "conv_filters", "conv_ratios", "conv_causal") if config.patchify == "experts" else ()
    ends = [key for key in ENDS if key not in of_experts and getattr(theirs, key) != getattr(config, key)]
    if theirs.patchify != "stft" and config.patchify == "experts":
        ends.append("patchify")
    if ends:
        raise ConfigError(f"flow.autoencoder={cfg.flow.autoencoder} has other ends ({', '.join(ends)}) than the codec.")
    if theirs.encoder_dim != theirs.decoder_dim:
        raise ConfigError(
            f"flow.autoencoder={cfg.flow.autoencoder} has widths {theirs.encoder_dim} and {theirs.decoder_dim}: the "
            "bridge between them is not exported; train stage 1 with codec.decoder_dim as codec.encoder_dim."
        )
    return made | {"latent": theirs.encoder_dim}


def know_experts(config: ALMTokenizerConfig) -> None:
    """Look up width and SHA-256 of a codec's experts, as its configuration holds them.

    Raises:
        ConfigError: one is not there, or cannot be taken.
    """
    if config.patchify == "experts":
        with refusing(ValueError, TokenizerError):
            config.experts = [asdict(expert.known()) for expert in Expert.all(config.experts)]


def take_ends(core: ALMTokenizer, autoencoder: ALMTokenizer) -> None:
    """Give a flow's latent target the ends of the auto-encoder whose frames it samples."""
    assert core.flow is not None
    for name in ("patchify", "unpatchify"):
        getattr(core.flow.target, name).load_state_dict(getattr(autoencoder, name).state_dict())


@torch.no_grad()
def reopen_space(core: ALMTokenizer, sampler: CropSampler, cfg: DictConfig, crop: int) -> float:
    """Give a trained codec a code space of the widest axes of its queries; returns what the decoder loses by it.

    Few axes of a code space stay above the quantiser's error, though the queries before it hold more: the projection
    keeps the others small. Its rows become the principal axes of the queries (ours), the variance λ of each scaled to λ
    to the power of ``cfg.reopen``, the largest to 1; an axis that says the pitch (``loss.pitch_axis``) stays as it is.
    The projection behind the quantiser is fitted by least squares to give the decoder what it was given before. The
    codebooks begin anew.

    Returns:
        Share of the variance of the decoder's latents that the new space does not give, before quantising.

    Raises:
        ConfigError: queries that are not finite.
    """
    quantizer, fixed = core.quantizer, 1 if cfg.loss.pitch_axis else 0
    batches = calibration_crops(core, sampler, cfg, crop, REOPENING_STEPS)
    x = torch.cat([core.encode_latents(wav, core.window).flatten(0, 1).cpu() for wav in batches]).double()
    into, out = (
        (layer.weight.cpu().double(), layer.bias.cpu().double())
        for layer in (quantizer.project_in, quantizer.project_out)
    )
    wanted = (x @ into[0].T + into[1]) @ out[0].T + out[1]
    if not bool(torch.isfinite(wanted).all()):
        raise ConfigError(f"init={cfg.init}: what its queries hold is NaN or infinite: its weights are damaged.")
    mean, covariance = x.mean(0), torch.cov(x.T)
    rest = torch.eye(len(covariance)).double()
    for row in into[0][len(into[0]) - fixed :]:  # what the pitch says of the queries is not said twice
        rest -= torch.outer(covariance @ row / (row @ covariance @ row).clamp(min=1e-12), row)
    variance, axes = torch.linalg.eigh(rest @ covariance @ rest.T)
    count = len(into[0]) - fixed
    variance, axes = variance.flip(0)[:count].clamp(min=1e-6), axes.flip(1)[:, :count]
    scale = (variance ** (cfg.reopen - 1) / variance[0] ** cfg.reopen).sqrt()
    weight = torch.cat([(axes * scale).T @ rest, into[0][count:]])
    bias = torch.cat([-weight[:count] @ mean, into[1][count:]])
    said = torch.cat([x @ weight.T + bias, torch.ones(len(x), 1).double()], 1)
    back = torch.linalg.lstsq(said, wanted, driver="gelsd").solution
    quantizer.project_in.weight.copy_(weight)
    quantizer.project_in.bias.copy_(bias)
    quantizer.project_out.weight.copy_(back[:-1].T)
    quantizer.project_out.bias.copy_(back[-1])
    for book in quantizer.books:
        book.forget()
    return float((said @ back - wanted).var(0).sum() / wanted.var(0).sum())


def read_init(path: str, key: str = "init") -> ALMTokenizer:
    """The codec that ``key`` names: a final/ folder or a checkpoint of this program, or a hub id."""
    with refusing(TokenizerError, key=f"{key}={path}"):
        return load_codec(path)


def take_over(core: ALMTokenizer, init: ALMTokenizer, cfg: DictConfig) -> list[str]:
    """Give ``core`` the weights of ``init``; returns the names of those that it lacks, which keep what they have.

    Raises:
        ConfigError: it is another architecture.
    """
    weights = init.state_dict()
    if cfg.stage in (1, 2):  # stage 1 has no codebooks, stage 2 begins with new ones
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
