"""Sounds of weather, water and animals: ``generator(rng, seconds, variant) -> [samples]`` at 24 kHz.

Each generator draws pitch, rate and colour anew, so that no two clips are alike; the variant is what the
caption says about it ("heavy rain").
"""

from __future__ import annotations

import numpy as np

from mini_corpus.synthesis import (
    SAMPLE_RATE,
    Rng,
    Signal,
    add,
    bump,
    convolve,
    curve,
    decay,
    noise,
    oscillate,
    rhythm,
    ring,
    room,
    seconds_to_samples,
    shape,
    times,
)


def rain(rng: Rng, seconds: float, variant: str) -> Signal:
    """Many drops that strike a surface, over the hiss of all those too far away to tell apart."""
    n = seconds_to_samples(seconds)
    per_second = {"light": 60, "steady": 350, "heavy": 1500}[variant] * rng.uniform(0.8, 1.25)
    hiss = {"light": 0.012, "steady": 0.07, "heavy": 0.25}[variant]
    out = hiss * noise(rng, n, rng.uniform(300, 700), rng.uniform(7000, 10000), 1, tilt=rng.uniform(-1.5, 0.5))
    out *= curve(rng, n, 0.6, 0.8, 1.2)
    for _ in range(10):  # ten sizes of drops; each size is one impulse train through one resonance
        strokes = np.zeros(n)
        count = rng.poisson(per_second * seconds / 10)
        strokes[rng.integers(0, n, count)] = rng.gamma(1.2, 0.2, count) * rng.choice([-1, 1], count)
        width = seconds_to_samples(0.02)
        pitch = rng.uniform(1000, 6500)
        drop = ring([pitch, pitch * 1.7], [1, 0.6], [rng.uniform(0.003, 0.007), 0.003], width)
        drop += 0.5 * noise(rng, width, 1500, 9000) * decay(width, 0.005)
        out += convolve(strokes, drop)
    return out


def wind(rng: Rng, seconds: float, variant: str) -> Signal:
    """Turbulence whose colour and level follow the gusts; edges and wires whistle in strong wind."""
    n = seconds_to_samples(seconds)
    rate, floor = {"gentle": (0.4, 0.45), "gusty": (0.9, 0.1), "howling": (0.6, 0.3)}[variant]
    gust = curve(rng, n, rate, floor, 1.0)
    out = np.zeros(n)
    for low, high, power in ((40, 160, 1.0), (160, 400, 1.5), (400, 900, 2.2), (900, 2500, 3.5)):
        gain = {40: 1.0, 160: 0.9, 400: 0.45, 900: 0.16}[low]
        out += gain * noise(rng, n, low, high) * gust**power
    if variant == "howling":
        for _ in range(2):
            pitch = rng.uniform(350, 700) * (0.6 + 0.7 * gust + 0.1 * curve(rng, n, 2, -1, 1))
            out += whistle(rng, pitch, 25.0) * gust**2 * rng.uniform(0.8, 1.3)
    return out


def whistle(rng: Rng, pitch: Signal, width: float) -> Signal:
    """Noise of ``width`` Hz around a moving pitch."""
    n = len(pitch)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    slow = [noise(rng, n, 0.5, width, 2) for _ in range(2)]
    return slow[0] * np.cos(phase) - slow[1] * np.sin(phase)


def waves(rng: Rng, seconds: float, variant: str) -> Signal:
    """Swell that rises darkly, breaks into hiss and runs out."""
    n = seconds_to_samples(seconds)
    period = {"small": 1.9, "big": 3.4}[variant] * rng.uniform(0.85, 1.15)
    out = 0.05 * noise(rng, n, 80, 1500, 1, tilt=-3)
    for at in rhythm(rng, seconds + period, period, 0.15, start=rng.uniform(-0.5, 0.2) * period):
        size = seconds_to_samples(period * 1.5)
        position = np.linspace(0, 1, size)
        swell = np.interp(position, [0, 0.3, 0.42, 1], [0, 0.5, 1, 0]) ** 1.5
        splash = np.interp(position, [0, 0.32, 0.42, 0.6, 1], [0, 0.05, 1, 0.45, 0]) ** 1.3
        body = noise(rng, size, 60, 350 if variant == "big" else 600, 1) * swell
        foam = noise(rng, size, 700, rng.uniform(5000, 9000), 1) * splash * curve(rng, size, 8, 0.7, 1.0)
        add(out, body + 0.8 * foam, at - period * 0.5, rng.uniform(0.7, 1.1))
    return out


def thunder(rng: Rng, seconds: float, variant: str) -> Signal:
    """A lightning channel is kilometres long: its sound arrives over seconds, the near part first."""
    n = seconds_to_samples(seconds)
    out = 0.003 * noise(rng, n, 60, 2000, 1, tilt=-3)
    near = variant == "loud"
    start = rng.uniform(0.1, 0.6)
    if near:
        size = seconds_to_samples(0.6)
        crack = noise(rng, size, 150, 6000, 1, tilt=-2) * decay(size, rng.uniform(0.3, 0.6), 0.003)
        for _ in range(int(rng.integers(3, 7))):
            add(out, crack, start + rng.uniform(0, 0.35), rng.uniform(0.4, 1.2))
    for _ in range(int(rng.integers(9, 14))):
        length = rng.uniform(0.6, 1.8)
        size = seconds_to_samples(length)
        high = (260 if near else 130) * rng.uniform(0.5, 1.3)
        clap = noise(rng, size, 25, high, 1) * decay(size, length, rng.uniform(0.03, 0.12))
        delay = rng.uniform(0, max(seconds - 1.5, 1.0)) * rng.uniform(0.3, 1)
        add(out, clap, start + delay, rng.uniform(0.5, 1.3) * np.exp(-delay / 3))
    return room(rng, out, 1.5, 0.4, 800)


