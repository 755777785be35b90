"""Which of a corpus' classes does a clip hold? A small network trained on the corpus' own recordings answers offline.

    judge = CorpusClassifier.for_corpus(clips, domain="sound", key="classes", cache_folder=Path("runs/cache"))
    judge.posterior(wav, sample_rate)           # [classes], sums to 1
    judge.classes                               # ["alarm", "bell", ...]

It is ours, sees nothing but the train split's real recordings (never what a codec or a model made), and is trained on
first use: about a minute for a few hundred clips on one CPU thread. The weights are kept under a hash of recordings,
labels and recipe, so the same corpus has the same judge. Its accuracy on recordings that it has not seen stands in
every result; accuracies of different judges are not comparable, and no published number is made with this one.

Power spectrograms in 64 mel bands, divided by the clip's mean power and compressed by a logarithm, go through four
strided convolutions; mean and maximum over time feed a linear layer. Training mixes clips (a second one 5 to 11 dB
below the first, whose class counts), filters them, adds noise, cuts holes, and hears half of the clips as through a
noise vocoder (Shannon et al., Science 270, 1995): noise in bands under the clip's own envelopes, in which people still
tell sounds apart. Without it the judge leans on clean partials, and calls a flute that has some breath a guitar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from codec.audio.mel import mel_filters
from codec.corpus import AudioError, Clip, read_audio
from eval.embedders.clap import windows
from eval.harness.audio import RESAMPLER, CannotScore, Wave, check_wave, resample
from eval.harness.networks import weights_hash
from eval.harness.provenance import record_hash
from training.checkpoint import save_folder
from training.identity import file_hash
from training.lock import holding
from training.progress import progress

KEYS = ("classes", "class", "instrument", "label", "category")  # metadata columns that name classes, first come
RATE, N_FFT, HOP, BANDS = 24_000, 1024, 480, 64
LONGEST, STEP = 8.0, 4.0  # s: longer clips are the mean over windows
SHORTEST = 0.1  # s
FLOOR = 1e-6  # of the clip's mean power


class ClassifierError(ValueError):
    """A corpus that cannot train a classifier, with the cure."""


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained; part of the name of its weights."""

    steps: int = 800
    batch_size: int = 24
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    crop_seconds: float = 4.0
    mixed: float = 0.6  # share of training clips that get a background of another class
    background_db: tuple[float, float] = (5.0, 11.0)  # below the foreground
    equaliser_db: float = 3.0  # standard deviation of a smooth random filter
    noise_db: tuple[float, float] = (15.0, 50.0)  # below the clip, for half of the clips
    vocoded: float = 0.5  # share of training clips heard as through a noise vocoder
    vocoder_shape: tuple[float, float] = (1.0, 6.0)  # of its noise power in a cell (gamma): 1 is a single bin's
    width: int = 16
    seed: int = 0
    version: int = 2


def classes_of(clip: Clip, key: str) -> list[str]:
    """The classes of a clip, the foreground first; a plain value counts as one class."""
    value = getattr(clip, key, None) if key in ("speaker", "domain") else clip.extra.get(key)
    if value is None or value == "":
        return []
    return [str(entry) for entry in value] if isinstance(value, (list, tuple)) else [str(value)]


def find_key(clips: Sequence[Clip], domain: str) -> str | None:
    """The first of ``KEYS`` that a train clip of the domain has."""
    trained = [clip for clip in clips if clip.domain == domain and clip.split == "train"]
    return next((key for key in KEYS if any(classes_of(clip, key) for clip in trained)), None)


