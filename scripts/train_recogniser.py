"""Trains the CTC recogniser that ships as checkpoints/ctc-mini.

    python scripts/train_recogniser.py corpus=runs/corpus-10h

It learns from the ground-truth audio of the corpus' train split, distorted by level, filters, noise and
reverberation (eval/augmentation.py), and never from the output of a codec. What it is measured on at the end
is the valid split, clean and distorted; the test split is not opened.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from codec.corpus import Clip, CorpusError, read_audio, read_corpus
from eval.augmentation import AugmentationConfig, augment
from eval.ctc import SAMPLE_RATE, CTCConfig, CTCRecogniser, text_to_ids
from eval.metrics.wer import ErrorRate, normalise_plain
from training.checkpoint import save_folder, write_file
from training.config import ConfigError, hydra_entry
from training.launch import pick_device
from training.lock import hold
from training.log import duration
from training.progress import progress

Example = tuple[NDArray[np.int16], str]  # waveform and normalised text


def load_split(clips: list[Clip], split: str, seconds: float, seed: int) -> list[Example]:
    """Clips of ``split`` in a random order until ``seconds`` of audio are read (0 = all), as int16 to save
    memory.
    """
    chosen = [clip for clip in clips if clip.split == split and clip.domain == "speech" and clip.text]
    order = np.random.default_rng([seed, 1]).permutation(len(chosen))
    found: list[Example] = []
    total = 0.0
    for index in progress(order.tolist(), desc=f"reading {split}"):
        if seconds and total >= seconds:
            break
        clip = chosen[index]
        wav = read_audio(clip.path, SAMPLE_RATE)
        found.append(((wav * 32767.0).astype(np.int16), normalise_plain(clip.text or "")))
        total += len(wav) / SAMPLE_RATE
    if not found:
        raise ConfigError(f"the corpus has no speech with text in its {split} split.")
    print(f"{split}: {len(found)} clips, {total / 3600:.2f} h", flush=True)
    return found


def collate(waves: list[NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad to ``[batch, samples]`` with lengths."""
    lengths = torch.tensor([len(wav) for wav in waves])
    out = torch.zeros(len(waves), int(lengths.max()))
    for row, wav in zip(out, waves, strict=True):
        row[: len(wav)] = torch.from_numpy(wav)
    return out, lengths


