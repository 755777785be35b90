"""What tells whether a flow decoder learns: its errors on held-out crops with the noise of decoding, always the same.

``flow_t000`` is the loss at t = 0, the squared error of predicting the target from the codes: near 1 with the
regression prior, whose residual has unit variance. ``flow_t100``, at t = 1, tends to 1: z is unknowable there.
``flow_shuffled`` is that at t = 0 with another clip's codes, and clearly higher unless the condition is ignored.
``flow_spread`` is the error of one sample over that of the mean of eight: near 2 when calibrated, 1 when collapsed.
``flow_deviation`` is the deviation of samples over that of targets, mean over dimensions: ideally 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from codec.corpus import AudioError, Clip, read_audio
from codec.model import ALMTokenizer
from codec.network.flow import noise
from codec.objectives.flow import condition_of, velocity_error

SECONDS, CROPS, SAMPLES = 2.0, 8, 8
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


@torch.inference_mode()
def diagnose(codec: ALMTokenizer, clips: list[Clip]) -> dict[str, float]:
    """The scores above, over the first seconds of at most eight ``clips``; none where no clip is so long."""
    flow = codec.flow
    assert flow is not None
    wav = crops(codec, clips)
    if wav is None:
        return {}
    codes = codec.encode(wav).codes.to(codec.device)
    condition = condition_of(codec, codes, codec.window)
    target, expected = flow.normalised(flow.target.measure(wav)), flow.expected(condition)
    weight, residual = flow.weight(expected), (target - expected) / flow.residual
    batch, frames, dim = target.shape
    z = torch.stack([noise(0, frames, dim, seed, wav.device) for seed in range(batch)])

    def error(given: Tensor, t: float) -> float:
        return float(velocity_error(flow, given, residual, weight, z, torch.full((batch,), t, device=z.device)))

    found = {f"flow_t{round(100 * t):03d}": error(condition, t) for t in TIMES}
    if batch > 1:
        found["flow_shuffled"] = error(condition.roll(1, 0), 0.0)
    how = flow.sampling
    try:
        samples = []
        for seed in range(SAMPLES):
            flow.choose(replace(how, seed=seed))
            samples.append(flow.normalised(flow.sample(condition)))
    finally:
        flow.choose(how)
    made = torch.stack(samples)  # [samples, batch, frames, dim]
    one = ((made - target).square() * weight).mean()
    found["flow_spread"] = float(one / ((made.mean(0) - target).square() * weight).mean())
    found["flow_deviation"] = float((made[0].flatten(0, 1).std(0) / target.flatten(0, 1).std(0).clamp(min=1e-3)).mean())
    return found


def crops(codec: ALMTokenizer, clips: list[Clip]) -> Tensor | None:
    """The first whole windows of ``SECONDS`` of the first ``CROPS`` clips that have so many, ``[batch, samples]``."""
    samples = int(SECONDS * codec.sample_rate) // codec.samples_per_frame * codec.samples_per_frame
    found: list[Tensor] = []
    for clip in clips:
        try:
            wav = read_audio(clip.path, codec.sample_rate)
        except AudioError:
            continue  # the validation names it
        if len(wav) >= samples:
            found.append(torch.from_numpy(wav[:samples]))
        if len(found) == CROPS:
            break
    return torch.stack(found).to(codec.device) if found else None
