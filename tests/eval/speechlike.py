"""A signal with which speech metrics can work, and no recording."""

import numpy as np


def speechlike(seconds: float = 3.0, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """Harmonics with syllables and pauses: enough speech for the silence removal of STOI and PESQ."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * 130 * k * time + k) / k for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * 3 * time), 0, None)
    return (0.1 * tone * envelope + 1e-3 * generator.standard_normal(len(time))).astype(np.float32)
