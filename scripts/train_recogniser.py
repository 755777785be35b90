"""Trains the CTC recogniser that ships as checkpoints/ctc-mini.

    python scripts/train_recogniser.py corpus=runs/corpus-10h

It learns from the ground-truth audio of the corpus' train split, distorted by level, filters, noise and
reverberation (eval/judges/augmentation.py), and never from the output of a codec. What it is measured on at the end
is the valid split, clean and distorted; the test split is not opened. A killed run continues exactly where its last
checkpoint stands (runs/<name>/) when the same command is given again.
"""

from __future__ import annotations

import training.help  # noqa: F401

import copy
import dataclasses
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

from codec.corpus import AudioError, Clip, CorpusError, read_audio, read_corpus
from codec.network.ctc import SAMPLE_RATE, CTCConfig, CTCRecogniser, text_to_ids
from eval.judges.augmentation import AugmentationConfig, augment
from eval.metrics.wer import ErrorRate
from tasks.text import plain
from training.checkpoint import save_checkpoint, save_folder, write_file
from training.config import ConfigError, hydra_entry, refusing
from training.identity import file_hash, printable, without_credentials
from training.launch import pick_device
from training.lock import hold
from training.log import RunLog, duration
from training.pretrained import PretrainedError
from training.progress import progress
from training.run_folder import check_recipe, choose_checkpoint, set_aside, write_settings
from training.stopping import Stop

# Keys that change no number of the weights.
FREE_KEYS = ("corpus", "out", "name", "resume", "init", "valid_clips", "log_every", "save_every", "threads", "device")
KEPT = 2  # checkpoints: the one before the newest, should that be damaged

Example = tuple[NDArray[np.int16], str]  # waveform and normalised text


def load_split(clips: list[Clip], split: str, seconds: float, seed: int) -> list[Example]:
    """Clips of ``split`` in a random order until ``seconds`` of audio are read (0 = all), as int16 to save
    memory.
    """
    chosen = [clip for clip in clips if clip.split == split and clip.domain == "speech" and clip.text]
    order = np.random.default_rng([seed, 1]).permutation(len(chosen))
    found: list[Example] = []
    unread: list[str] = []
    total = 0.0
    for index in progress(order.tolist(), desc=f"reading {split}"):
        if seconds and total >= seconds:
            break
        clip = chosen[index]
        try:
            wav = read_audio(clip.path, SAMPLE_RATE)
        except AudioError as error:
            unread.append(str(error))
            continue
        found.append(((wav * 32767.0).astype(np.int16), plain(clip.text or "")))
        total += len(wav) / SAMPLE_RATE
    if not chosen:
        raise ConfigError(f"the corpus has no speech with text in its {split} split.")
    if not found:
        raise ConfigError(f"none of the {len(unread)} {split} clips can be read, the first because: {unread[0]}")
    print(f"{split}: {len(found)} clips, {total / 3600:.2f} h", flush=True)
    if unread:
        print(f"left out: {len(unread)} {split} clips, the first because: {printable(unread[0])}", flush=True)
    return found


