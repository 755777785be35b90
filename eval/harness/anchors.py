"""What bounds the scores of a reconstruction: rows that no codec should beat, or be beaten by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from codec.model import ALMTokenizer
from codec.recipe.ceiling import resynthesis as through_target
from eval.harness.audio import Wave, resample
from eval.harness.clips import heard_at
from eval.harness.coding import decode_clips
from eval.harness.scored import ScoredClip

ANCHORS = ("silence", "shuffled", "reference-at-codec-rate")


def anchors(clips: list[ScoredClip], outputs: list[ScoredClip], rate: int) -> dict[str, list[ScoredClip]]:
    """What bounds the paired metrics: silence, another clip's resynthesis, and the reference at the codec's rate.

    Another clip is repeated or cut to the reference's length. The last row exists only where the codec's ``rate`` is
    below a file's: nothing that the codec does can be better.
    """
    found: dict[str, list[ScoredClip]] = {"silence": [], "shuffled": []}
    heard = [
        i
        for i, (clip, output) in enumerate(zip(clips, outputs, strict=True))
        if clip.wav is not None and output.wav is not None
    ]
    for place, i in enumerate(heard):
        clip, other = clips[i], outputs[heard[(place + 1) % len(heard)]]
        assert clip.wav is not None and other.wav is not None
        length = round(len(clip.wav) * other.rate / clip.rate)
        pairs = {"silence": np.zeros(length, np.float32), "shuffled": np.resize(other.wav, length)}
        if len(heard) < 2:
            del pairs["shuffled"]
        if rate < clip.rate:
            pairs["reference-at-codec-rate"] = resample(clip.wav, clip.rate, rate)
        for row, wav in pairs.items():
            found.setdefault(row, []).append(ScoredClip(clip.id, row, clip.text, wav, other.rate))
    return {row: made for row, made in found.items() if made}


def bounds_of_flow(
    codec: ALMTokenizer, references: list[ScoredClip], outputs: list[ScoredClip], codes: Mapping[str, NDArray[np.int64]]
) -> dict[str, list[ScoredClip]]:
    """What a flow decoder makes of codes that say nothing, and of its true target.

    ``random-codes``: the frames of all clips, each level shuffled by itself, so that only how often a code occurs is
    kept; a decoder that sounds as good with them ignores its codes. ``true-target``: what the flow samples, measured on
    the recording and rendered: its ceiling (gate 0 of the training).

    Args:
        codes: by id, ``[frames, levels]`` of the clips that were coded.
    """
    everything, rng = np.concatenate(list(codes.values())), np.random.default_rng(0)
    mixed = np.stack([rng.permutation(level) for level in everything.T], axis=1)
    edges = np.cumsum([len(part) for part in codes.values()])[:-1]
    random = dict(zip(codes, decode_clips(codec, np.split(mixed, edges)), strict=True))
    waves, made = heard_at(references, codec.sample_rate), {"random-codes": random}
    with torch.inference_mode():
        made["true-target"] = {
            name: through_target(codec, torch.from_numpy(wav)[None])[0].cpu().numpy() for name, wav in waves.items()
        }
    return {
        row: [ScoredClip(clip.id, row, clip.text, _cut(found.get(clip.id), clip), clip.rate) for clip in outputs]
        for row, found in made.items()
    }


def _cut(wav: Wave | None, like: ScoredClip) -> Wave | None:
    return None if wav is None or like.wav is None else wav[: len(like.wav)]
