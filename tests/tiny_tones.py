"""Tones and noise for files of sound; a corpus of ten clips of tones, one tone per word, for tests of whole chains."""

from pathlib import Path

import numpy as np
import soundfile
from json_files import write_lines

RATE = 16000
WORDS = {"anna": 220.0, "carried": 330.0, "green": 440.0, "apples": 550.0, "table": 660.0}  # a tone each, Hz


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """A sine at half scale, float32 [samples]."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float = 3.0, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """Noise far below full scale, float32 [samples, channels]."""
    random = np.random.default_rng(0)
    return random.normal(0, 0.1, (int(seconds * rate), channels)).clip(-0.9, 0.9).astype(np.float32)


def write_corpus(root: Path) -> None:
    """Ten clips of tones, one tone per word; some in every split."""
    random = np.random.default_rng(0)
    time = np.arange(RATE // 4) / RATE
    tones = {w: 0.3 * np.sin(2 * np.pi * hz * time) * np.hanning(len(time)) for w, hz in WORDS.items()}
    rows = []
    (root / "speech").mkdir(parents=True)
    for number in range(10):
        words = [str(word) for word in random.choice(list(WORDS), 4)]
        split = "test" if number < 2 else "valid" if number < 4 else "train"
        name = f"speech/{number}.flac"
        soundfile.write(root / name, np.concatenate([tones[word] for word in words]), RATE)
        row = {"file_name": name, "id": f"clip-{number}", "text": " ".join(words), "split": split}
        rows.append({**row, "speaker": "slt" if number % 2 else "rms", "domain": "speech"})
    write_lines(root / "metadata.jsonl", rows)
