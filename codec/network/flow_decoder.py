"""A flow decoder for the codes of a trained codec (training: ``codec/train.py stage=3``; after ALMTokenizer2).

::

    codes ─ lookup ─ the codec's decoder stack ─ h [75 Hz] ─ condition ─┐
                                  └─ regression head ─ ŷ ─┐             │
    noise tape ─ z ─ flow network, from t = 0 to 1 ─ r ───┴─ ŷ + σ r ───┴─ target ─ a renderer without weights ─ wav

Nothing that codes depend on changes, so shards and language models stay what they are. With ``prior: regression`` the
flow says only what the regression cannot (r has unit variance), so few steps suffice; ``zero`` is ALMTokenizer2's, the
whole target from noise. Target and renderer: codec/network/flow_targets.py; path and solvers: codec/network/flow.py.

An ODE of n steps reaches n · layers · span frames, 20 s to each side at the defaults. Pieces therefore lie on a fixed
grid from frame 0 (:meth:`FlowDecoder.extend`), offline as in a stream, and agree by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.architecture import ALMTokenizerConfig
from codec.network.ends import build_ends
from codec.network.flow import Sampling, guided, noise, solve
from codec.network.flow_targets import Gains, Latent, Partials, Target
from codec.network.transformer import Block, LocalTransformer
from training.schema import first_fault_in

PIECE, CONTEXT, FADE = 960, 192, 16  # frames: of a piece of the grid, of context on its sides, of a cross-fade
TIME_DIM = 256  # numbers that describe t to the network


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of a flow decoder: ``flow`` of a codec's config.json, written by stage 3.

    Raises:
        ValueError: in one sentence, with the key.
    """

    target: Annotated[str, "partials | gains | latent"] = "partials"
    prior: Annotated[str, "regression | zero"] = "regression"
    dim: Annotated[int, "int, from 2 to 1000000"] = 256
    layers: Annotated[int, "int, from 1 to 1000"] = 6
    span: Annotated[int, "int, from 1 to 1000000"] = 32
    latent: Annotated[int, "int, from 0 to 1000000"] = 0  # width of the auto-encoder's frames (only with latent)

    def __post_init__(self) -> None:
        if fault := first_fault_in(self, "flow."):
            raise ValueError(fault)
        if (self.target == "latent") != (self.latent > 0):
            raise ValueError(f"flow.latent={self.latent} does not fit flow.target={self.target}.")

    @classmethod
    def of(cls, values: object) -> FlowConfig:
        """From a configuration. Raises ValueError: it is no flow decoder's."""
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"flow={values} is no flow decoder's configuration ({error}).") from error