def dog(rng: Rng, seconds: float, variant: str) -> Signal:
    """Barks: voice and breath, the pitch jumps up and falls, through the resonances of the mouth."""
    n = seconds_to_samples(seconds)
    out = np.zeros(n)
    small = variant == "small"
    pitch = rng.uniform(480, 720) if small else rng.uniform(190, 300)
    formants = (
        (rng.uniform(1000, 1500), rng.uniform(2300, 3200))
        if small
        else (rng.uniform(500, 750), rng.uniform(1100, 1500))
    )
    at = rng.uniform(0.1, 0.5)
    while at < seconds - 0.3:
        for _ in range(int(rng.integers(1, 4))):
            length = rng.uniform(0.11, 0.17) if small else rng.uniform(0.17, 0.28)
            add(out, bark(rng, pitch * rng.uniform(0.92, 1.08), formants, length), at, rng.uniform(0.7, 1.0))
            at += length + rng.uniform(0.08, 0.25)
        at += rng.uniform(0.35, 1.0)
    return room(rng, out, 0.35, 0.25) + 0.002 * noise(rng, n, 100, 4000, 1, tilt=-4)


def bark(rng: Rng, pitch: float, formants: tuple[float, float], length: float) -> Signal:
    size = seconds_to_samples(length)
    position = np.linspace(0, 1, size)
    contour = pitch * (0.75 + 0.45 * np.interp(position, [0, 0.3, 1], [0, 1, 0.05]))
    contour *= 1 + 0.03 * noise(rng, size, 20, 90)
    phase = 2 * np.pi * np.cumsum(contour) / SAMPLE_RATE
    voice = np.zeros(size)
    for harmonic in range(1, 40):
        if harmonic * pitch * 1.2 > 9000:
            break
        voice += np.sin(harmonic * phase + rng.uniform(0, 6.28)) / harmonic**0.5
    breath = noise(rng, size, 300, 7000, 1)
    first, second = formants

    def mouth(frequency: np.ndarray) -> np.ndarray:
        peaks = np.exp(-(((frequency - first) / (0.35 * first)) ** 2))
        peaks += 0.55 * np.exp(-(((frequency - second) / (0.3 * second)) ** 2))
        return peaks + 0.05 / (1 + (frequency / 4000) ** 2)

    envelope = np.interp(position, [0, 0.08, 0.35, 1], [0, 1, 0.8, 0]) ** 1.2
    return shape(voice + 1.2 * breath * (0.4 + 0.6 * (position < 0.2)), mouth) * envelope


def birds(rng: Rng, seconds: float, variant: str) -> Signal:
    """Songs of short whistled syllables: sweeps, arches and trills, each bird with its own register."""
    n = seconds_to_samples(seconds)
    out = 0.003 * noise(rng, n, 300, 6000, 1, tilt=-2)
    singers, pause = (int(rng.integers(2, 5)), 0.7) if variant == "lively" else (1, 1.6)
    for _ in range(singers):
        register = rng.uniform(2600, 5600)
        kind = rng.choice(["fall", "rise", "arch", "trill"])
        at, gain = rng.uniform(0, 0.6), rng.uniform(0.3, 1.0)
        while at < seconds:
            count = int(rng.integers(2, 7)) if kind != "trill" else int(rng.integers(8, 16))
            length = rng.uniform(0.06, 0.14) if kind != "trill" else rng.uniform(0.025, 0.04)
            for _ in range(count):
                add(out, chirp(rng, register * rng.uniform(0.96, 1.04), str(kind), length), at, gain)
                at += length * rng.uniform(1.3, 1.9)
            at += pause * rng.uniform(0.5, 1.5)
    return room(rng, out, 0.8, 0.2, 8000)


def chirp(rng: Rng, register: float, kind: str, length: float) -> Signal:
    size = seconds_to_samples(length)
    position = np.linspace(0, 1, size)
    moves = {
        "fall": 1.25 - 0.5 * position,
        "rise": 0.8 + 0.45 * position,
        "arch": 0.85 + 0.35 * np.sin(np.pi * position),
        "trill": 1.1 - 0.25 * position,
    }
    contour = register * moves[kind] * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(20, 40) * times(size)))
    return (oscillate(contour) + 0.08 * oscillate(2 * np.minimum(contour, 5400))) * bump(size, 0.8)


def drops(rng: Rng, seconds: float, variant: str) -> Signal:
    """A drop traps a bubble that rings as it rises: a damped sine that glides up (Minnaert resonance)."""
    n = seconds_to_samples(seconds)
    out = np.zeros(n)
    interval = rng.uniform(0.75, 1.3) if variant == "slow" else rng.uniform(0.16, 0.32)
    home = rng.uniform(700, 1500)
    for at in rhythm(rng, seconds - 0.1, interval, 0.25):
        length = rng.uniform(0.06, 0.13)
        size = seconds_to_samples(length)
        start = home * rng.uniform(0.75, 1.5)
        contour = start * (1 + rng.uniform(0.4, 1.1) * np.linspace(0, 1, size) ** 1.3)
        add(out, oscillate(contour) * decay(size, length, 0.002), at, rng.uniform(0.5, 1.0))
        click = seconds_to_samples(0.006)
        add(out, noise(rng, click, 2000, 9000) * decay(click, 0.005), at - 0.012, rng.uniform(0.05, 0.15))
    return room(rng, out, rng.uniform(0.4, 1.2), rng.uniform(0.2, 0.45), 6000)
