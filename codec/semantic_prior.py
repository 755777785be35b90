"""Fit the frozen centres of the first codebook: python codec/semantic_prior.py [key=value ...]

k-means over features of audio encoders (paper section 3: wav2vec 2.0 for speech, BEATs for the rest), or, with nothing
to download, over the frames of a stage-1 run. Writes one safetensors file for ``semantic_centres=FILE`` of
codec/train.py and prints the two codec keys that go with it.

A source is ``{encoder: PATH, layer: N, count: N, domains: [...]}``. PATH is a transformers audio encoder (a folder or a
hub id; codec/network/audio_encoders.py says which), or a checkpoint folder of a stage-1 run
(runs/NAME/checkpoints/step_NNNNNNN, its MAE encoder is used), or a codec's final/ folder (its patchify). Which layer
and how many centres each source gets is not stated in the paper. ``trust_remote_code: true`` in a source runs the
Python code that an encoder brings.

Features of different encoders live on different scales: each source is standardised per dimension and L2-normalised,
and has coordinates of its own in the joint centres (zeros elsewhere), so the trainable map treats them apart.

``map_to=FOLDER`` of a trained codec also fits the map itself, so that a centre starts where that codec's latents of the
same sounds are (ours; without it only the spread is matched).
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save
from torch import Tensor

from codec.corpus import AudioError, Clip, CorpusError, left_out, read_audio, read_usable_corpus
from codec.interface import TokenizerError
from codec.load import load_codec
from codec.model import ALMTokenizer
from codec.network.audio_encoders import load_encoder
from codec.network.quantizer import kmeans, nearest
from training.checkpoint import latest_checkpoint, write_file
from training.config import ConfigError, hydra_entry, refusing
from training.launch import pick_device
from training.lock import hold
from training.progress import progress
from training.schema import Option, shown


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


class Source:
    """One encoder and the training clips it listens to; a run of codec/train.py stands for its newest checkpoint.

    Args:
        source: an entry of ``sources``.
        clips: training clips; those of the source's domains are used.
        number: place in ``sources``, which with ``cfg.seed`` decides the order of the clips.

    Attributes:
        device: where the encoder runs; its features come back to the CPU, where the clusters are.
        mean, deviation: ``[dim]`` of its features, known after `fit`.
    """

    def __init__(self, source: DictConfig, clips: list[Clip], cfg: DictConfig, number: int) -> None:
        folder = Path(source.encoder)
        if (folder / "checkpoints").is_dir():
            newest = latest_checkpoint(folder)
            if newest is None:
                raise ConfigError(f"{folder} has no finished checkpoint: let codec/train.py write one first.")
            folder = newest
        self.device = torch.device(pick_device(cfg.device))
        remote = source.get("trust_remote_code", False)
        self.encoder = load_encoder(str(folder), source.layer, self.device, remote)
        self.rate = self.encoder.rate
        chosen = [clip for clip in clips if clip.domain in source.domains]
        if not chosen:
            raise ConfigError(f"no training clip has a domain of {list(source.domains)} (source {source.encoder}).")
        order = np.random.default_rng([cfg.seed, number]).permutation(len(chosen))
        self.clips = [chosen[int(i)] for i in order]
        self.name = source.encoder
        self.count, self.cfg, self.seed = source.count, cfg, cfg.seed + number
        self.mean = self.deviation = torch.zeros(())

    def features(self, wav: Tensor, windows: int | None = None) -> Tensor:
        """Features of ``wav [samples]`` as the encoder makes them, or their averages over ``windows`` equal parts."""
        return self.encoder.features(wav) if windows is None else self.encoder.averages(wav, windows)

    def normalised(self, features: Tensor) -> Tensor:
        """Standardised per dimension, then L2-normalised: ``[n, dim]``."""
        return F.normalize((features - self.mean) / self.deviation, dim=1)

    @torch.inference_mode()
    def stream(self, hours: float, label: str) -> Iterator[Tensor]:
        """Features ``[n, dim]`` of pieces of the clips, until ``hours`` of audio were read."""
        seconds = float(self.cfg.window_seconds)
        for (wav,) in pieces(self.clips, [self.rate], self.cfg.piece_seconds, hours, label):
            windows = max(1, round(len(wav) / self.rate / seconds)) if seconds else None
            yield self.features(wav, windows).clone()

    def fit(self) -> Tensor:
        """Centres ``[count, dim]``, normalised: scale first, from a part of the audio; then the clusters."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for x in self.stream(self.cfg.scale_hours, "scale"):
            count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
        if not count:
            raise ConfigError(f"no clip of source {self.name} can be read: nothing to fit centres to.")
        self.mean = total / count
        self.deviation = (squares / count - self.mean.square()).clamp(min=1e-8).sqrt()
        clusters = StreamingKMeans(self.count, 20 * self.count, torch.Generator().manual_seed(self.seed))
        for x in self.stream(self.cfg.hours, "centres"):
            clusters.add(self.normalised(x))
        return F.normalize(clusters.centres(), dim=1)


