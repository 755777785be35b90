"""The adversarial part of the training: discriminators, their losses, the balancer, and the discriminators' own steps.

The discriminators have the form of the author's other codecs: each looks at mel and log-mel magnitudes at one hop, six
hops from 32 to 1024 samples, windows four times as long, seven convolutions each. Hinge losses, relative feature
matching (EnCodec, Défossez et al., 2022, eq. 2), and either fixed weights or EnCodec's balancer, which makes a weight
mean a share of the gradient. The paper states "multi-scale discriminators", and neither weights nor sizes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.network.patchify import spectrum
from codec.objectives.losses import loss_filters


@dataclass
class Judgement:
    """One discriminator's view of a batch: ``score [batch, 1, time, bands]`` and its layers' features."""

    score: Tensor
    features: list[Tensor]


def normalise(wav: Tensor) -> Tensor:
    """Remove the mean and scale the peak of ``[batch, samples]`` to 0.8, as DAC does before its discriminators."""
    wav = wav - wav.mean(1, keepdim=True)
    return 0.8 * wav / wav.abs().amax(1, keepdim=True).clamp(min=1e-4)


class ConvStack(nn.Module):
    """Weight-normed 2-D convolutions with leaky ReLU between them, the last one to a single score channel."""

    def __init__(self, convs: list[nn.Conv2d]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)

    def forward(self, picture: Tensor) -> Judgement:
        """``picture [batch, channels, time, bands]`` → scores and features."""
        features = []
        for conv in self.convs[:-1]:
            picture = F.leaky_relu(conv(picture), 0.2)
            features.append(picture)
        return Judgement(self.convs[-1](picture), features)


class MelDiscriminator(nn.Module):
    """Mel and log-mel magnitudes at one hop.

    Args:
        channels: width of the deepest layer; the first has a 32nd of it.
    """

    def __init__(self, hop: int, channels: int, sample_rate: int, bands: int = 64) -> None:
        super().__init__()
        self.hop, self.fft_size, self.sample_rate, self.bands = hop, 4 * hop, sample_rate, bands
        widths = [2, *(max(2, channels // 2**i) for i in (5, 4, 3, 2, 1, 0))]
        convs = [
            nn.Conv2d(a, b, 3, stride=1 + i % 2, padding=1)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        ]
        self.stack = ConvStack([*convs, nn.Conv2d(widths[-1], 1, 3, padding=1)])

    def picture(self, wav: Tensor) -> Tensor:
        """``[batch, samples]`` → ``[batch, 2, time, bands]``."""
        wav = wav[:, : wav.shape[1] // self.hop * self.hop]
        magnitude = spectrum(wav, self.fft_size, self.hop).abs()
        mel = magnitude @ loss_filters(self.sample_rate, self.fft_size, self.bands, wav.device)
        return torch.stack((mel, torch.log(mel + 1e-4)), dim=1)


class Discriminators(nn.Module):
    """All resolutions.

    Args:
        hops: of the pictures, in samples.
        channels: width per hop.
    """

    def __init__(self, hops: list[int], channels: list[int], sample_rate: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(MelDiscriminator(h, c, sample_rate) for h, c in zip(hops, channels, strict=True))

    def forward(self, wav: Tensor) -> list[Judgement]:
        """``wav [batch, samples]`` → one :class:`Judgement` per resolution."""
        with torch.autocast(wav.device.type, enabled=False):  # FFT and log want float32; the convolutions do not
            wav = normalise(wav.float())
            pictures = [part.picture(wav) for part in self.parts]
        return [part.stack(picture) for part, picture in zip(self.parts, pictures, strict=True)]


def generator_loss(fake: list[Judgement]) -> Tensor:
    """What the codec pays for being recognised (hinge), mean over discriminators."""
    return torch.stack([torch.relu(1 - j.score.float()).mean() for j in fake]).mean()


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """What the discriminators pay for errors (hinge), mean over discriminators."""
    pairs = [(r.score.float(), f.score.float()) for r, f in zip(real, fake, strict=True)]
    return torch.stack([torch.relu(1 - x).mean() + torch.relu(1 + y).mean() for x, y in pairs]).mean()


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


class Adversary:
    """The discriminators, their optimiser, and when they take part. Nothing of this is exported.

    Args:
        cfg: the ``gan`` section of ``configs/codec_train.yaml``.
    """

    def __init__(self, cfg: DictConfig, sample_rate: int, accelerator: Accelerator, seed: int) -> None:
        self.cfg, self.sample_rate, self.accelerator, self.seed = cfg, sample_rate, accelerator, seed
        model = Discriminators(list(cfg.sizes), list(cfg.channels), sample_rate)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=cfg.learning_rate, betas=tuple(cfg.betas), weight_decay=cfg.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.core: Discriminators = accelerator.unwrap_model(self.model)

    def draw(self, step: int, samples: int) -> slice | None:
        """The part of a crop that is judged, from (seed, step) alone; None before ``gan.start``."""
        if step < self.cfg.start:
            return None
        rng = np.random.default_rng([self.seed, step, 1 << 21])
        size = min(samples, int(self.cfg.crop_seconds * self.sample_rate)) if self.cfg.crop_seconds else samples
        start = int(rng.integers(samples - size + 1))
        return slice(start, start + size)

    def losses(self, output: Tensor, wav: Tensor, part: slice) -> dict[str, Tensor]:
        """The codec's losses; the discriminators' parameters receive no gradient."""
        self.core.requires_grad_(False)  # the unwrapped module: a second reduction per step would confuse DDP
        with self.accelerator.autocast():
            fake = self.core(output[:, part])
            with torch.no_grad():
                real = self.core(wav[:, part])
        self.core.requires_grad_(True)
        return {"adversarial": generator_loss(fake), "features": feature_matching(real, fake)}

    def train(self, heard: list[tuple[Tensor, Tensor]], part: slice, rate_share: float) -> dict[str, float]:
        """One step of the discriminators on all batches of the codec's step.

        Args:
            heard: the codec's output and its source of each batch, ``[batch, samples]`` both.
            part: of a crop that is judged.
            rate_share: the codec's learning rate over its peak.
        """
        total = 0.0
        for number, (output, wav) in enumerate(heard, 1):
            with nullcontext() if number == len(heard) else self.accelerator.no_sync(self.model):
                both = self.model(torch.cat((wav[:, part], output.detach()[:, part].float())))  # one forward: DDP
                half = len(wav)
                real = [Judgement(j.score[:half], []) for j in both]
                fake = [Judgement(j.score[half:], []) for j in both]
                loss = discriminator_loss(real, fake) / len(heard)
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