class ModulatedBlock(Block):
    """A block whose branches are shifted, scaled and gated (adaLN-single: Chen et al., PixArt-α, 2024).

    x += g₁ · Attn(norm(x)(1 + γ₁) + β₁), then likewise the feed-forward; (β₁ γ₁ g₁ β₂ γ₂ g₂) is a learnt table of the
    block plus what all blocks are told of t.
    """

    def __init__(self, dim: int, head_dim: int, span: int, ffn: int) -> None:
        super().__init__(dim, head_dim, span, ffn)
        self.table = nn.Parameter(torch.zeros(6, dim))

    def forward(  # type: ignore[override]
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, modulation: Tensor
    ) -> Tensor:
        """``modulation [batch, 6, dim]``; the rest as :meth:`Block.forward`."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.table + modulation)[:, :, None].unbind(1)
        y = self.attention_norm(x) * (1 + scale) + shift
        x = x + gate * self.attention(y, rotary, mask)
        y = self.ffn_norm(x) * (1 + ffn_scale) + ffn_shift
        return x + ffn_gate * self.down(F.relu(self.up(y)).square())


def describe_time(t: Tensor) -> Tensor:
    """``t [batch]`` in 0…1 → sinusoids of 1000 t, ``[batch, TIME_DIM]``."""
    rates = torch.exp(-math.log(10000) * torch.arange(TIME_DIM // 2, device=t.device) / (TIME_DIM // 2))
    angles = 1000 * t.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def usual_gain(t: Tensor) -> Tensor:
    """c(t) of the velocity c(t) · x_t that takes noise to a target N(0, 1)."""
    return (2 * t - 1) / ((1 - t).square() + t.square())


class FlowNetwork(nn.Module):
    """The velocity: a local transformer over frames that is told t.

    It says a shift and a gain for each number: v = shift + (c(t) + gain) · x_t, where c(t) · x_t is the exact velocity
    of a target N(0, 1) (:func:`usual_gain`). Without, the noise of 962 numbers would have to pass through a network
    of a quarter of that width. The gain says how sure the condition makes of a number. The form is ours.

    Args:
        values, condition: numbers per frame of what flows, and of the condition.
    """

    def __init__(self, values: int, condition: int, dim: int, layers: int, head_dim: int, span: int) -> None:
        super().__init__()
        self.enter = nn.Linear(values + condition, dim)
        self.time = nn.Sequential(nn.Linear(TIME_DIM, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.stack = LocalTransformer(dim, layers, head_dim, span, block=ModulatedBlock)
        self.table = nn.Parameter(torch.zeros(2, dim))
        self.leave = nn.Linear(dim, 2 * values)

    def reset_parameters(self) -> None:
        """Start as plain pre-norm blocks that know no t, with the velocity of a standard normal target."""
        for linear in (self.modulation, self.leave):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.table.zero_()
            for block in self.stack.blocks:
                block.table.zero_()
                block.table[[2, 5]] = 1.0
                for linear in (block.attention.out, block.down):
                    linear.weight.normal_(std=0.02 / (2 * len(self.stack.blocks)) ** 0.5)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, valid: Tensor | None = None, start: int = 0) -> Tensor:
        """Velocity at ``x [batch, frames, values]`` and ``t [batch]``, given ``condition [batch, frames, condition]``.

        Args:
            valid: ``[batch, frames]`` bool; what padding holds is not looked at.
            start: number of the first frame, a multiple of ``span``.
        """
        if valid is not None:
            x, condition = (torch.where(valid[..., None], part, 0.0) for part in (x, condition))
        told = self.time(describe_time(t))
        modulation = self.modulation(F.silu(told)).unflatten(1, (6, -1))
        tokens = self.stack(self.enter(torch.cat((x, condition), dim=-1)), valid, 1, start, modulation)
        shift, scale = (self.table + told[:, None])[:, :, None].unbind(1)
        constant, gain = self.leave(tokens * (1 + scale) + shift).float().chunk(2, dim=-1)
        return constant + (usual_gain(t.float())[:, None, None] + gain) * x


@dataclass
class FlowState:
    """Where a stream stands: ``frames [batch, n, dim]`` of the condition from frame ``first`` on.

    ``piece`` is the number of the next one; ``tail [batch, up to FADE, values]`` what the piece before says about the
    frames that both make.
    """

    frames: Tensor | None = None
    first: int = 0
    piece: int = 0
    tail: Tensor | None = None


class FlowDecoder(nn.Module):
    """Frames of the decoder stack → values of the target.

    Attributes:
        sampling: how it samples; no part of the weights.
    """

    mean: Tensor
    deviation: Tensor
    residual: Tensor

    def __init__(self, flow: FlowConfig, codec: ALMTokenizerConfig, unpatchify: nn.Module) -> None:
        super().__init__()
        if flow.dim % codec.head_dim:
            raise ValueError(f"flow.dim={flow.dim} must be a multiple of head_dim={codec.head_dim}.")
        if CONTEXT % flow.span:
            raise ValueError(f"flow.span={flow.span} must divide {CONTEXT}, the frames beside a piece.")
        self.config, self.sampling = flow, Sampling()
        self.target = make_target(flow, codec, unpatchify)
        values, condition = self.target.dim, codec.decoder_dim
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("deviation", torch.ones(values))
        self.register_buffer("residual", torch.ones(values))  # σ: RMS of what the regression leaves, normalised
        self.regression: nn.Module | None = None
        if flow.prior == "regression":
            wide = 2 * flow.dim
            self.regression = nn.Sequential(nn.Linear(condition, wide), nn.SiLU(), nn.Linear(wide, values))
        self.nothing = nn.Parameter(torch.zeros(condition))  # the condition of the unconditional velocity
        self.network = FlowNetwork(values, condition, flow.dim, flow.layers, codec.head_dim, flow.span)

    # ---- values in the flow's units ----------------------------------------------------------------------------
    def normalised(self, values: Tensor) -> Tensor:
        """Of the target → about mean 0 and deviation 1 per dimension; without, the level of the noise is accidental."""
        return (values.float() - self.mean) / self.deviation

    def denormalised(self, values: Tensor) -> Tensor:
        """The way back."""
        return values * self.deviation + self.mean

    def expected(self, condition: Tensor) -> Tensor:
        """What the regression head expects, normalised ``[batch, frames, values]``; without one the mean, zeros."""
        if self.regression is None:
            return condition.new_zeros(*condition.shape[:2], self.target.dim, dtype=torch.float32)
        return self.regression(condition).float()

    def weight(self, expected: Tensor) -> Tensor:
        """How much each number of the loss counts, ``[batch, frames, values]``: by what is expected, if anything is."""
        if self.regression is None:
            return torch.ones_like(expected)
        return self.target.weight(self.denormalised(expected.detach()))

    # ---- sampling ----------------------------------------------------------------------------------------------
    def choose(self, sampling: Sampling) -> None:
        """Sample so from now on.

        Raises:
            ValueError: there is no regression head to listen to.
        """
        if sampling.solver == "regression" and self.regression is None:
            raise ValueError("tokenizer.flow.solver=regression: this decoder has no regression head (flow.prior=zero).")
        self.sampling = sampling

    def sample(self, condition: Tensor, valid: Tensor | None = None, start: int = 0) -> Tensor:
        """Values of the target ``[batch, frames, values]`` given ``condition [batch, frames, dim]``, in one piece.

        Args:
            valid: ``[batch, frames]`` bool.
            start: number of the first frame; at most ``PIECE`` and the context around it are passed.
        """
        how = self.sampling
        expected = self.expected(condition)
        if how.solver == "regression":
            return self.denormalised(expected)
        batch, frames = condition.shape[:2]
        z = noise(start, frames, self.target.dim, how.seed, condition.device).expand(batch, -1, -1)

        def velocity(given: Tensor, x: Tensor, t: float) -> Tensor:
            return self.network(x, torch.full((batch,), t, device=x.device), given, valid, start)

        free = partial(velocity, self.nothing.expand_as(condition))
        r = solve(guided(partial(velocity, condition), free, how.guidance), how.temperature * z, how.steps, how.solver)
        return self.denormalised(expected + self.residual * r)

    def extend(self, new: Tensor, state: FlowState, last: bool) -> tuple[Tensor, FlowState]:
        """The next frames of the decoder stack ``[batch, n, dim]`` → those that are certain, beside their values.

        Piece k is frames k · PIECE to (k + 1) · PIECE of a clip, sampled with CONTEXT frames around them; FADE frames
        around the edge of two pieces are a mixture of both.

        Returns:
            ``[batch, m, dim + values]`` and the state to go on from.
        """
        frames = new if state.frames is None else torch.cat((state.frames, new), dim=1)
        state, end, parts = replace(state, frames=frames), state.first + frames.shape[1], []
        while state.piece * PIECE < end and (last or end >= (state.piece + 1) * PIECE + CONTEXT):
            part, state = self._next_piece(frames, state, end)
            parts.append(part)
        width = frames.shape[2] + self.target.dim
        made = torch.cat(parts, dim=1) if parts else frames.new_zeros(len(frames), 0, width)
        kept = max(0, state.piece * PIECE - CONTEXT)
        return made, replace(state, first=kept, frames=frames[:, kept - state.first :].clone()) if parts else state

    def _next_piece(self, frames: Tensor, state: FlowState, end: int) -> tuple[Tensor, FlowState]:
        """Piece ``state.piece``: its frames beside their values, and the state with what the next piece mixes in."""
        begin, half = state.piece * PIECE, FADE // 2
        stop = min(end, begin + PIECE)
        low, high = max(0, begin - CONTEXT), min(end, begin + PIECE + CONTEXT)
        values = self.sample(frames[:, low - state.first : high - state.first], None, low)
        start = max(0, begin - half)
        values = values[:, start - low :]
        if state.tail is not None:
            count = state.tail.shape[1]
            rise = ((torch.arange(FADE, device=values.device) + 0.5) / FADE)[:count, None]
            mixed = state.tail * (1 - rise) + values[:, :count] * rise
            values = torch.cat((mixed, values[:, count:]), dim=1)
        certain = stop if stop == end else stop - half
        tail = None if stop == end else values[:, certain - start : stop + half - start]
        whole = torch.cat(
            (frames[:, start - state.first : certain - state.first], values[:, : certain - start]), dim=-1
        )
        return whole, replace(state, piece=state.piece + 1, tail=tail)


def make_target(flow: FlowConfig, codec: ALMTokenizerConfig, unpatchify: nn.Module) -> Target:
    """The target that ``flow.target`` names, for the sounds of ``codec``.

    Raises:
        ValueError: the codec has no spectra to make it of.
    """
    if flow.target == "latent":
        return Latent(build_ends(codec, flow.latent, flow.latent), flow.latent)
    if codec.patchify == "conv":
        raise ValueError(f"flow.target={flow.target} needs the spectra of patchify=stft; choose flow.target=latent.")
    if flow.target == "gains":
        return Gains(codec.hop, codec.synthesis_fft, unpatchify)
    return Partials(codec.hop, codec.synthesis_fft)
