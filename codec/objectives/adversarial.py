"""The adversarial part of the training: losses, feature matching, the balancer, and the discriminators' own steps.

Hinge and least squares, relative feature matching (EnCodec, Défossez et al., 2022, eq. 2), and either fixed weights or
EnCodec's balancer, which makes a weight mean a share of the gradient. Weights and discriminators of the paper are not
known; the defaults are those of the author's other codecs.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor

from codec.objectives.discriminator import Discriminators, Judgement


def generator_loss(fake: list[Judgement], kind: str) -> Tensor:
    """What the codec pays for being recognised, mean over discriminators; ``kind``: ``hinge`` or ``least_squares``."""
    if kind == "hinge":
        terms = [torch.relu(1 - j.score.float()).mean() for j in fake]
    elif kind == "least_squares":
        terms = [(1 - j.score.float()).square().mean() for j in fake]
    else:
        raise ValueError(f"gan.loss={kind} is neither hinge nor least_squares.")
    return torch.stack(terms).mean()


def discriminator_loss(real: list[Judgement], fake: list[Judgement], kind: str) -> Tensor:
    """What the discriminators pay for errors, mean over discriminators."""
    terms = []
    for r, f in zip(real, fake, strict=True):
        x, y = r.score.float(), f.score.float()
        if kind == "hinge":
            terms.append(torch.relu(1 - x).mean() + torch.relu(1 + y).mean())
        elif kind == "least_squares":
            terms.append((1 - x).square().mean() + y.square().mean())
        else:
            raise ValueError(f"gan.loss={kind} is neither hinge nor least_squares.")
    return torch.stack(terms).mean()


def feature_matching(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Mean over discriminators, layers and clips of mean|real − fake| / mean|real|; real features are detached.

    The ratio is taken per clip, so that it does not depend on which clips share a process.
    """
    terms = []
    for r, f in zip(real, fake, strict=True):
        for a, b in zip(r.features, f.features, strict=True):
            target = a.detach().float().flatten(1)
            distance = (target - b.float().flatten(1)).abs().mean(1)
            terms.append((distance / target.abs().mean(1).clamp(min=1e-5)).mean())
    return torch.stack(terms).mean()


class Balancer:
    """EnCodec's balancer: losses of one output, each with a fixed share of the gradient that reaches it.

    With g_i the gradient of loss i at the output and n_i the moving average of its norm (per item, averaged over items
    and processes), a batch of B clips receives ``Σ w_i / Σw · g_i / n_i / B``. EnCodec does not divide by B; here a
    clip's gradient must not depend on how many clips share its process. Losses that do not pass through the output
    (commitment, MAE, AR) keep plain weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def gradient(
        self, losses: dict[str, Tensor], weights: dict[str, float], output: Tensor, accelerator: Accelerator
    ) -> Tensor:
        """The balanced gradient, of the shape of ``output`` (a leaf that the losses were computed from)."""
        total = torch.zeros_like(output)
        share = sum(weights[name] for name in losses)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            norm = gradient.flatten(1).norm(dim=1).mean()
            size = float(accelerator.reduce(norm, reduction="mean"))
            self.sums[name] = self.sums.get(name, 0.0) * self.decay + size * (1 - self.decay)
            self.counts[name] = self.counts.get(name, 0.0) * self.decay + (1 - self.decay)
            average = self.sums[name] / self.counts[name]  # corrected for the start at zero
            total += gradient * (weights[name] / share / max(average, 1e-12) / len(output))
        return total

    def state_dict(self) -> dict[str, dict[str, float]]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


@dataclass
class AdversaryDraw:
    """What a step draws for the adversarial part: the sub-crop, and whether the discriminators learn."""

    start: int
    samples: int
    update: bool


class Adversary:
    """The discriminators, their optimiser, and when they take part. Nothing of this is exported.

    Args:
        cfg: the ``gan`` section of ``configs/codec_train.yaml``.
    """

    def __init__(self, cfg: DictConfig, sample_rate: int, accelerator: Accelerator, seed: int) -> None:
        self.cfg, self.sample_rate, self.accelerator, self.seed = cfg, sample_rate, accelerator, seed
        model = Discriminators(cfg.kind, list(cfg.sizes), list(cfg.channels), sample_rate, cfg.normalise)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=cfg.learning_rate, betas=tuple(cfg.betas), weight_decay=cfg.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.core: Discriminators = accelerator.unwrap_model(self.model)

    def draw(self, step: int, samples: int) -> AdversaryDraw | None:
        """From (seed, step) alone, the same on all processes; None before ``gan.start``."""
        if step < self.cfg.start:
            return None
        rng = np.random.default_rng([self.seed, step, 1 << 21])
        size = min(samples, int(self.cfg.crop_seconds * self.sample_rate)) if self.cfg.crop_seconds else samples
        start = int(rng.integers(samples - size + 1))
        return AdversaryDraw(start, size, bool(rng.random() < self.cfg.update_share))

    def losses(self, output: Tensor, wav: Tensor, draw: AdversaryDraw) -> dict[str, Tensor]:
        """The codec's losses; the discriminators' parameters receive no gradient."""
        part = slice(draw.start, draw.start + draw.samples)
        self.core.requires_grad_(False)  # the unwrapped module: a second reduction per step would confuse DDP
        with self.accelerator.autocast():
            fake = self.core(output[:, part])
            with torch.no_grad():
                real = self.core(wav[:, part])
        self.core.requires_grad_(True)
        return {"adversarial": generator_loss(fake, self.cfg.loss), "features": feature_matching(real, fake)}

    def train(self, heard: list[tuple[Tensor, Tensor]], draw: AdversaryDraw, rate_share: float) -> dict[str, float]:
        """One step of the discriminators on all batches of the codec's step.

        Args:
            heard: the codec's output and its source of each batch, ``[batch, samples]`` both.
            rate_share: the codec's learning rate over its peak.
        """
        part = slice(draw.start, draw.start + draw.samples)
        total = 0.0
        for number, (output, wav) in enumerate(heard, 1):
            with nullcontext() if number == len(heard) else self.accelerator.no_sync(self.model):
                both = self.model(torch.cat((wav[:, part], output.detach()[:, part].float())))  # one forward: DDP
                half = len(wav)
                real = [Judgement(j.score[:half], []) for j in both]
                fake = [Judgement(j.score[half:], []) for j in both]
                loss = discriminator_loss(real, fake, self.cfg.loss) / len(heard)
                self.accelerator.backward(loss)
            total += loss.item()
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg.learning_rate * rate_share
        self.accelerator.clip_grad_norm_(self.core.parameters(), self.cfg.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"discriminator": total}

    def state_dict(self) -> dict[str, object]:
        return {"model": self.core.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.core.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
