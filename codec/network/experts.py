"""Experts in front of the queries (``patchify: experts``, after ALMTokenizer2): frozen encoders, aligned and fused.

::

    wav ─┬ encoders of role phone    ─ linear ┐
         ├ encoders of role semantic ─ linear ┼ linear ─► frames [frame rate of the codec, encoder_dim]
         └ encoders of role acoustic ─ linear ┘

A role has any number of encoders, each of them anything that :func:`codec.network.audio_encoders.load_encoder` takes.
Features are averaged over the codec's frames, up or down in rate, so that nothing is cut and nothing drifts.

Encoders are no part of the weights: the configuration holds their paths, widths and SHA-256, and they are loaded when
they are first heard with. They hear one clip at a time, in eval mode whatever the codec's, and in pieces of a fixed
grid from frame 0 with context on both sides, so that codes are the same alone, in a batch and as a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import soxr
import torch
from torch import Tensor, nn

from codec.network.architecture import ALMTokenizerConfig
from codec.network.audio_encoders import Encoder, load_encoder
from codec.network.patchify import mean_and_deviation
from codec.network.waveform_frames import Patchify
from codec.pretrained import find_folder
from training.config import ConfigError
from training.identity import folder_hash
from training.schema import first_fault_in

ROLES = ("phone", "semantic", "acoustic")
PIECE, CONTEXT = 960, 96  # frames: of a piece of the grid, and of what is heard on its sides
FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model.bin")


@dataclass(frozen=True)
class Expert:
    """One of ``experts`` in a codec's configuration.

    Attributes:
        encoder: a folder or a hub id, or log-mel.
        layer: of a transformers encoder.
        dim: numbers per feature; 0: not looked up yet.
        sha256: of its files; empty: not looked up yet, or it has none (log-mel).

    Raises:
        ValueError: in one sentence, with the key.
    """

    encoder: Annotated[str, "str"]
    role: Annotated[str, "phone | semantic | acoustic"]
    layer: Annotated[int, "int"] = 0
    dim: Annotated[int, "int, from 0 to 1000000"] = 0
    sha256: Annotated[str, "str"] = ""

    def __post_init__(self) -> None:
        if fault := first_fault_in(self, "experts."):
            raise ValueError(fault)

    @classmethod
    def all(cls, values: Sequence[Any]) -> list[Expert]:
        """From a configuration.

        Raises:
            ValueError: there are none, one is no expert's configuration, or one is there twice.
        """
        found = []
        for value in values:
            try:
                found.append(cls(**value))
            except TypeError as error:
                raise ValueError(f"experts: {value} is none ({error}): give encoder, layer and role.") from error
        if not found:
            raise ValueError("patchify=experts needs experts: [{encoder: FOLDER, layer: 0, role: phone}, …].")
        for expert in found:
            if sum((e.encoder, e.layer, e.role) == (expert.encoder, expert.layer, expert.role) for e in found) > 1:
                raise ValueError(f"experts: {expert.encoder}, layer {expert.layer}, has the role {expert.role} twice.")
        return found

    @property
    def source(self) -> Expert:
        """What is loaded and heard with: the same for all its roles."""
        return replace(self, role=ROLES[0])

    def load(self, device: torch.device) -> Encoder:
        """The encoder.

        Raises:
            ConfigError: it is not there, cannot be taken, or is not the one that the codec was trained with.
        """
        if self.sha256 and (found := self.hash()) != self.sha256:
            raise ConfigError(
                f"the expert '{self.encoder}' is another one than this codec was trained with (its files have SHA-256 "
                f"{found[:12]} and not {self.sha256[:12]}): put that one in its place."
            )
        return load_encoder(self.encoder, self.layer, device)

    def hash(self) -> str:
        """SHA-256 over names and contents of its files; empty of log-mel, which has none.

        Raises:
            ConfigError: there is no such folder or hub id.
        """
        if self.encoder == "log-mel":
            return ""
        folder = find_folder(self.encoder, FILES)
        if folder is None:
            raise ConfigError(
                f"the expert '{self.encoder}' is neither a folder nor a hub id that can be reached: give its place."
            )
        return folder_hash(folder, {path.name for pattern in FILES for path in folder.glob(pattern)})

    def known(self) -> Expert:
        """With its width and its SHA-256 looked up, of what is there now. Raises ConfigError."""
        encoder = self.load(torch.device("cpu"))
        with torch.inference_mode():
            dim = encoder.features(torch.zeros(4 * encoder.rate)).shape[1]
        if self.dim not in (0, dim):
            raise ConfigError(f"the expert '{self.encoder}' has {dim} numbers per feature, and not dim: {self.dim}.")
        return Expert(self.encoder, self.role, self.layer, dim, self.hash())


class ExpertPatchify(Patchify):
    """Waveform → frames, by way of experts.

    Attributes:
        heard: ``[batch, frames, dim]``, normalised features of the last pass: what the phone expert's head predicts.
    """

    mean: Tensor
    scale: Tensor
    reach = (PIECE + CONTEXT, PIECE + CONTEXT)

    def __init__(self, experts: list[Expert], dim: int, hop: int, sample_rate: int) -> None:
        super().__init__()
        if missing := [expert.encoder for expert in experts if not expert.dim]:
            raise ValueError(f"experts: dim of {missing[0]} is not known; codec/train.py looks it up.")
        # those of a role side by side
        self.experts = sorted(experts, key=lambda expert: ROLES.index(expert.role))
        self.hop, self.sample_rate, self.heard = hop, sample_rate, torch.zeros(0)
        self.widths = {role: sum(e.dim for e in self.experts if e.role == role) for role in ROLES}
        self.widths = {role: width for role, width in self.widths.items() if width}
        total = sum(self.widths.values())
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.roles = nn.ModuleDict({role: nn.Linear(width, dim) for role, width in self.widths.items()})
        self.fuse = nn.Linear(len(self.widths) * dim, dim)
        # by encoder, once for all its roles; no modules: neither saved nor trained
        self._loaded: dict[torch.device, dict[Expert, Encoder]] = {}

    @classmethod
    def of(cls, config: ALMTokenizerConfig) -> ExpertPatchify:
        """That of a codec's configuration. Raises ValueError."""
        return cls(Expert.all(config.experts), config.encoder_dim, config.hop, config.sample_rate)

    @property
    def phones(self) -> int:
        """Numbers of the phone experts, which come first."""
        return self.widths.get("phone", 0)

    def certain(self, frames: int) -> int:
        return max(0, frames - CONTEXT) // PIECE * PIECE

    def needed(self, ready: int) -> int:
        return max(0, ready // PIECE * PIECE - CONTEXT)

    def hear(self, wav: Tensor, start: int) -> Tensor:
        return self(wav, None, start)

    @torch.no_grad()
    def features(self, wav: Tensor, valid: Tensor | None = None, start: int = 0) -> Tensor:
        """``wav [batch, frames * hop]`` → ``[batch, frames, dims of all]``, as the encoders give them.

        Args:
            valid: ``[batch, frames]`` bool; what padding holds is not heard.
            start: number of the first frame of a clip, 0 or what :meth:`needed` says; frames before the first whole
                piece are zero then.
        """
        frames = wav.shape[1] // self.hop
        counts = [frames] * len(wav) if valid is None else valid.sum(1).tolist()
        found = wav.new_zeros(len(wav), frames, len(self.mean))
        begun = -(-(start + (CONTEXT if start else 0)) // PIECE) * PIECE
        for clip, count, made in zip(wav, counts, found, strict=True):
            end = start + int(count)
            for first in range(begun, end, PIECE):
                low, high, last = max(0, first - CONTEXT), min(end, first + PIECE + CONTEXT), min(end, first + PIECE)
                piece = clip[(low - start) * self.hop : (high - start) * self.hop]
                made[first - start : last - start] = self._hear(piece, high - low)[first - low : last - low]
        return found

    def _hear(self, wav: Tensor, frames: int) -> Tensor:
        """Features ``[frames, dims of all]`` of ``wav [samples]``."""
        device = wav.device
        if device not in self._loaded:
            sources = dict.fromkeys(expert.source for expert in self.experts)
            self._loaded[device] = {source: source.load(device) for source in sources}
        heard, found = wav.float().cpu(), dict[Expert, Tensor]()
        for source, encoder in self._loaded[device].items():
            own = heard
            if encoder.rate != self.sample_rate:
                own = torch.from_numpy(soxr.resample(heard.numpy(), self.sample_rate, encoder.rate, quality="HQ"))
            least = encoder.rate // 2  # s/2: what some encoders' convolutions need to give a feature at all
            padded = nn.functional.pad(own, (0, max(0, least - len(own))))
            part = encoder.averages(padded, max(frames, round(frames * len(padded) / max(1, len(own)))))[:frames]
            if part.shape[1] != source.dim:
                raise ConfigError(f"the expert '{source.encoder}' has {part.shape[1]} numbers and not {source.dim}.")
            found[source] = part
        return torch.cat([found[expert.source] for expert in self.experts], dim=1).to(device)

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Set the normalisation per number from training audio, each ``[batch, frames * hop]``."""
        mean, deviation = mean_and_deviation(self.features(wav).flatten(0, 1) for wav in batches)
        self.mean.copy_(mean)
        self.scale.copy_(1 / deviation.clamp(min=1e-3))

    def forward(self, wav: Tensor, valid: Tensor | None = None, start: int = 0) -> Tensor:
        """``wav [batch, frames * hop]`` → ``[batch, frames, dim]``; arguments of :meth:`features`."""
        self.heard = (self.features(wav, valid, start) - self.mean) * self.scale
        parts = self.heard.split(list(self.widths.values()), dim=-1)
        mapped = [linear(part) for linear, part in zip(self.roles.values(), parts, strict=True)]
        return self.fuse(torch.cat(mapped, dim=-1))
