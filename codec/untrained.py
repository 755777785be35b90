"""Writes a codec with random weights: the control that every trained tokenizer must beat.

    python codec/untrained.py codec=mini out=runs/untrained

A score by which it does not lose says nothing about tokenizers. Codebooks of plain random numbers would give one code
for everything, as the latents of a random network lie close together; so the codes are the network's latents of
coloured noise, drawn at random. No audio is read.
"""

from __future__ import annotations

import training.help  # noqa: F401

from pathlib import Path

import torch
from omegaconf import DictConfig

from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig, architecture_of
from codec.network.quantizer import Codebook
from training.checkpoint import save_folder
from training.config import hydra_entry, refusing
from training.lock import hold

SECONDS, ROWS = 10, 16  # of noise
POINTS = 12  # of a random spectrum


def coloured_noise(rows: int, windows: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """``[rows, windows * size]``: every window has a spectrum and a level of its own, as sounds of the world have."""
    curves = 2.0 * torch.randn(rows * windows, 1, POINTS, generator=generator)  # log-magnitude, nats
    curves = torch.nn.functional.interpolate(curves, size // 2 + 1, mode="linear", align_corners=True)[:, 0]
    phases = 2 * torch.pi * torch.rand(curves.shape, generator=generator)
    wav = torch.fft.irfft(torch.polar(curves.exp(), phases), n=size)
    level = 10 ** (-0.5 - 2.5 * torch.rand(rows * windows, 1, generator=generator))  # peak, -10 to -60 dB
    return (wav / wav.abs().amax(1, keepdim=True) * level).view(rows, windows * size)


@torch.no_grad()
def untrained_codec(config: ALMTokenizerConfig, seed: int) -> ALMTokenizer:
    """A codec of random weights with codes where its latents are: a function of configuration and seed."""
    torch.manual_seed(seed)
    codec = ALMTokenizer(config).eval()
    generator = torch.Generator().manual_seed(seed)
    windows = SECONDS * config.sample_rate // codec.samples_per_frame
    wav = coloured_noise(ROWS, windows, codec.samples_per_frame, generator)
    parts = [codec.quantizer(codec.encode_latents(row[None], codec.window), bypass=True).inputs[0] for row in wav]
    residual = torch.cat(parts)  # [n, code_dim]
    for book in codec.quantizer.books:
        if isinstance(book, Codebook):
            drawn = torch.randint(len(residual), (book.size,), generator=generator)
            book.set_codes(residual[drawn], 2.0)  # with 1 they would look as if they had never been set
        residual = residual - book.embed[book.assign(residual)]  # type: ignore[index, operator]
    return codec


@hydra_entry("codec_untrained")
def main(cfg: DictConfig) -> None:
    out = Path(cfg.out) if cfg.out else Path("runs") / f"codec-{cfg.preset}-untrained"
    hold(out, "out", replaced=True)
    with refusing(ValueError):
        codec = untrained_codec(architecture_of(cfg.codec), cfg.seed)
    save_folder(out, lambda folder: codec.save_pretrained(folder))
    print(f"{out}: {sum(p.numel() for p in codec.parameters()) / 1e6:.2f} M random weights, {codec.bitrate:.1f} bit/s")


if __name__ == "__main__":
    main()
