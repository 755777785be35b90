"""Contact sheets of spectrograms: the reference above its resynthesis, for all clips, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.audio import Wave

RANGE_DB = 70.0  # below the loudest bin of the pair
COLUMNS, BLOCKS = 4, 4  # clips per sheet


def decibels(wav: Wave, rate: int) -> NDArray[np.float32]:
    """``[bins, frames]`` power in dB; 32 ms Hann windows, hop 8 ms."""
    size = int(0.032 * rate)
    signal = torch.from_numpy(np.pad(wav, (0, max(0, size - len(wav)))))
    spectrum = torch.stft(signal, size, size // 4, window=torch.hann_window(size), return_complex=True)
    return (20.0 * torch.log10(spectrum.abs().clamp(min=1e-7))).numpy()


def write_sheets(pairs: Sequence[tuple[str, Wave, Wave]], rate: int, seconds: float, folder: Path) -> None:
    """Write ``sheet-01.png`` … into ``folder``.

    Args:
        pairs: title, reference and resynthesis ``[samples]`` of each clip.
        rate: samples per second of all of them.
        seconds: time axis of every picture; longer clips are cut there and say so.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    per_sheet = COLUMNS * BLOCKS
    for number, start in enumerate(range(0, len(pairs), per_sheet), 1):
        chosen = pairs[start : start + per_sheet]
        blocks = -(-len(chosen) // COLUMNS)
        figure, axes = pyplot.subplots(
            2 * blocks, COLUMNS, figsize=(5 * COLUMNS, 3.0 * blocks), squeeze=False, layout="constrained"
        )
        for axis in axes.flat:
            axis.axis("off")
        for index, (title, reference, degraded) in enumerate(chosen):
            pictures = [decibels(wav[: int(seconds * rate)], rate) for wav in (reference, degraded)]
            top = max(float(picture.max()) for picture in pictures)
            cut = f" (first {seconds:g} s)" if len(reference) > int(seconds * rate) + 1 else ""
            for half, picture in enumerate(pictures):
                axis = axes[2 * (index // COLUMNS) + half, index % COLUMNS]
                axis.axis("on")
                length = min(len(reference), int(seconds * rate)) / rate
                axis.imshow(
                    picture, origin="lower", aspect="auto", vmin=top - RANGE_DB, vmax=top, cmap="magma",
                    extent=(0, length, 0, rate / 2000),
                )  # fmt: skip
                axis.set_xlim(0, seconds)
                axis.tick_params(labelsize=6)
                axis.set_ylabel(("reference" if half == 0 else "resynthesis") + ", kHz", fontsize=6)
                if half == 0:
                    axis.set_title(title + cut, fontsize=8, parse_math=False)
        figure.savefig(folder / f"sheet-{number:02d}.png", dpi=70)
        pyplot.close(figure)
