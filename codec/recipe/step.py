"""One optimiser step of the codec's training: its batches forward and backward, then the discriminators' turn."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from omegaconf import DictConfig
from torch import Tensor, nn

from codec.network.quantizer import Quantized
from codec.objectives.adversarial import Adversary, Balancer
from codec.objectives.hearing import Listener, hearing_loss
from codec.objectives.losses import Resolution, pitch_loss, spectral_losses
from codec.recipe.crops import CropSampler
from codec.recipe.schedule import draw_masking, draw_step, draw_unquantised, learning_rate
from codec.recipe.stages import Pass, StagedCodec
from training import processes
from training.failure import NonFiniteLoss


@dataclass
class StepReport:
    """What a step tells of this process.

    Attributes:
        losses: means over the step's batches by name; ``loss`` is their weighted sum.
        norm: of the codec's gradient, before it was limited.
        rate: learning rate.
        samples: of audio that were learnt from.
        files: that the crops were cut from.
        suspects: those of them whose batch had a loss that is not finite.
    """

    losses: dict[str, float]
    norm: float
    rate: float
    samples: int
    files: list[Path]
    suspects: list[Path]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.norm) and all(math.isfinite(value) for value in self.losses.values())


class Learner:
    """Carries out the steps of ``codec/train.py``.

    Args:
        model: ``staged`` as accelerate prepared it, like ``optimizer``.
        crop: samples per crop, before they are cut to whole windows.
        cfg: the configuration of ``codec/train.py``.
    """

    def __init__(
        self,
        model: nn.Module,
        staged: StagedCodec,
        optimizer: Any,
        sampler: CropSampler,
        adversary: Adversary | None,
        listener: Listener | None,
        balancer: Balancer | None,
        accelerator: Accelerator,
        crop: int,
        cfg: DictConfig,
    ) -> None:
        self.model, self.staged, self.optimizer, self.sampler = model, staged, optimizer, sampler
        self.adversary, self.balancer, self.accelerator = adversary, balancer, accelerator
        self.core, self.crop, self.cfg, self.listener = staged.codec, crop, cfg, listener

    def step(self, step: int, bypass: bool) -> StepReport:
        """Learn from step ``step``'s crops; ``bypass`` leaves the quantiser out."""
        cfg, train, config = self.cfg, self.cfg.trainer, self.core.config
        window, levels, resolutions, noise_offset = draw_step(step, cfg, config)
        samples = self.crop // (config.hop * window) * config.hop * window
        judged = None if self.adversary is None else self.adversary.draw(step, samples)
        generator = None if bypass else torch.Generator().manual_seed(cfg.seed * 1_000_003 + step * 1009)
        report = StepReport({}, math.nan, learning_rate(step, train), 0, [], [])
        heard: list[tuple[Tensor, Tensor]] = []
        quantized: list[Quantized] = []
        for part in range(train.accumulate):
            first = (self.accelerator.process_index * train.accumulate + part) * train.batch_size
            wav, files = self.sampler.batch(step, first, train.batch_size, samples)
            wav = wav.to(self.accelerator.device)
            masking = draw_masking(step, cfg) if self.staged.mae is not None else (0.0, None)
            free = draw_unquantised(step, cfg, first, train.batch_size)
            free = None if free is None or bypass else free.to(wav.device)
            source = self.listen(wav)
            last = part == train.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                result = self.model(
                    wav,
                    window,
                    levels,
                    bypass,
                    noise_offset,
                    *masking,
                    first=first,
                    unquantised=free,
                    heard=source[-1] if source else None,
                )
                # losses see a leaf when they are balanced: their gradients are mixed there, then sent back at once
                leaf = result.wav.detach().requires_grad_() if self.balancer is not None else result.wav
                outer, inner = self.losses(replace(result, wav=leaf), wav, resolutions)
                if self.listener is not None and cfg.loss.hearing:
                    with self.accelerator.autocast():
                        outer["hearing"] = hearing_loss(self.listener(leaf), source)
                if self.adversary is not None and judged is not None:
                    outer |= self.adversary.losses(leaf, wav, judged)
                    heard.append((result.wav.detach(), wav))
                losses = outer | inner
                loss = sum(cfg.loss[name] * value for name, value in losses.items())
                if self.balancer is not None:
                    gradient = self.balancer.gradient(outer, dict(cfg.loss), leaf, self.accelerator)
                    objective = (result.wav * gradient).sum() + sum(cfg.loss[n] * v for n, v in inner.items())
                else:
                    objective = loss
                self.accelerator.backward(objective / train.accumulate if train.accumulate > 1 else objective)
            if result.quantized is not None:
                quantized.append(result.quantized)
            for name, value in {"loss": loss, **losses}.items():
                report.losses[name] = report.losses.get(name, 0.0) + value.item() / train.accumulate
            report.samples += wav.numel()
            report.files += files
            report.suspects += [] if torch.isfinite(loss) else files
        if quantized:
            self.core.quantizer.finish_step(quantized, generator, self.accelerator.gather)
        report.norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), train.clip_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = report.rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.adversary is not None and judged is not None and judged.update:
            report.losses |= self.adversary.train(heard, judged, report.rate / train.learning_rate)
        return report

    @torch.no_grad()
    def listen(self, wav: Tensor) -> list[Tensor]:
        """What the listener makes of the sources ``[batch, samples]``."""
        if self.listener is None:
            return []
        with self.accelerator.autocast():
            return self.listener(wav)

    def losses(
        self, result: Pass, wav: Tensor, resolutions: list[Resolution]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The unweighted losses of ``result`` that go through its waveform, and those that do not."""
        config, outer, inner = self.core.config, dict[str, Tensor](), dict(result.inner)
        for resolution in resolutions:
            for name, value in spectral_losses(result.wav, wav, config.sample_rate, resolution).items():
                outer[name] = outer.get(name, 0) + value / len(resolutions)
        if result.frequency is not None:
            pitch_range = (self.core.unpatchify.pitch_low, self.core.unpatchify.pitch_high)
            inner["pitch"] = pitch_loss(result.frequency, wav, config.sample_rate, config.hop, *pitch_range)
        return outer, inner

    def agree(self, step: int, report: StepReport, asked: bool) -> bool:
        """Whether any process was ``asked`` to stop. The same on all processes: none may wait for one that left.

        Raises:
            NonFiniteLoss: in all processes, where one of them met a number that is not finite. Nothing is saved then:
                the weights and the codebooks have already moved.
        """
        flags = torch.tensor([float(not report.finite), float(asked)], device=self.accelerator.device)
        broken, told = processes.summed(flags).tolist()
        if broken:
            values = {**report.losses, "gradient norm": report.norm}
            found = sorted(set(gather_object([name for name, value in values.items() if not math.isfinite(value)])))
            suspects, files = gather_object(report.suspects), gather_object(report.files)
            named = sorted({str(path) for path in suspects or files})
            raise NonFiniteLoss(
                f"step {step + 1} is not finite ({', '.join(found)}); the last checkpoint stays as it is. Lower "
                f"trainer.learning_rate, or look at the files of the batch: {', '.join(named)}"
            )
        return bool(told)
