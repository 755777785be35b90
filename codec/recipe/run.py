"""One training of the codec: what it holds, how that is saved and loaded, and its step.

run = Run(cfg, staged, listener, accelerator, recipe, quantize_from)
run.load(checkpoint)                 # what run.save(folder) wrote
while run.steps < max_steps:
    report = run.step(next(batches))   # codec/recipe/crops.py
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codec.corpus import Clip
from codec.model import ALMTokenizer
from codec.network.quantizer import Quantized
from codec.objectives.adversarial import Adversary, Balancer
from codec.objectives.hearing import Listener
from codec.objectives.losses import OtherLosses, StagedCodec, WaveformLosses
from codec.recipe.averaging import WeightAverage
from codec.recipe.crops import Batch, draw_flow, draw_masking, regression_steps
from training.config import ConfigError
from training.failure import NonFiniteLoss
from training.identity import first_line
from training.run_folder import check_recipe

OBJECTIVES = "objectives.safetensors"
# Keys that change no number of the curve.
FREE_KEYS = ("name", "preset", "resume", "device", "tracker", "threads", "init", "corpora", "data")
FLOW_LOSSES = ("flow", "regression")
FREE_TRAINER = tuple("valid_every valid_clips save_every keep log_every compile batch_size accumulate workers".split())


def recipe_of(cfg: DictConfig, clips: Sequence[Clip], init: ALMTokenizer | None, world: int) -> dict[str, Any]:
    """What makes a run the same run: a checkpoint continues only under an equal recipe.

    It holds the crops of a step over all ``world`` processes, which may be spread in another way, and what is heard and
    begun with instead of the names of its folders.
    """
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    train = settings["trainer"]
    crops = train["batch_size"] * train["accumulate"] * world
    settings["trainer"] = {k: v for k, v in train.items() if k not in FREE_TRAINER}
    heard = "\n".join(f"{clip.id} {clip.domain} {clip.path.stat().st_size}" for clip in clips)
    corpus = hashlib.sha256(heard.encode("utf-8", "surrogateescape")).hexdigest()
    if settings["stage"] != 3:  # keys of stage 3 alone
        settings = {key: value for key, value in settings.items() if key != "flow"}
        settings["loss"] = {key: value for key, value in settings["loss"].items() if key not in FLOW_LOSSES}
    if not settings["codec"]["experts"]:  # keys of codecs that hear by experts alone
        settings["codec"] = {key: value for key, value in settings["codec"].items() if key != "experts"}
        settings["loss"] = {key: value for key, value in settings["loss"].items() if key != "expert"}
    kept = {key: value for key, value in settings.items() if key not in FREE_KEYS}
    # checkpoints of before the keys
    if kept["reopen"] is None:
        del kept["reopen"]
    if kept["loss"]["pitch_scale"] == 5:
        kept["loss"] = {key: value for key, value in kept["loss"].items() if key != "pitch_scale"}
    begun = None if init is None else init.fingerprint[:12]
    return {
        **kept,
        "init": begun,
        "trainer.batch_size × accumulate × processes": crops,
        "clips of the corpus": f"{len(clips)}, {corpus[:12]}",
    }


def learning_rate(step: int, cfg: DictConfig, steps: int | None = None) -> float:
    """Linear warm-up, then cosine decay to ``final_lr_share`` of the peak at ``steps`` (None: all of ``cfg``)."""
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, (steps or cfg.max_steps) - cfg.warmup_steps)
    share = cfg.final_lr_share + (1 - cfg.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return cfg.learning_rate * share


def learning_rates(step: int, cfg: DictConfig) -> tuple[float, float]:
    """Of the regression head of stage 3, and of all other parameters: the head learns before them, and only then."""
    alone = regression_steps(cfg) if cfg.stage == 3 else 0
    if step < alone:
        return learning_rate(step, cfg.trainer, alone), 0.0
    return 0.0, learning_rate(step - alone, cfg.trainer, cfg.trainer.max_steps - alone)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The trainable parameters; weight decay on matrices only. Those of a flow's regression head are marked so."""
    groups = []
    for head in (False, True):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and (".regression." in n) == head]
        for decay, parts in (
            (weight_decay, [p for _, p in named if p.ndim >= 2]),
            (0.0, [p for _, p in named if p.ndim < 2]),
        ):
            if parts or not head:
                groups.append({"params": parts, "weight_decay": decay, **({"head": True} if head else {})})
    return groups


