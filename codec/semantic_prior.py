"""Fit the frozen centres of the first codebook: python codec/semantic_prior.py [key=value ...]

k-means over features of audio encoders (paper section 3: wav2vec 2.0 for speech, BEATs for the rest), or, with nothing
to download, over the frames of a stage-1 run. Writes one safetensors file for ``semantic_centres=FILE`` of
codec/train.py and prints the two codec keys that go with it.

A source is ``{encoder: PATH, layer: N, count: N, domains: [...]}``. PATH is any transformers audio encoder that takes
waveforms or its own features (a local folder or a hub id), or a checkpoint folder of a stage-1 run
(runs/NAME/checkpoints/step_NNNNNNN, its MAE encoder is used), or a codec's final/ folder (its patchify). Which layer
and how many centres each source gets is not stated in the paper.

Features of different encoders live on different scales: each source is standardised per dimension and L2-normalised,
and has coordinates of its own in the joint centres (zeros elsewhere), so the trainable map treats them apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from codec.corpus import AudioError, Clip, read_audio, read_corpus
from codec.model import ALMTokenizer
from codec.objectives import MaskedAutoencoder
from codec.quantizer import kmeans, nearest
from training.checkpoint import latest_checkpoint
from training.config import ConfigError, hydra_entry
from training.progress import progress


class StreamingKMeans:
    """Mini-batch k-means (Sculley, 2010) in bounded memory.

    The first ``start_after`` points give starting centres by Lloyd's algorithm; every later point pulls its centre
    with weight one over the points that centre has seen.
    """

    def __init__(self, size: int, start_after: int, generator: torch.Generator) -> None:
        self.size, self.start_after, self.generator = size, max(start_after, size), generator
        self.waiting: list[Tensor] = []
        self.means: Tensor | None = None
        self.counts = torch.zeros(size)

    def add(self, points: Tensor) -> None:
        """Take in ``points [n, dim]``."""
        if self.means is None:
            self.waiting.append(points)
            if sum(map(len, self.waiting)) >= self.start_after:
                self._start()
            return
        index = nearest(points, self.means)
        counts = torch.bincount(index, minlength=self.size).float()
        sums = torch.zeros_like(self.means).index_add_(0, index, points)
        self.counts += counts
        self.means += (sums - counts[:, None] * self.means) / self.counts.clamp(min=1)[:, None]

    def _start(self) -> None:
        points = torch.cat(self.waiting)
        self.waiting = []
        self.means = kmeans(points, self.size, 20, self.generator)
        self.counts = torch.bincount(nearest(points, self.means), minlength=self.size).float()

    def centres(self) -> Tensor:
        """``[size, dim]``.

        Raises:
            ValueError: fewer points than centres were seen.
        """
        if self.means is None:
            self._start()
        assert self.means is not None
        return self.means


def codec_features(folder: Path) -> tuple[Callable[[Tensor], Tensor], int]:
    """Frames of a codec, through the MAE encoder where the folder holds one (a training checkpoint)."""
    codec = ALMTokenizer.from_pretrained(folder).eval()
    c = codec.config
    mae: MaskedAutoencoder | None = None
    if (folder / "objectives.safetensors").is_file():
        state = load_file(folder / "objectives.safetensors")
        state = {k.removeprefix("mae."): v for k, v in state.items() if k.startswith("mae.")}
        depth = {part: len({k.split(".")[2] for k in state if k.startswith(f"{part}.blocks.")}) for part in PARTS}
        if state:
            mae = MaskedAutoencoder(c.encoder_dim, depth["encoder"], depth["decoder"], c.head_dim, c.span).eval()
            mae.load_state_dict(state)

    def features(wav: Tensor) -> Tensor:
        frames = codec.patchify(wav[None, : len(wav) // c.hop * c.hop])
        return (frames if mae is None else mae.features(frames))[0]

    return features, c.sample_rate


PARTS = ("encoder", "decoder")


def encoder_features(path: str, layer: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """Hidden states of ``layer`` (0: the input of the first block) of a transformers audio encoder."""
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(path)
    model = AutoModel.from_pretrained(path).eval()

    def features(wav: Tensor) -> Tensor:
        inputs = extractor(wav.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
        hidden = model(**inputs, output_hidden_states=True).hidden_states
        if layer >= len(hidden):
            raise ConfigError(f"layer={layer}: '{path}' has layers 0 to {len(hidden) - 1}.")
        return hidden[layer].flatten(0, -2)

    return features, int(extractor.sampling_rate)


@torch.inference_mode()
def feature_stream(
    clips: list[Clip], features: Callable[[Tensor], Tensor], rate: int, seconds: float, hours: float, label: str
) -> Iterator[Tensor]:
    """Features ``[n, dim]`` of pieces of at most ``seconds`` of the clips, until ``hours`` of audio were read."""
    left = int(hours * 3600 * rate)
    for clip in progress(clips, len(clips), label):
        try:
            wav = read_audio(clip.path, rate)
        except AudioError as error:
            print(f"skipped: {error}", flush=True)
            continue
        size = int(seconds * rate)
        for start in range(0, min(len(wav), left), size):
            piece = wav[start : start + size]
            if len(piece) >= rate // 4:  # an encoder's convolutions need a few frames
                yield features(torch.from_numpy(np.ascontiguousarray(piece))).float().clone()
        left -= len(wav)
        if left <= 0:
            return


def fit_source(source: DictConfig, clips: list[Clip], cfg: DictConfig, number: int) -> Tensor:
    """Centres ``[count, dim]`` of one source, normalised; a run of codec/train.py stands for its newest checkpoint."""
    folder = Path(source.encoder)
    if (folder / "checkpoints").is_dir():
        newest = latest_checkpoint(folder)
        if newest is None:
            raise ConfigError(f"{folder} has no finished checkpoint: let codec/train.py write one first.")
        folder = newest
    description = folder / "config.json"
    if description.is_file() and json.loads(description.read_text()).get("model_type") == "almtokenizer":
        features, rate = codec_features(folder)
    else:
        features, rate = encoder_features(source.encoder, source.layer)
    chosen = [clip for clip in clips if clip.domain in source.domains]
    if not chosen:
        raise ConfigError(f"no training clip has a domain of {list(source.domains)} (source {source.encoder}).")
    order = np.random.default_rng([cfg.seed, number]).permutation(len(chosen))
    chosen = [chosen[int(i)] for i in order]
    # scale first, from a part of the audio; then the clusters
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for x in feature_stream(chosen, features, rate, cfg.piece_seconds, cfg.scale_hours, "scale"):
        count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=1e-8).sqrt()
    clusters = StreamingKMeans(source.count, 20 * source.count, torch.Generator().manual_seed(cfg.seed + number))
    for x in feature_stream(chosen, features, rate, cfg.piece_seconds, cfg.hours, "centres"):
        clusters.add(F.normalize((x - mean) / deviation, dim=1))
    return F.normalize(clusters.centres(), dim=1)


def join_sources(centres: list[Tensor]) -> Tensor:
    """Centres of several sources below each other, each in coordinates of its own: block diagonal."""
    return torch.block_diag(*centres)


@hydra_entry("codec_semantic_prior")
def main(cfg: DictConfig) -> None:
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    clips = [clip for root in [cfg.data.root, *cfg.corpora] for clip in read_corpus(root)[0] if clip.split == "train"]
    if not cfg.sources:
        raise ConfigError(
            "sources=[] names no encoder: sources='[{encoder: PATH, layer: 6, count: 2048, domains: [speech]}]'."
        )
    joint = join_sources([fit_source(source, clips, cfg, i) for i, source in enumerate(cfg.sources)])
    out = Path(cfg.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"centres": joint.contiguous()}, out)
    print(f"{out}: train with semantic_centres={out} codec.semantic_dim={joint.shape[1]} and {len(joint)} codes first.")


if __name__ == "__main__":
    main()
