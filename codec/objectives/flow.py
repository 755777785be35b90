"""What a flow decoder learns in stage 3: the velocity on the path to true frames, and what its head expects of them.

The regression head learns alone at first. Then it stands still, what it leaves of the target is measured
(codec/recipe/initialise.py), and the flow learns that: a head that moved on would move the flow's target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from codec.model import ALMTokenizer
from codec.network.flow import interpolate, masked_mean_square, stratified_times
from codec.network.flow_decoder import FlowDecoder


@dataclass(frozen=True)
class FlowDraw:
    """What a step of stage 3 draws.

    Attributes:
        seeds: of each crop's own draws, so that no split of the global batch changes them.
        begun: whether the flow learns already; before, its regression head does.
        draws: (t, z) per crop.
        condition_dropout: share of draws that see no condition, for guidance.
        random_codes: share of codes behind the first level that are replaced by others, as a language model errs.
    """

    seeds: list[int]
    begun: bool
    draws: int
    condition_dropout: float
    random_codes: float


def condition_of(codec: ALMTokenizer, codes: Tensor, window: int) -> Tensor:
    """``codes [batch, levels, windows]`` → ``[batch, windows * w, decoder_dim]``, in float32 as in decoding."""
    with torch.autocast(codes.device.type, enabled=False):
        return codec.decoder_frames(codec.quantizer.lookup(codes), window)[0]


def disturbed(codes: Tensor, sizes: tuple[int, ...], share: float, generators: list[torch.Generator]) -> Tensor:
    """``codes [batch, levels, windows]`` with random ones in a ``share`` of the places behind the first level."""
    codes = codes.clone()
    for clip, generator in zip(codes, generators, strict=True):
        for level, size in zip(range(1, codes.shape[1]), sizes[1:], strict=False):
            drawn = torch.rand(2, codes.shape[2], generator=generator, device=codes.device)
            clip[level] = torch.where(drawn[0] < share, (drawn[1] * size).long().clamp(max=size - 1), clip[level])
    return codes


def velocity_error(
    flow: FlowDecoder, condition: Tensor, target: Tensor, weight: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """Weighted mean square error of the velocity at ``t [batch]`` of the paths from ``noise`` to ``target``."""
    x, velocity = interpolate(target, noise, t)
    return masked_mean_square(flow.network(x, t, condition), velocity, weight)


def idle(part: torch.nn.Module) -> Tensor:
    """Zero, with the parameters of ``part`` in the graph: several processes wait for all gradients."""
    return torch.stack([p.sum() for p in part.parameters()]).sum() * 0.0


def flow_losses(codec: ALMTokenizer, wav: Tensor, window: int, levels: int | None, draw: FlowDraw) -> dict[str, Tensor]:
    """``flow`` and ``regression`` of crops ``[batch, windows * w * hop]``; the latter only where there is a head.

    Args:
        levels: that the decoder sees.
    """
    flow = codec.flow
    assert flow is not None
    generators = [torch.Generator(wav.device).manual_seed(seed) for seed in draw.seeds]
    with torch.no_grad():
        codes = codec.quantizer(codec.encode_latents(wav, window), levels=levels).codes
        codes = disturbed(codes, codec.codebook_sizes, draw.random_codes, generators)
        condition = condition_of(codec, codes, window)
        target = flow.normalised(flow.target.measure(wav))
    expected = flow.expected(condition)
    weight = flow.weight(expected)
    found: dict[str, Tensor] = {}
    if not draw.begun:
        return {
            "regression": masked_mean_square(expected, target, weight) + idle(flow.network) + flow.nothing.sum() * 0
        }
    expected = expected.detach()
    if flow.regression is not None:
        found["regression"] = masked_mean_square(expected, target, weight) + idle(flow.regression)
    times = torch.cat([stratified_times(draw.draws, generator) for generator in generators])
    shape = (draw.draws, *target.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=g, device=wav.device) for g in generators])
    unseen = torch.cat([torch.rand(draw.draws, generator=g, device=wav.device) for g in generators])
    residual = (target - expected) / flow.residual
    condition, residual, weight = (x.repeat_interleave(draw.draws, dim=0) for x in (condition, residual, weight))
    condition = torch.where((unseen < draw.condition_dropout)[:, None, None], flow.nothing, condition)
    found["flow"] = velocity_error(flow, condition, residual, weight, noise, times)
    return found