@dataclass
class StepReport:
    """What a step tells of this process.

    Attributes:
        rate: learning rate.
        losses: means over the step's batches by name; ``loss`` is their weighted sum.
        norm: of the codec's gradient, before it was limited.
        samples: of audio that were learnt from.
        files: that the crops were cut from.
        suspects: those of them whose batch had a loss that is not finite.
    """

    rate: float
    losses: dict[str, float] = field(default_factory=dict)
    norm: float = math.nan
    samples: int = 0
    files: list[Path] = field(default_factory=list)
    suspects: list[Path] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        return math.isfinite(self.norm) and all(math.isfinite(value) for value in self.losses.values())


class Run:
    """A training: the codec, all that learns beside it, and the steps it has taken.

    Args:
        cfg: the configuration of ``codec/train.py``.
        recipe: what a checkpoint must agree with (:func:`recipe_of`).
        quantize_from: the first step that quantises.
    """

    def __init__(
        self,
        cfg: DictConfig,
        staged: StagedCodec,
        listener: Listener | None,
        accelerator: Accelerator,
        recipe: dict[str, Any],
        quantize_from: int,
    ) -> None:
        self.cfg, self.staged, self.codec, self.accelerator = cfg, staged, staged.codec, accelerator
        self.recipe, self.quantize_from, self.steps = recipe, quantize_from, 0
        train = cfg.trainer
        groups = parameter_groups(staged, train.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=tuple(train.betas), fused=True)
        rate = self.codec.config.sample_rate
        self.adversary = None if cfg.gan.start is None else Adversary(cfg.gan, rate, accelerator, cfg.seed)
        self.balancer = Balancer(cfg.gan.balancer_decay) if cfg.gan.balancer else None
        if train.compile:
            self.codec.encoder.compile()  # in place: the names of the weights stay
            self.codec.decoder.compile()
        self.model, self.optimizer = accelerator.prepare(staged, optimizer)
        self.listener = listener.to(accelerator.device) if listener else None
        self.average = WeightAverage(staged, train.ema) if train.ema else None

    # ---- what a checkpoint holds -------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write all that the next step depends on."""
        self.codec.save_pretrained(folder)
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        if self.staged.objectives():
            save_file({k: v.contiguous() for k, v in self.staged.objectives().items()}, folder / OBJECTIVES)
        if self.adversary is not None:
            torch.save(self.adversary.state_dict(), folder / "adversary.pt")
        if self.average is not None:
            save_file(self.average.shadow, folder / "average.safetensors")
        balancer = {} if self.balancer is None else {"balancer": self.balancer.state_dict()}
        (folder / "state.json").write_text(json.dumps({"step": self.steps, "recipe": self.recipe, **balancer}))

    def load(self, folder: Path) -> None:
        """Continue what :meth:`save` wrote.

        Raises:
            CheckpointError: it is of another recipe.
            ConfigError: it does not hold what these options need.
        """
        state = json.loads((folder / "state.json").read_text())
        check_recipe(state["recipe"], self.recipe, folder)
        try:
            self.codec.load_state_dict(load_file(folder / "model.safetensors"))
            self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
            if self.staged.objectives():
                self.staged.load_state_dict(load_file(folder / OBJECTIVES), strict=False)
            if self.adversary is not None:
                seen = torch.load(folder / "adversary.pt", map_location="cpu", weights_only=True)
                self.adversary.load_state_dict(seen)
            if self.average is not None:
                self.average.load(load_file(folder / "average.safetensors"))
            if self.balancer is not None:
                self.balancer.load_state_dict(state["balancer"])
        except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
            raise ConfigError(
                f"{folder} cannot be continued with these options ({first_line(error)}): give this training another "
                "name, or resume=none to start over."
            ) from error
        self.steps = state["step"]

    def adopt_average(self) -> None:
        """Go on from the averaged weights, if there are such."""
        if self.average is not None:
            self.average.adopt()

    def exported(self) -> AbstractContextManager[None]:
        """The codec has the weights that are validated and exported inside the ``with`` block."""
        return nullcontext() if self.average is None else self.average.applied()

    # ---- a step ------------------------------------------------------------------------------------------------
    def step(self, batches: Sequence[Batch]) -> StepReport:
        """Learn from the ``trainer.accumulate`` batches of one step."""
        cfg, train, step, accelerator = self.cfg, self.cfg.trainer, self.steps, self.accelerator
        bypass = step < self.quantize_from
        head_rate, rate = learning_rates(step, cfg)
        report = StepReport(head_rate or rate)
        heard: list[tuple[Tensor, Tensor]] = []
        quantized: list[Quantized] = []
        for batch in batches:
            wav, last = batch.wav.to(accelerator.device), batch is batches[-1]
            judged = None if self.adversary is None else self.adversary.draw(step, wav.shape[1])
            with nullcontext() if last else accelerator.no_sync(self.model):
                made = self.model(
                    wav,
                    batch.draw.window,
                    batch.draw.levels,
                    bypass,
                    batch.draw.noise_offset,
                    None if batch.unquantised is None or bypass else batch.unquantised.to(wav.device),
                    draw_masking(step, cfg) if self.staged.mae is not None else None,
                    batch.first,
                    draw_flow(step, cfg, batch.first, len(wav)) if cfg.stage == 3 else None,
                )
                # losses see a leaf when they are balanced: their gradients are mixed there, then sent back at once
                leaf = made.wav if self.balancer is None else made.wav.detach().requires_grad_()
                seen = (replace(made, wav=leaf), wav, self.staged, accelerator, cfg.loss, batch.draw.resolutions)
                if made.flow is None:
                    outer = WaveformLosses(*seen, self.adversary, judged, self.listener).all()
                    inner = OtherLosses(*seen).all()
                else:
                    outer, inner = {}, made.flow
                losses = outer | inner
                loss = objective = sum(cfg.loss[name] * value for name, value in losses.items())
                if self.balancer is not None:
                    gradient = self.balancer.gradient(outer, dict(cfg.loss), leaf, accelerator)
                    objective = (made.wav * gradient).sum() + sum(cfg.loss[n] * v for n, v in inner.items())
                accelerator.backward(objective / train.accumulate if train.accumulate > 1 else objective)
            if judged is not None:
                heard.append((made.wav.detach(), wav))
            if made.quantized is not None:
                quantized.append(made.quantized)
            for name, value in {"loss": loss, **losses}.items():
                report.losses[name] = report.losses.get(name, 0.0) + value.item() / train.accumulate
            report.samples += wav.numel()
            report.files += batch.files
            report.suspects += [] if torch.isfinite(loss) else batch.files
        if quantized:
            seeds = None if bypass else torch.Generator().manual_seed(cfg.seed * 1_000_003 + step * 1009)
            self.codec.quantizer.finish_step(quantized, seeds, accelerator.gather)
        report.norm = float(accelerator.clip_grad_norm_(self.model.parameters(), train.clip_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = head_rate if group.get("head") else rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.adversary is not None and judged is not None:
            report.losses |= self.adversary.train(heard, judged, report.rate / train.learning_rate)
        self.steps += 1
        if self.average is not None:
            self.average.update(self.steps)
        return report

    def agree(self, report: StepReport, asked: bool) -> bool:
        """Whether any process was ``asked`` to stop. The same on all processes: none may wait for one that left.

        Raises:
            NonFiniteLoss: in all processes, where one of them met a number that is not finite. Nothing is saved then:
                the weights and the codebooks have already moved.
        """
        flags = torch.tensor([float(not report.finite), float(asked)], device=self.accelerator.device)
        broken, told = self.accelerator.reduce(flags).tolist()
        if broken:
            values = {**report.losses, "gradient norm": report.norm}
            found = sorted(set(gather_object([name for name, value in values.items() if not math.isfinite(value)])))
            suspects, files = gather_object(report.suspects), gather_object(report.files)
            named = sorted({str(path) for path in suspects or files})
            raise NonFiniteLoss(
                f"step {self.steps} is not finite ({', '.join(found)}); the last checkpoint stays as it is. Lower "
                f"trainer.learning_rate, or look at the files of the batch: {', '.join(named)}"
            )
        return bool(told)