def pieces(
    clips: list[Clip], rates: list[int], seconds: float, hours: float, label: str
) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of at most ``seconds`` of the clips, each at all of ``rates``, until ``hours`` of audio were read."""
    left = hours * 3600
    for clip in progress(clips, len(clips), label):
        try:
            wavs = [torch.from_numpy(np.ascontiguousarray(read_audio(clip.path, rate))) for rate in rates]
        except AudioError as error:
            print(f"skipped: {error}", flush=True)
            continue
        length = len(wavs[0]) / rates[0]
        for number in range(math.ceil(min(length, left) / seconds)):
            cuts = [(int(number * seconds * rate), int((number + 1) * seconds * rate)) for rate in rates]
            part = [wav[start:end] for wav, (start, end) in zip(wavs, cuts, strict=True)]
            if len(part[0]) >= rates[0] // 4:  # an encoder's convolutions need a few frames
                yield tuple(part)
        left -= length
        if left <= 0:
            return


@torch.inference_mode()
def fit_map(sources: list[Source], centres: list[Tensor], codec: ALMTokenizer, hours: float) -> dict[str, Tensor]:
    """The affine map from the joint centres to the latents of ``codec``, by least squares.

    Every window of audio is a pair: the centre closest to its features, and its latent. Without such a map the codebook
    starts with centres and latents that have the same spread, and which centre stands for which sound is accidental.

    Args:
        centres: of each source, as `Source.fit` returned them.
        hours: audio per source.

    Returns:
        ``weight [code_dim, dim]``, ``bias [code_dim]``, and ``explained``: the share of the latents' variance.
    """
    device = codec.device
    window, rate = codec.window * codec.config.hop, codec.config.sample_rate
    joint = join_sources(centres).double()
    size = joint.shape[1] + 1  # the last coordinate is the bias
    products, targets = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 1, dtype=torch.float64)
    squares, total, seen, first = 0.0, torch.zeros(()), 0, 0
    for source, own in zip(sources, centres, strict=True):
        seconds = source.cfg.piece_seconds // (window / rate) * (window / rate)
        for ours, theirs in pieces(source.clips, [rate, source.rate], seconds, hours, "map"):
            if len(ours) < window:
                continue
            whole = len(ours) // window * window
            latents = codec.encode_latents(ours[None, :whole].to(device), codec.window)
            latents = codec.quantizer(latents, bypass=True).inputs[0].cpu().double()  # in code space
            heard = theirs[: round(whole / rate * source.rate)]
            index = nearest(source.normalised(source.features(heard, len(latents))), own)
            known = F.pad(joint[first + index], (0, 1), value=1.0)
            products = products + known.T @ known
            targets = targets + known.T @ latents
            squares, total, seen = squares + float(latents.square().sum()), total + latents.sum(0), seen + len(latents)
        first += len(own)
    # a little ridge: centres of a source that never spoke would leave directions undetermined
    found = torch.linalg.solve(products + 1e-4 * seen / size * torch.eye(size, dtype=torch.float64), targets)
    error = squares - float((2 * targets - products @ found).mul(found).sum())
    variance = squares - float(total.square().sum()) / seen
    weight, bias = found[:-1].T.float().contiguous(), found[-1].float().contiguous()
    return {"weight": weight, "bias": bias, "explained": torch.tensor(1 - error / variance)}


def join_sources(centres: list[Tensor]) -> Tensor:
    """Centres of several sources below each other, each in coordinates of its own: block diagonal."""
    return torch.block_diag(*centres)


def check_options(cfg: DictConfig) -> None:
    """Refuse options that cannot work, in one sentence, before an encoder is loaded."""
    form = "sources='[{encoder: PATH, layer: 6, count: 2048, domains: [speech]}]'"
    kinds = {
        "encoder": "str",
        "layer": "int, at least 0",
        "count": "int, at least 2",
        "domains": "list of str",
        "trust_remote_code": "bool",
    }
    if not cfg.sources:
        raise ConfigError(f"sources=[] names no encoder: {form}.")
    for number, source in enumerate(cfg.sources):
        if not OmegaConf.is_dict(source):
            raise ConfigError(f"source {number} is {shown(source)}: write {form}.")
        given = cast(dict[str, Any], OmegaConf.to_container(source, resolve=True))
        for key, kind in kinds.items():
            if key not in given and key != "trust_remote_code":
                raise ConfigError(f"source {number} has no {key}: write {form}.")
            if key in given and (fault := Option.said(kind).fault(given[key])):
                raise ConfigError(f"source {number}: {key}={shown(given[key])} {fault}.")
        if not isinstance(given["encoder"], str):
            raise ConfigError(f"source {number}: encoder={shown(given['encoder'])} must be a folder or a hub id.")
        if unknown := given.keys() - kinds.keys():
            raise ConfigError(
                f"source {number} has a key '{min(unknown, key=str)}', and its keys are {', '.join(kinds)}."
            )


@hydra_entry("codec_semantic_prior")
def main(cfg: DictConfig) -> None:
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    check_options(cfg)
    out = Path(cfg.out)
    hold(out, "out", is_file=True)
    clips: list[Clip] = []
    for root in [cfg.data.root, *cfg.corpora]:
        with refusing(CorpusError):
            found, rejects = read_usable_corpus(root)
        clips += [clip for clip in found if clip.split == "train"]
        if rejects:
            print(left_out(root, rejects), flush=True)
    codec = None
    if cfg.map_to:
        with refusing(TokenizerError):
            codec = load_codec(cfg.map_to).to(pick_device(cfg.device)).eval()  # its latents count, not its codes
    sources = [Source(source, clips, cfg, number) for number, source in enumerate(cfg.sources)]
    with refusing(ValueError):
        centres = [source.fit() for source in sources]
    joint = join_sources(centres)
    tensors = {"centres": joint.contiguous()}
    if codec is not None:
        tensors |= fit_map(sources, centres, codec, cfg.scale_hours)
        print(f"map to {cfg.map_to}: explains {float(tensors['explained']):.1%} of its latents' variance", flush=True)
    listened = [
        {"encoder": source.name, "layer": given.layer, "count": source.count, "revision": source.encoder.revision}
        for source, given in zip(sources, cfg.sources, strict=True)
    ]
    write_file(out, save(tensors, metadata={"sources": json.dumps(listened)}))
    print(f"{out}: train with semantic_centres={out} codec.semantic_dim={joint.shape[1]} and {len(joint)} codes first.")


if __name__ == "__main__":
    main()
