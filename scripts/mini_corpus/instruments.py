"""Instrument timbres: ``instrument(rng, pitch, seconds, velocity) -> [samples]`` at 24 kHz.

``pitch`` in Hz, ``seconds`` until the key is released (the note may ring on), ``velocity`` 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mini_corpus.synthesis import SAMPLE_RATE, Rng, Signal, decay, noise, seconds_to_samples, times

NYQUIST = SAMPLE_RATE / 2 - 500


def held(n: int, attack: float, release: float) -> Signal:
    """[n] envelope of a blown or bowed note."""
    t = times(n)
    return np.minimum(1, t / attack) * np.minimum(1, t[::-1] / release)


def vibrato(rng: Rng, n: int, depth: float, delay: float = 0.15) -> Signal:
    """[n] seconds to add to the time axis, so that the pitch swings by ``depth`` of itself to either side."""
    t = times(n)
    rate = rng.uniform(4.8, 6.2)
    return depth / (2 * np.pi * rate) * np.minimum(1, t / delay) * np.sin(2 * np.pi * rate * t + rng.uniform(0, 6.28))


def piano(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """Stiff strings: stretched partials, two decay rates, darker when played softly, damped on release."""
    n = seconds_to_samples(seconds + 0.25)
    t = times(n)
    life = 4.5 * (220 / pitch) ** 0.5
    out = np.zeros(n)
    for k in range(1, 16):
        frequency = k * pitch * np.sqrt(1 + 0.0004 * k * k)
        if frequency > NYQUIST:
            break
        gain = np.exp(-k * (0.32 - 0.16 * velocity)) * abs(np.sin(np.pi * k / 7.3))
        step = np.exp(complex(-6.9 * k**0.7 / life, 2 * np.pi * frequency) / SAMPLE_RATE)
        late = np.exp(complex(-2.0 * k**0.6 / life, 2 * np.pi * frequency) / SAMPLE_RATE)
        start = np.exp(1j * rng.uniform(0, 6.28))
        out += gain * (0.7 * start * powers(step, n) + 0.3 * start * powers(late, n)).imag
    knock = seconds_to_samples(0.03)
    out[:knock] += 0.1 * velocity * noise(rng, knock, 100, 2000) * decay(knock, 0.025)
    return out * np.minimum(1, t / 0.002) * damp(t, seconds, 0.12)


def powers(base: complex, n: int) -> np.ndarray:
    """[n] base**0, base**1, ...: a decaying rotation, by doubling instead of n sines."""
    out = np.empty(n, complex)
    out[0], filled = 1.0, 1
    while filled < n:
        count = min(filled, n - filled)
        out[filled : filled + count] = out[:count] * base**filled
        filled += count
    return out


def damp(t: Signal, seconds: float, release: float) -> Signal:
    """Envelope of a damper that falls on the string at ``seconds``."""
    return np.where(t < seconds, 1.0, np.exp(-(t - seconds) * 6.9 / release))


def pluck(rng: Rng, pitch: float, n: int, stretch: float, high: float) -> Signal:
    """Karplus-Strong string: a period of noise (up to ``high`` Hz) that is averaged with itself each time round."""
    period = SAMPLE_RATE / pitch - 0.5  # the two-point average delays by half a sample
    size = int(period)
    burst = noise(rng, size + 1, 50, high, 1)
    burst -= np.concatenate([burst[size // 5 :], burst[: size // 5]])  # plucked at a fifth of its length
    turns = int(np.ceil(n / size)) + 2
    rows = np.zeros((turns, size + 1))
    rows[0] = burst
    for turn in range(1, turns):  # row k holds period k; its first sample repeats the last of the row before
        before = rows[turn - 1]
        rows[turn, 1:] = stretch * 0.5 * (before[1:] + before[:-1])
        rows[turn, 0] = before[-1] * stretch
    string = rows[:, 1:].reshape(-1)
    step = size / period  # resample from a whole number of samples per period to the true pitch
    return np.interp(np.arange(n) * step, np.arange(len(string)), string)


def guitar(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    n = seconds_to_samples(seconds + 0.3)
    return pluck(rng, pitch, n, 0.998, 3500 + 4500 * velocity) * damp(times(n), seconds + 0.15, 0.15)


def bass(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    n = seconds_to_samples(seconds + 0.1)
    string = pluck(rng, pitch, n, 0.996, 400 + 600 * velocity)
    return string * damp(times(n), seconds, 0.1)


def flute(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """Few harmonics, vibrato, and breath noise that is loudest at the onset."""
    n = seconds_to_samples(seconds + 0.05)
    t = times(n)
    phase = 2 * np.pi * pitch * (t + vibrato(rng, n, 0.008))
    tone = sum(gain * np.sin(k * phase) for k, gain in ((1, 1.0), (2, 0.28 * velocity), (3, 0.1), (4, 0.03)))
    breath = noise(rng, n, pitch * 0.8, min(pitch * 4, 9000), 1) * (0.05 + 0.25 * np.exp(-t / 0.04))
    return (tone + breath) * held(n, 0.06, 0.06) * (1 + 0.12 * np.sin(2 * np.pi * 5.2 * t))


def organ(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """Pipes of 16, 8, 5 1/3, 4, 2 2/3, 2 feet: steady sines that start and stop at once."""
    n = seconds_to_samples(seconds + 0.03)
    t = times(n)
    ranks = ((0.5, 0.5), (1, 1.0), (1.5, 0.35), (2, 0.7), (3, 0.45), (4, 0.5), (6, 0.2), (8, 0.25))
    tone = sum(gain * np.sin(2 * np.pi * k * pitch * t + k) for k, gain in ranks if k * pitch < NYQUIST)
    return tone * held(n, 0.012, 0.03)


def strings(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """A section: several players, each a little out of tune and with a vibrato of its own, slow to speak."""
    n = seconds_to_samples(seconds + 0.15)
    t = times(n)
    out = np.zeros(n)
    for _ in range(3):
        phase = 2 * np.pi * pitch * rng.normal(1, 0.0025) * (t + vibrato(rng, n, 0.009)) + rng.uniform(0, 6.28)
        top = int(min(22, NYQUIST / pitch))
        wave = np.zeros(n)
        turn, step = np.exp(1j * phase), np.exp(1j * phase)
        for k in range(1, top + 1):  # harmonics by repeated rotation: cheaper than a sine each
            wave += turn.imag * k ** (-1.1) * (1.6 if 3 <= k <= 5 else 1.0)
            turn = turn * step
        out += wave
    return out * held(n, min(0.14, seconds / 3), 0.15)


def trumpet(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """Frequency modulation 1:1; the brightness follows the loudness, as in brass (Chowning 1973)."""
    n = seconds_to_samples(seconds + 0.04)
    t = times(n)
    envelope = held(n, 0.045, 0.06) * (0.85 + 0.3 * np.exp(-t / 0.08))
    phase = 2 * np.pi * pitch * (t + vibrato(rng, n, 0.005, 0.3))
    return envelope * np.sin(phase + (2.0 + 4.0 * velocity) * envelope * np.sin(phase))


def music_box(rng: Rng, pitch: float, seconds: float, velocity: float) -> Signal:
    """Steel tongues: a bar's inharmonic partials (1 : 6.27) and a long ring."""
    n = seconds_to_samples(min(seconds + 1.2, 2.5))
    t = times(n)
    out = np.zeros(n)
    for ratio, gain, life in ((1.0, 1.0, 1.8), (2.0, 0.15, 0.9), (6.27, 0.35 * velocity, 0.25)):
        if ratio * pitch < NYQUIST:
            out += gain * np.exp(-6.9 * t / life) * np.sin(2 * np.pi * ratio * pitch * t)
    return out * np.minimum(1, t / 0.001)


@dataclass(frozen=True)
class Instrument:
    """How an instrument is used.

    ``home`` is the MIDI note of a C near the middle of the melody, ``chords`` one of "block", "broken", "root",
    "none".
    """

    name: str
    play: Callable[[Rng, float, float, float], Signal]
    home: int
    chords: str


INSTRUMENTS: dict[str, Instrument] = {
    "piano": Instrument("piano", piano, 60, "block"),
    "guitar": Instrument("guitar", guitar, 48, "broken"),
    "bass": Instrument("bass", bass, 36, "none"),
    "flute": Instrument("flute", flute, 72, "none"),
    "organ": Instrument("organ", organ, 60, "block"),
    "strings": Instrument("strings", strings, 60, "root"),
    "trumpet": Instrument("trumpet", trumpet, 72, "none"),
    "music box": Instrument("music box", music_box, 84, "broken"),
}