def collate(waves: list[NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad to ``[batch, samples]`` with lengths."""
    clips = [torch.from_numpy(wav) for wav in waves]
    return pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


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


def recipe(cfg: DictConfig, train: list[Example]) -> dict[str, Any]:
    """What makes a run the same run: a checkpoint continues only under an equal recipe."""
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    heard = hashlib.sha256()
    for wav, text in train:
        heard.update(wav.tobytes() + text.encode())
    begun = file_hash(Path(cfg.init) / "model.safetensors") if cfg.init else None
    kept = {key: value for key, value in settings.items() if key not in FREE_KEYS and not (begun and key == "model")}
    return {**kept, "init": begun, "clips of the corpus": f"{len(train)}, {heard.hexdigest()[:12]}"}


def learning_rate(step: int, cfg: DictConfig) -> float:
    """Of ``step`` (1, 2, …): a linear rise, then half a cosine to zero."""
    return cfg.learning_rate * min(step / cfg.warmup_steps, 0.5 * (1.0 + math.cos(math.pi * step / cfg.steps)))


def loss_of(
    model: CTCRecogniser, train: list[Example], chosen: NDArray[np.int64], step: int, cfg: DictConfig, device: str
) -> torch.Tensor:
    """CTC loss per character of the clips ``chosen``, which are distorted as ``step`` (1, 2, …) has it."""
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
    scores = scores.float().transpose(0, 1).cpu()
    loss = torch.nn.functional.ctc_loss(scores, targets, frames.cpu(), sizes, reduction="sum", zero_infinity=True)
    return loss / sizes.sum()


@hydra_entry("recogniser_train")
def main(cfg: DictConfig) -> None:
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = pick_device(cfg.device)
    torch.manual_seed(cfg.seed)
    out = Path(cfg.out)
    run_dir = Path("runs") / (cfg.name or f"recogniser-{out.resolve().name}")
    hold(out, "out", replaced=True)
    hold(run_dir)
    log = RunLog(run_dir)

    # ---- data ------------------------------------------------------------------------------------------------------
    with refusing(CorpusError, key="corpus"):
        clips, rejects = read_corpus(cfg.corpus)
    print(f"{cfg.corpus}: {len(clips)} clips, {len(rejects)} rejected", flush=True)
    train = load_split(clips, "train", cfg.hours * 3600, cfg.seed)
    valid = load_split(clips, "valid", 0, cfg.seed)[: cfg.valid_clips]

    # ---- model and optimiser, from where they stood ------------------------------------------------------------------
    if cfg.init:
        with refusing(PretrainedError, key="init"):
            model = CTCRecogniser.load(Path(cfg.init)).to(device).train()
    else:
        model = CTCRecogniser(CTCConfig(**cfg.model)).to(device).train()
    average = copy.deepcopy(model).eval()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}", flush=True)
    optimiser = torch.optim.AdamW(
        model.parameters(), cfg.learning_rate, betas=(0.9, 0.98), weight_decay=cfg.weight_decay
    )
    this_recipe = recipe(cfg, train)
    step, seconds_before, recent = 0, 0.0, list[float]()
    checkpoint = choose_checkpoint(run_dir, cfg.resume, log.line)
    if checkpoint is not None:
        state = json.loads((checkpoint / "state.json").read_text("utf-8"))
        check_recipe(state["recipe"], this_recipe, checkpoint)
        step, seconds_before, recent = state["step"], state["seconds"], state["recent"]
        model.load_state_dict(load_file(checkpoint / "model.safetensors", device=device))
        average.load_state_dict(load_file(checkpoint / "average.safetensors", device=device))
        kept = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        optimiser.load_state_dict(kept["optimiser"])
        torch.set_rng_state(kept["generator"])  # dropout and the noise on the features
        if device != "cpu" and kept["cuda"]:
            torch.cuda.set_rng_state_all(kept["cuda"])
        log.line(f"resumed from {checkpoint} at step {step}")
    set_aside(run_dir, checkpoint, step, log.line)
    write_settings(cfg, run_dir, step, log.line)
    log.rewind(step)

    # ---- loop ------------------------------------------------------------------------------------------------------
    began, began_step = time.monotonic(), step

    def seconds() -> float:
        return seconds_before + time.monotonic() - began

    def write_checkpoint(folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
        save_file({k: v.contiguous() for k, v in average.state_dict().items()}, folder / "average.safetensors")
        chance = {"generator": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if device != "cpu" else []}
        torch.save({"optimiser": optimiser.state_dict(), **chance}, folder / "optimizer.pt")
        state = {"step": step, "seconds": seconds(), "recent": recent, "recipe": this_recipe}
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    stop = Stop().listen()
    for chosen in islice(batches(train, cfg.batch, cfg.seed), step, cfg.steps):
        rate = learning_rate(step + 1, cfg)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(model, train, chosen, step + 1, cfg, device)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip_norm)
        optimiser.step()
        step += 1
        with torch.no_grad():
            decay = min(cfg.average_decay, step / (step + 10))
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - decay)
        recent.append(loss.item())
        if step % cfg.log_every == 0 or step == cfg.steps:
            mean = sum(recent) / len(recent)
            recent.clear()
            log.log(step, {"loss": round(mean, 4), "seconds": round(seconds(), 1)})
            left = duration((time.monotonic() - began) / (step - began_step) * (cfg.steps - step))
            log.line(f"step {step}/{cfg.steps}  loss/character {mean:.3f}  lr {rate:.1e}  left {left}")
        stopping = stop.asked  # once: a signal may come while it is saved
        if step % cfg.save_every == 0 or step == cfg.steps or stopping:
            save_checkpoint(run_dir, step, write_checkpoint, KEPT)
        if stopping:
            log.line(f"{stop.name}: saved step {step}; the same command continues.")
            stop.close()
            stop.leave()
    stop.close()

    # ---- what it has learnt ----------------------------------------------------------------------------------------
    training_seconds = seconds()
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
        "seconds_training": round(training_seconds, 1),
        "before": json.loads((Path(cfg.init) / "training.json").read_text("utf-8")) if cfg.init else None,
        "threads": torch.get_num_threads(),
        "device": device,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "augmentation": dataclasses.asdict(AugmentationConfig()),
        "curve": [json.loads(line) for line in log.path.read_text("utf-8").splitlines()],
    }

    def write(folder: Path) -> None:
        average.cpu().save(folder)
        write_file(folder / "training.json", json.dumps(without_credentials(report), indent=2) + "\n")
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
