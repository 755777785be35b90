"""Validation during codec training: a few whole clips, scored, with audio and spectrograms to look at.

The full evaluation is ``python eval/reconstruction.py``; this is the quick look that tells whether a run goes well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pystoi import stoi

from codec.audio.files import write_audio
from codec.corpus import AudioError, Clip, read_audio
from codec.interface import Codes
from codec.model import ALMTokenizer
from codec.network.code_space import axes_in_use
from codec.network.pitch import pitch
from codec.network.quantizer import usage
from codec.objectives.losses import Resolution, spectral_losses
from codec.recipe.perceptual import pesq_scores
from training.identity import file_names, path_inside


@torch.no_grad()
def validate(
    model: ALMTokenizer,
    clips: list[Clip],
    folder: Path,
    heard: Callable[[str, np.ndarray, np.ndarray], None] = lambda name, wav, output: None,
    pictures: int = 3,
    reconstruct: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, float]:
    """Encode and decode ``clips`` whole, at the default window.

    Args:
        folder: receives wav files and a spectrogram sheet of the first ``pictures`` clips.
        heard: is told of each of these: the name of its file, the original and the reconstruction ``[samples]``.
        reconstruct: another way from ``wav [1, samples]`` to its reconstruction, without codes (stage 1).

    Returns:
        ``stoi``, ``pesq_wb``, ``pesq_nb`` (speech clips; PESQ where it is installed), ``pitch`` (:func:`pitch_kept`),
        ``mel`` (log-mel distance at 1024 samples), ``stft`` (spectral convergence there); of codes ``axes`` (of the
        code space that are in use) and, per level, ``usage_l`` (share of the codes that occur) and ``perplexity_l``.
    """
    model.eval()
    scores: dict[str, list[float]] = {"stoi": [], "mel": [], "stft": []}
    speech: list[tuple[np.ndarray, np.ndarray]] = []
    codes: list[torch.Tensor] = []
    space: list[tuple[torch.Tensor, torch.Tensor]] = []  # latents and their code vectors, [windows, code_dim]
    pairs: list[tuple[str, np.ndarray, np.ndarray]] = []
    for clip in clips:
        try:
            wav = read_audio(clip.path, model.sample_rate)
        except AudioError as error:
            print(f"left out of the validation: {error}", flush=True)
            continue
        if reconstruct is None:
            z = model.to_latents(torch.from_numpy(wav)[None])
            own = model.quantise(z).cpu()
            tokens = Codes(own.T[None], torch.tensor([len(own)]), torch.tensor([len(wav)]))
            output = model.decode(tokens)[0].cpu().numpy()
            codes.append(own.T)
            space.append((z, model.vectors(own)))
        else:
            output = reconstruct(torch.from_numpy(wav)[None])[0].cpu().numpy()
        if clip.domain == "speech":
            scores["stoi"].append(float(stoi(wav, output, model.sample_rate)))
            speech.append((wav, output))
        distance = spectral_losses(
            torch.from_numpy(output)[None], torch.from_numpy(wav)[None], model.sample_rate, Resolution(1024, 80)
        )
        scores["mel"].append(float(distance["mel"]))
        scores["stft"].append(float(distance["convergence"]))
        if len(pairs) < pictures:
            pairs.append((clip.id, wav, output))
    result = {name: float(np.mean(values)) for name, values in scores.items() if values}
    result |= pesq_scores(speech, model.sample_rate)
    if speech:
        result["pitch"] = pitch_kept(speech, model.sample_rate, model.config.hop)
    if space:
        result["axes"] = axes_in_use(*(torch.cat(parts) for parts in zip(*space, strict=True)))
    for level, size in enumerate(model.codebook_sizes if codes else ()):
        share, perplexity = usage(torch.cat([c[level] for c in codes]), size)
        result[f"usage_{level + 1}"], result[f"perplexity_{level + 1}"] = share, perplexity
    folder.mkdir(parents=True, exist_ok=True)
    if not pairs:
        return result
    names = file_names([name for name, *_ in pairs], ".wav")
    for name, wav, output in pairs:
        write_audio(path_inside(folder, names[name]), output, model.sample_rate)
        heard(names[name].removesuffix(".wav"), wav, output)
    draw_pairs(pairs, model.sample_rate, folder / "spectrograms.png")
    return result


def pitch_kept(pairs: list[tuple[np.ndarray, np.ndarray]], sample_rate: int, hop: int) -> float:
    """Share of frames with a clear pitch (periodicity above .8) whose pitch in the output lies within 5 %; 0 of none.

    Args:
        pairs: source and output ``[samples]`` of each clip.
    """
    kept = []
    for pair in pairs:
        usable = min(map(len, pair)) // hop * hop
        source, output = (pitch(torch.from_numpy(wav[:usable])[None], sample_rate, hop) for wav in pair)
        near = (torch.log2(output[0]) - torch.log2(source[0])).abs() < math.log2(1.05)
        kept.append(near[source[1] > 0.8].float())
    found = torch.cat(kept)
    return float(found.mean()) if len(found) else 0.0


def draw_pairs(pairs: list[tuple[str, np.ndarray, np.ndarray]], sample_rate: int, path: Path) -> None:
    """One column per clip: the source's spectrogram above the output's, on one scale (−90…0 dB, 0…12 kHz)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(pairs), figsize=(5 * len(pairs), 6), squeeze=False)
    for column, (name, source, output) in enumerate(pairs):
        for row, (wav, label) in enumerate(((source, "source"), (output, "codec"))):
            axes[row][column].specgram(
                wav + 1e-9, NFFT=1024, Fs=sample_rate, noverlap=768, vmin=-130, vmax=-30, cmap="magma"
            )
            axes[row][column].set_title(f"{name}: {label}", fontsize=9, parse_math=False)
            axes[row][column].set_ylim(0, sample_rate / 2)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