def mel_power(wav: Wave) -> Tensor:
    """``[bands, frames]`` power of ``wav [samples]`` at 24 kHz, 50 frames per second."""
    padded = functional.pad(torch.from_numpy(np.ascontiguousarray(wav, np.float32)), (N_FFT // 2, N_FFT // 2))
    spectrum = torch.stft(padded, N_FFT, HOP, window=torch.hann_window(N_FFT), center=False, return_complex=True)
    return torch.from_numpy(mel_filters(RATE, N_FFT, BANDS)) @ (spectrum.real.square() + spectrum.imag.square())


def active_power(wav: Wave) -> float:
    """Mean power of the louder half of the 20 ms frames within 30 dB of the loudest: how loud a sound is while it
    sounds, so that sparse events and steady noise are mixed alike.
    """
    frames = wav[: len(wav) // HOP * HOP].reshape(-1, HOP) if len(wav) >= HOP else wav[None]
    power = np.sort(np.square(frames).mean(1))
    loud = power[power > power[-1] * 1e-3]
    return float(loud[len(loud) // 2 :].mean()) if len(loud) else 0.0


def compress(power: Tensor) -> Tensor:
    """Log of power ``[batch, bands, frames]`` relative to each clip's mean; silence becomes a constant."""
    relative = power / power.mean((1, 2), keepdim=True).clamp(min=1e-12)
    return torch.log10(relative + FLOOR) + 2.0


class ClassNetwork(nn.Module):
    """``[batch, bands, frames]`` of compressed power → ``[batch, classes]`` logits."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        sizes = [1, width, 2 * width, 4 * width, 4 * width]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.convolutions = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairs])
        self.norms = nn.ModuleList([nn.BatchNorm2d(size) for size in sizes[1:]])
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * sizes[-1] * (BANDS // 16), classes)

    def forward(self, features: Tensor) -> Tensor:
        hidden = features[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = functional.relu(norm(convolution(hidden)))
        hidden = hidden.flatten(1, 2)  # [batch, channels × bands, frames]
        return self.head(self.dropout(torch.cat([hidden.mean(-1), hidden.amax(-1)], 1)))


def _crop(power: Tensor, frames: int, generator: np.random.Generator) -> Tensor:
    """A random stretch of ``[bands, frames']``; a shorter clip is repeated."""
    if power.shape[1] < frames:
        power = power.repeat(1, math.ceil(frames / power.shape[1]))
    start = int(generator.integers(0, power.shape[1] - frames + 1))
    return power[:, start : start + frames]


def _noise_vocode(power: Tensor, recipe: Recipe, generator: np.random.Generator) -> Tensor:
    """``[bands, frames]`` of what a noise vocoder makes of a clip: envelopes averaged over 1, 3 or 5 bands and frames,
    each cell times a random power of mean 1.
    """
    bands, frames = (int(generator.integers(0, 3)) for _ in range(2))
    padded = functional.pad(power[None, None], (frames, frames, bands, bands), mode="replicate")
    envelope = functional.avg_pool2d(padded, (2 * bands + 1, 2 * frames + 1), 1)[0, 0]
    low, high = recipe.vocoder_shape
    shape = math.exp(generator.uniform(math.log(low), math.log(high)))
    return envelope * torch.from_numpy(generator.gamma(shape, 1 / shape, size=tuple(power.shape))).float()


def _distort(power: Tensor, recipe: Recipe, generator: np.random.Generator) -> Tensor:
    """Perhaps a noise vocoder, another filter and another noise on ``[bands, frames]``."""
    if generator.random() < recipe.vocoded:
        power = _noise_vocode(power, recipe, generator)
    nodes = generator.normal(0, recipe.equaliser_db, 6)
    gain = np.interp(np.linspace(0, 5, BANDS), np.arange(6), nodes)
    power = power * torch.from_numpy(10 ** (gain / 10)).float()[:, None]
    if generator.random() < 0.5:
        level = 10 ** (-generator.uniform(*recipe.noise_db) / 10) * power.mean()
        power = power + level * torch.from_numpy(generator.exponential(size=tuple(power.shape))).float()
    return power


def _cut_holes(features: Tensor, generator: np.random.Generator) -> Tensor:
    """Half of the batch ``[batch, bands, frames]`` loses a few bands and a stretch of time."""
    for clip in features:
        if generator.random() < 0.5:
            band, start = int(generator.integers(0, BANDS - 8)), int(generator.integers(0, features.shape[2]))
            clip[band : band + int(generator.integers(1, 8))] = 0.0
            clip[:, start : start + int(generator.integers(1, max(2, features.shape[2] // 8)))] = 0.0
    return features


def train_network(powers: Sequence[Tensor], labels: Sequence[Sequence[int]], classes: int, recipe: Recipe) -> Any:
    """Train on ``[bands, frames]`` per clip, of equal loudness, and their classes, the foreground first.

    One thread and an own random state: neither what ran before nor the number of threads change the weights.
    """
    generator = np.random.default_rng(recipe.seed)
    frames = max(16, int(recipe.crop_seconds * RATE / HOP))
    alone = [place for place, found in enumerate(labels) if len(found) == 1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = ClassNetwork(classes, recipe.width).train()
            optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
            )
            for _ in progress(range(recipe.steps), desc="corpus classifier"):
                batch, wanted = [], []
                for _ in range(recipe.batch_size):
                    place = int(generator.integers(len(powers)))
                    mixes = bool(alone) and generator.random() < recipe.mixed
                    if mixes:
                        place = alone[int(generator.integers(len(alone)))]
                    power = _crop(powers[place], frames, generator)
                    if mixes:
                        other = alone[int(generator.integers(len(alone)))]
                        if labels[other][0] != labels[place][0]:
                            level = 10 ** (-generator.uniform(*recipe.background_db) / 10)
                            power = power + level * _crop(powers[other], frames, generator)
                    batch.append(_distort(power, recipe, generator))
                    wanted.append(labels[place][0])
                features = _cut_holes(compress(torch.stack(batch)), generator)
                loss = functional.cross_entropy(network(features), torch.tensor(wanted))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return network.eval()


class CorpusClassifier:
    """The judge. Use ``for_corpus``.

    Args:
        record: what ``how`` says: classes, recipe, hashes, accuracy on the valid split.
    """

    name = "corpus-classifier"

    def __init__(self, network: ClassNetwork, record: dict[str, Any]) -> None:
        self.network, self.record = network.eval(), record
        self.classes: list[str] = record["classes"]

    @classmethod
    def for_corpus(
        cls,
        clips: Sequence[Clip],
        domain: str,
        key: str | None = None,
        cache_folder: Path | None = None,
        recipe: Recipe | None = None,
    ) -> CorpusClassifier:
        """The classifier of the train clips of ``domain``, from the cache or trained now.

        Args:
            key: metadata column with the class or classes; None takes the first of ``KEYS`` that there is.
            cache_folder: None trains anew.

        Raises:
            ClassifierError: no labels, or fewer than two classes.
        """
        recipe = recipe or Recipe()
        key = key or find_key(clips, domain)
        if key is None:
            raise ClassifierError(f"no {domain} clip of the train split has {', '.join(KEYS)} in its metadata")
        train, valid = (
            [c for c in clips if c.domain == domain and c.split == split and classes_of(c, key) and c.path.is_file()]
            for split in ("train", "valid")
        )
        classes = sorted({classes_of(clip, key)[0] for clip in train})
        if len(classes) < 2:
            raise ClassifierError(f"the {domain} clips of the train split have {len(classes)} classes in '{key}'")
        asked = {
            "domain": domain, "key": key, "recipe": asdict(recipe), "resampler": RESAMPLER,
            "train": [[file_hash(clip.path), classes_of(clip, key)] for clip in train],
        }  # fmt: skip
        folder = cache_folder / f"{cls.name}-{record_hash(asked)[:16]}" if cache_folder is not None else None
        if folder is not None and (folder / "model.safetensors").is_file():
            return cls.load(folder)
        index = {name: number for number, name in enumerate(classes)}
        powers, labels, unread = [], [], 0
        for clip in progress(train, desc=f"reading {len(train)} {domain} clips"):
            try:
                wav = read_audio(clip.path, RATE)
                powers.append(mel_power(wav) / max(active_power(wav), 1e-12))
                labels.append([index[name] for name in classes_of(clip, key) if name in index])
            except AudioError:
                unread += 1
        if not powers:
            raise ClassifierError(f"no {domain} clip of the train split can be read")
        network = train_network(powers, labels, len(classes), recipe)
        record: dict[str, Any] = {
            "judge": f"{cls.name} (ours, offline, trained on the corpus' own recordings)",
            "classes": classes,
            "key": key,
            "train_clips": len(powers),
            "train_clips_unread": unread,
            "trained_on_sha256": record_hash(asked["train"]),
            "recipe": json.loads(json.dumps(asdict(recipe))),  # as it is read again
            "weights_sha256": weights_hash(network),
        }
        judge = cls(network, record)
        hits = []
        for clip in valid:
            try:
                guess = judge.classify(read_audio(clip.path, RATE), RATE)[0]
                hits.append(guess == classes_of(clip, key)[0])
            except (AudioError, CannotScore):
                continue
        record |= {"valid_clips": len(hits), "valid_accuracy": float(np.mean(hits)) if hits else None}
        if folder is not None:
            with holding(folder, wait=True, replaced=True):  # another evaluation may have trained it, too
                save_folder(folder, judge._write)
        return judge

    def _write(self, folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> CorpusClassifier:
        """A classifier that ``for_corpus`` kept.

        Raises:
            ClassifierError: its files were changed.
        """
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        network = ClassNetwork(len(record["classes"]), record["recipe"]["width"])
        network.load_state_dict(load_file(str(folder / "model.safetensors")))
        if weights_hash(network) != record["weights_sha256"]:
            raise ClassifierError(f"the weights in {folder} are not those that were trained; delete the folder")
        return cls(network, record)

    @torch.inference_mode()
    def posterior(self, wav: Wave, sample_rate: int) -> NDArray[np.float64]:
        """``[classes]``, sums to 1; more than 8 s are the mean over windows of 8 s every 4 s.

        Raises:
            CannotScore: no audio, NaN, or shorter than 0.1 s.
        """
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, RATE)
        found = [
            self.network(compress(mel_power(window)[None]))[0].double().softmax(0)
            for window in windows(samples, int(LONGEST * RATE), int(STEP * RATE))
        ]
        return torch.stack(found).mean(0).numpy()

    def classify(self, wav: Wave, sample_rate: int) -> tuple[str, float]:
        """The most probable class and its probability."""
        posterior = self.posterior(wav, sample_rate)
        best = int(posterior.argmax())
        return self.classes[best], float(posterior[best])

    def how(self) -> dict[str, Any]:
        """What a result records about this judge; equal records mean equal answers."""
        return self.record | {
            "sample_rate": RATE,
            "windows": f"fixed, {LONGEST:g} s every {STEP:g} s; mean of posteriors",
            "resampler": RESAMPLER,
        }
