"""Before a flow decoder is trained: how good its target can be (a flow never exceeds its target's own resynthesis).

The true target of held-out clips is rendered and scored beside what the codec makes of their codes today.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from codec.corpus import Clip
from codec.model import ALMTokenizer
from codec.recipe.validation import validate
from training.config import ConfigError

CLEARLY = 0.8  # a ceiling's mel distance is at most this share of today's


def resynthesis(codec: ALMTokenizer, wav: Tensor) -> Tensor:
    """``wav [1, samples]`` through its true target, and its codes where a target needs what the codec makes of them."""
    assert codec.flow is not None
    padded = torch.nn.functional.pad(wav, (0, -wav.shape[1] % codec.samples_per_frame)).to(codec.device)
    latents = codec.quantizer(codec.encode_latents(padded, codec.window)).latents
    frames, _ = codec.decoder_frames(latents, codec.window)
    values = codec.flow.target.measure(padded)
    return codec.flow.target.render(values, frames, codec.unpatchify).wav[:, : wav.shape[1]].to(wav.device)


def without_flow(codec: ALMTokenizer, wav: Tensor) -> Tensor:
    """``wav [1, samples]`` through the codes and the decoder that was there before."""
    with codec.without_flow():
        return codec.decode(codec.encode(wav)).to(wav.device)


@torch.inference_mode()
def check_ceiling(
    codec: ALMTokenizer, clips: list[Clip], folder: Path, say: Callable[[str], object]
) -> dict[str, float]:
    """Score the target on ``clips``, by domain, and refuse a poor one.

    Args:
        folder: receives a few wav files of each domain.

    Returns:
        ``ceiling_<domain>_<score>`` and ``today_<domain>_<score>``.

    Raises:
        ConfigError: its mel distance is not clearly lower than that of today's decoder.
    """
    found: dict[str, float] = {}
    for domain in sorted({clip.domain for clip in clips}):
        chosen = [clip for clip in clips if clip.domain == domain]
        for name, way in (("ceiling", resynthesis), ("today", without_flow)):
            kept = folder / f"{name}-{domain}"
            scores = validate(codec, chosen, kept, pictures=1, reconstruct=lambda wav, way=way: way(codec, wav))
            found |= {f"{name}_{domain}_{key}": value for key, value in scores.items()}
    shown = " ".join(f"{key} {value:.3f}" for key, value in found.items() if key.endswith(("_mel", "_stoi")))
    say(f"gate 0, the true target rendered beside today's decoder: {shown}")
    ceiling, today = (
        sum(value for key, value in found.items() if key.startswith(name) and key.endswith("_mel"))
        for name in ("ceiling", "today")
    )
    if not ceiling <= CLEARLY * today:
        raise ConfigError(
            f"flow.target={codec.config.flow['target']}: its own resynthesis has {ceiling / today:.2f} of the mel "
            f"distance of today's decoder, and a flow cannot do better: choose a target with at most {CLEARLY}."
        )
    return found
