"""Model FLOPs utilisation: how much of a GPU's peak the useful work of a training step takes."""

from __future__ import annotations

import torch
from torch import nn

from lm.model import embeddings_of
from lm.sequences.vocabulary import AudioVocabulary

# Dense bf16 TFLOP/s as the makers state them, without sparsity; the first name found in the device's name counts.
PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "H20": 148.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A10G": 70.0,
    "A40": 149.7,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "RTX A6000": 154.8,
}


def peak_flops(device: torch.device, given: float | None) -> float | None:
    """Peak FLOP/s of ``device`` in bf16: ``given`` TFLOP/s, else by its name; None on CPUs and unknown devices."""
    if given:
        return given * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for known, peak in PEAK_TFLOPS.items() if known in name), None)


def training_flops(
    model: nn.Module, vocabulary: AudioVocabulary, legal_only: bool, positions: float, targets: float
) -> float:
    """FLOPs that ``positions`` (without padding) and ``targets`` of training need, forward and backward.

    6 per weight of a matrix that a position goes through (Kaplan et al. 2020): the backbone's matrices for every
    position, the head's rows for every target, with ``trainer.loss_over=legal`` those of one level. Attention's
    products, lookups, recomputation and the optimiser are not counted, so that the utilisation is a lower bound.
    """
    embeddings, parts = embeddings_of(model), {"backbone": 0, "depth": 0}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and id(parameter) not in embeddings:
            parts["depth" if name.startswith("depth.") else "backbone"] += parameter.numel()
    width = model.get_output_embeddings().weight.shape[1]  # type: ignore[operator,union-attr]
    rows = sum(vocabulary.codebook_sizes) / vocabulary.levels if legal_only else vocabulary.size
    return 6 * (parts["backbone"] * positions + (width * rows + parts["depth"]) * targets)
