"""A corpus of 24 short notes: two instruments, two pitches, six takes; and a tiny codec to look at them with."""

from pathlib import Path

import numpy as np
import soundfile
from json_files import read_json, write_lines
from programs import run_program
from tiny_models import tiny_codec

RATE = 24_000
TAKES = ("train", "train", "train", "valid", "test", "test")


def build(folder: Path) -> Path:
    """FOLDER/notes and FOLDER/codec; returns FOLDER."""
    generator, rows = np.random.default_rng(0), []
    (folder / "notes").mkdir(parents=True)
    for instrument, harmonics in (("flute", 1), ("cello", 9)):
        for note, octave, pitch in (("A", 3, 220.0), ("E", 4, 329.63)):
            for take, split in enumerate(TAKES):
                name = f"{instrument}-{note}{octave}-{take}"
                t = np.arange(int(RATE * 0.5)) / RATE
                wav = sum(np.sin(2 * np.pi * k * pitch * t + take) / k for k in range(1, harmonics + 1))
                wav = 0.1 * wav * np.minimum(1, 20 * t) + 0.001 * generator.standard_normal(len(t))
                soundfile.write(folder / "notes" / f"{name}.flac", wav.astype(np.float32), RATE)
                labels = {"instrument": instrument, "note": note, "octave": octave, "sound": name}
                rows.append({"file_name": f"{name}.flac", "id": name, "split": split, "domain": "music", **labels})
    write_lines(folder / "notes/metadata.jsonl", rows)
    tiny_codec().save_pretrained(folder / "codec")
    return folder


def evaluate(config: str, folder: Path, *overrides: str) -> dict:
    """Run a program on them, into FOLDER/out; its results."""
    common = (f"data.root={folder}/notes", f"tokenizer.path={folder}/codec", f"out={folder}/out", "device=cpu")
    run_program(config, *common, f"cache={folder}/cache", *overrides)
    return read_json(folder / "out/results.json")