def batches(examples: list[Example], size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices; clips of like length share a batch, the order is a function of the seed."""
    lengths = np.array([len(wav) for wav, _ in examples], dtype=float)
    epoch = 0
    while True:
        generator = np.random.default_rng([seed, 2, epoch])
        order = np.argsort(lengths * generator.uniform(0.85, 1.15, len(lengths)))
        chunks = np.array_split(order, max(1, len(order) // size))
        for index in generator.permutation(len(chunks)):
            yield chunks[index]
        epoch += 1


def distorted(example: Example, generator: np.random.Generator, pool: list[Example]) -> NDArray[np.float32]:
    """A distorted version of a clip; another clip of the pool may talk behind it."""
    other = pool[int(generator.integers(len(pool)))][0].astype(np.float32) / 32768.0
    return augment(example[0].astype(np.float32) / 32768.0, SAMPLE_RATE, generator, other=other)


def error_rate(model: CTCRecogniser, waves: list[NDArray[np.float32]], texts: list[str], device: str) -> float:
    """Corpus word error rate."""
    metric = ErrorRate()
    for start in range(0, len(waves), 16):
        wav, lengths = collate(waves[start : start + 16])
        metric.update(model.transcribe(wav.to(device), lengths.to(device)), texts[start : start + 16])
    return float(metric.compute())


@hydra_entry("recogniser_train")
def main(cfg: DictConfig) -> None:
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = pick_device(cfg.device)
    torch.manual_seed(cfg.seed)
    start = time.monotonic()
    out = Path(cfg.out)
    hold(out, "out", replaced=True)

    try:
        clips, rejects = read_corpus(cfg.corpus)
    except CorpusError as error:
        raise ConfigError(f"corpus: {error}") from error
    print(f"{cfg.corpus}: {len(clips)} clips, {len(rejects)} rejected", flush=True)
    train = load_split(clips, "train", cfg.hours * 3600, cfg.seed)
    valid = load_split(clips, "valid", 0, cfg.seed)[: cfg.valid_clips]

    if cfg.init:
        model = CTCRecogniser.load(Path(cfg.init)).to(device).train()
    else:
        model = CTCRecogniser(CTCConfig(**cfg.model)).to(device).train()
    average = copy.deepcopy(model).eval()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}", flush=True)
    optimiser = torch.optim.AdamW(
        model.parameters(), cfg.learning_rate, betas=(0.9, 0.98), weight_decay=cfg.weight_decay
    )

    recent: list[float] = []
    curve: list[dict[str, float]] = []
    began = time.monotonic()
    for step, chosen in zip(range(1, cfg.steps + 1), batches(train, cfg.batch, cfg.seed), strict=False):
        warm, done = step / cfg.warmup_steps, step / cfg.steps
        rate = cfg.learning_rate * min(warm, 0.5 * (1.0 + math.cos(math.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        ease = max(0.0, 1.0 - step / max(1, cfg.clean_steps))  # an alignment is found sooner on clean speech
        generator = np.random.default_rng([cfg.seed, 3, step])
        waves = [
            train[i][0].astype(np.float32) / 32768.0
            if generator.random() < max(cfg.clean_share, ease)
            else distorted(train[i], generator, train)
            for i in chosen
        ]
        wav, lengths = collate(waves)
        labels = [text_to_ids(train[i][1]) for i in chosen]
        sizes = torch.tensor([len(ids) for ids in labels])
        scores, frames = model(wav.to(device), lengths.to(device), mel_noise=cfg.mel_noise * (1.0 - ease))
        targets = torch.tensor([i for ids in labels for i in ids])
        loss = (
            torch.nn.functional.ctc_loss(
                scores.float().transpose(0, 1).cpu(),
                targets,
                frames.cpu(),
                sizes,
                reduction="sum",
                zero_infinity=True,
            )
            / sizes.sum()
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip_norm)
        optimiser.step()
        with torch.no_grad():
            decay = min(cfg.average_decay, step / (step + 10))
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - decay)
        recent.append(loss.item())
        if step % cfg.log_every == 0 or step == cfg.steps:
            mean = sum(recent) / len(recent)
            recent.clear()
            elapsed = time.monotonic() - began
            curve.append({"step": step, "loss": round(mean, 4), "seconds": round(elapsed, 1)})
            left = duration(elapsed / step * (cfg.steps - step))
            print(f"step {step}/{cfg.steps}  loss/character {mean:.3f}  lr {rate:.1e}  left {left}", flush=True)

    generator = np.random.default_rng([cfg.seed, 4])
    texts = [text for _, text in valid]
    clean = [wav.astype(np.float32) / 32768.0 for wav, _ in valid]
    noisy = [distorted(example, generator, valid) for example in valid]
    report = {
        "corpus": {"name": Path(cfg.corpus).name, "train_clips": len(train), "valid_clips": len(valid)},
        "config": OmegaConf.to_container(cfg),
        "parameters": sum(p.numel() for p in model.parameters()),
        "wer_valid_clean": error_rate(average, clean, texts, device),
        "wer_valid_distorted": error_rate(average, noisy, texts, device),
        "seconds_training": round(time.monotonic() - began, 1),
        "before": json.loads((Path(cfg.init) / "training.json").read_text("utf-8")) if cfg.init else None,
        "seconds_total": round(time.monotonic() - start, 1),
        "threads": torch.get_num_threads(),
        "device": device,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "augmentation": dataclasses.asdict(AugmentationConfig()),
        "curve": curve,
    }

    def write(folder: Path) -> None:
        average.cpu().save(folder)
        write_file(folder / "training.json", json.dumps(report, indent=2) + "\n")
        if (out / "README.md").is_file():  # the words of people stay
            write_file(folder / "README.md", (out / "README.md").read_bytes())

    save_folder(out, write)
    print(
        f"word error rate on {len(valid)} valid clips: clean {report['wer_valid_clean']:.4f}, "
        f"distorted {report['wer_valid_distorted']:.4f}; saved to {out}",
        flush=True,
    )


if __name__ == "__main__":
    main()
