"""Sounds that people and machines make: ``generator(rng, seconds, variant) -> [samples]`` at 24 kHz."""

from __future__ import annotations

import numpy as np

from mini_corpus.synthesis import (
    SAMPLE_RATE,
    Rng,
    Signal,
    add,
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


def siren(rng: Rng, seconds: float, variant: str) -> Signal:
    """A horn driver whose pitch sweeps between two limits: slowly (wail) or several times a second (yelp)."""
    n = seconds_to_samples(seconds)
    period = rng.uniform(2.2, 3.8) if variant == "slow" else rng.uniform(0.28, 0.5)
    low, high = rng.uniform(480, 680), rng.uniform(1150, 1600)
    phase = (times(n) / period + rng.uniform(0, 1)) % 1
    rise = rng.uniform(0.4, 0.6)
    position = np.where(phase < rise, phase / rise, (1 - phase) / (1 - rise))
    pitch = low * (high / low) ** (0.5 - 0.5 * np.cos(np.pi * position))
    angle = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    partials = ((1, 1.0), (2, 0.3), (3, 0.4), (4, 0.12), (5, 0.15))
    out = sum((gain * np.sin(k * angle) for k, gain in partials), np.zeros(n))
    out = shape(out, lambda f: 1 / np.sqrt(1 + (f / 3500) ** 4))
    return room(rng, out, 0.9, rng.uniform(0.1, 0.3), 4000) + 0.01 * noise(rng, n, 60, 3000, 1, tilt=-3)


def alarm(rng: Rng, seconds: float, variant: str) -> Signal:
    """A piezo buzzer: groups of beeps of one pitch with odd harmonics."""
    n = seconds_to_samples(seconds)
    pitch = rng.uniform(2300, 3300) if variant == "shrill" else rng.uniform(650, 1000)
    length, gap = rng.uniform(0.06, 0.16), rng.uniform(0.06, 0.14)
    group, pause = int(rng.integers(1, 5)), rng.uniform(0.25, 0.6)
    size = seconds_to_samples(length)
    beep = sum(gain * oscillate(k * pitch, size) for k, gain in ((1, 1.0), (3, 0.3), (5, 0.12)) if k * pitch < 11_000)
    beep = beep * np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / 60)
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    while at < seconds:
        for _ in range(group):
            add(out, beep, at)
            at += length + gap
        at += pause
    return room(rng, out, 0.25, 0.15)


BELL_PARTIALS = (0.5, 1.0, 1.2, 1.5, 2.0, 2.53, 2.66, 3.01, 4.17, 5.43, 6.8)
"""Hum, prime, tierce, quint, nominal and higher partials of a tuned bell, relative to the prime."""


def bell(rng: Rng, seconds: float, variant: str) -> Signal:
    """A cast bell, struck again before it has died away."""
    n = seconds_to_samples(seconds)
    prime = rng.uniform(800, 1500) if variant == "small" else rng.uniform(180, 380)
    life = rng.uniform(1.0, 2.0) if variant == "small" else rng.uniform(3.5, 6.0)
    detune = 1 + rng.normal(0, 0.004, len(BELL_PARTIALS))
    pitches = prime * np.array(BELL_PARTIALS) * detune
    gains = rng.uniform(0.4, 1.0, len(pitches)) / np.array(BELL_PARTIALS) ** 0.4
    lives = life / np.array(BELL_PARTIALS) ** 0.8
    stroke = ring(pitches, gains, lives, n) + ring(pitches * 1.0015, 0.4 * gains, lives, n)  # beating of doublets
    click = seconds_to_samples(0.02)
    stroke[:click] += 1.5 * noise(rng, click, 1000, 9000) * decay(click, 0.01)
    out = np.zeros(n)
    interval = rng.uniform(0.45, 0.8) if variant == "small" else rng.uniform(1.3, 2.2)
    for at in rhythm(rng, seconds - 0.3, interval, 0.03, start=rng.uniform(0.02, 0.3)):
        add(out, stroke, at, rng.uniform(0.8, 1.0))
    return out


def telephone(rng: Rng, seconds: float, variant: str) -> Signal:
    """Vintage: a clapper between two gongs, some 20 strokes a second. Modern: a warble of two tones."""
    n = seconds_to_samples(seconds)
    length, pause = rng.uniform(0.8, 1.4), rng.uniform(0.5, 0.9)
    size = seconds_to_samples(length + 0.4)
    one = np.zeros(size)
    if variant == "vintage":
        low, rate = rng.uniform(1100, 1700), rng.uniform(18, 24)
        gongs = [
            ring(p * np.array([1, 2.4, 3.9]), [1, 0.7, 0.4], [0.5, 0.35, 0.2], seconds_to_samples(0.4))
            for p in (low, low * rng.uniform(1.12, 1.3))
        ]
        for number, at in enumerate(rhythm(rng, length, 1 / rate, 0.02, start=0.0)):
            add(one, gongs[number % 2], at, rng.uniform(0.8, 1.0))
    else:
        low, ratio, rate = rng.uniform(700, 1100), rng.uniform(1.2, 1.35), rng.uniform(10, 18)
        t = times(seconds_to_samples(length))
        pitch = np.where((t * rate) % 1 < 0.5, low, low * ratio)
        angle = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        tone = sum(np.sin(k * angle) / k for k in (1, 2, 3, 5))
        add(one, tone * np.minimum(1, np.minimum(t, t[::-1]) / 0.01), 0.0)
    out = np.zeros(n)
    for at in rhythm(rng, seconds, length + pause, 0.0, start=rng.uniform(-0.4, 0.3)):
        add(out, one, at)
    return room(rng, out, 0.4, 0.2)


def clock(rng: Rng, seconds: float, variant: str) -> Signal:
    """An escapement: tick and tock, each of a few impacts within milliseconds, on a wooden case."""
    n = seconds_to_samples(seconds)
    interval = rng.uniform(0.5, 0.9) if variant == "slow" else rng.uniform(0.18, 0.3)
    size = seconds_to_samples(0.08)
    case, metal = rng.uniform(500, 1100), rng.uniform(2500, 4500)
    beats = []
    for detune in (1.0, rng.uniform(0.78, 0.9)):
        beat = np.zeros(size)
        for _ in range(int(rng.integers(2, 4))):
            hit = ring(
                [metal * detune, metal * 1.62 * detune, case * detune],
                [1, 0.6, 0.7],
                [0.02, 0.012, 0.05],
                size,
            )
            add(beat, hit, rng.uniform(0, 0.018), rng.uniform(0.4, 1.0))
        beats.append(beat)
    out = np.zeros(n)
    for number, at in enumerate(rhythm(rng, seconds, interval, 0.005)):
        add(out, beats[number % 2], at, rng.uniform(0.92, 1.0))
    return room(rng, out, 0.3, 0.2) + 0.0008 * noise(rng, n, 80, 3000, 1, tilt=-3)


def footsteps(rng: Rng, seconds: float, variant: str) -> Signal:
    """Heel, then sole, on a floor that answers with a dull resonance and a little scraping."""
    n = seconds_to_samples(seconds)
    out = np.zeros(n)
    interval = rng.uniform(0.7, 0.95) if variant == "slow" else rng.uniform(0.38, 0.5)
    floor, hard = rng.uniform(80, 160), rng.uniform(0.3, 1.0)
    size = seconds_to_samples(0.25)
    for number, at in enumerate(rhythm(rng, seconds - 0.15, interval, 0.04)):
        side = 1.0 + 0.06 * (number % 2)
        for delay, gain in ((0.0, 1.0), (rng.uniform(0.05, 0.09), rng.uniform(0.35, 0.6))):
            thump = ring([floor * side, floor * 2.3, floor * 4.1], [1.0, 0.5, 0.25], [0.16, 0.09, 0.05], size)
            tap = hard * noise(rng, size, 700, 5000, 1) * decay(size, rng.uniform(0.03, 0.06), 0.001)
            scrape = 0.12 * noise(rng, size, 1200, 7000, 1) * decay(size, 0.2, 0.03)
            add(out, thump + 0.6 * tap + scrape, at + delay, gain * rng.uniform(0.8, 1.05))
    return room(rng, out, rng.uniform(0.3, 0.8), 0.2) + 0.001 * noise(rng, n, 60, 2000, 1, tilt=-3)


def typing(rng: Rng, seconds: float, variant: str) -> Signal:
    """Key strokes: a click when the key bottoms out, a softer one when it comes up, in bursts with pauses."""
    n = seconds_to_samples(seconds)
    out = np.zeros(n)
    interval = rng.uniform(0.3, 0.45) if variant == "slow" else rng.uniform(0.09, 0.14)
    bright, body = rng.uniform(2500, 4500), rng.uniform(220, 420)
    size = seconds_to_samples(0.06)
    at, left = rng.uniform(0, 0.3), int(rng.integers(4, 12))
    while at < seconds - 0.1:
        space = rng.random() < 0.14
        click = noise(rng, size, bright * 0.5, bright * 2, 1) * decay(size, rng.uniform(0.008, 0.018), 0.0004)
        pitch = body * (0.7 if space else rng.uniform(0.9, 1.3))
        stroke = click + ring([pitch, pitch * 2.7], [0.8, 0.3], [0.035, 0.02], size)
        add(out, stroke, at, rng.uniform(0.6, 1.0) * (1.3 if space else 1.0))
        add(out, click, at + rng.uniform(0.06, 0.1), rng.uniform(0.15, 0.35))
        at += interval * rng.uniform(0.6, 1.5)
        left -= 1
        if left == 0:
            at, left = at + rng.uniform(0.2, 0.6), int(rng.integers(4, 12))
    return room(rng, out, 0.2, 0.15) + 0.001 * noise(rng, n, 80, 3000, 1, tilt=-3)


def engine(rng: Rng, seconds: float, variant: str) -> Signal:
    """A four-cylinder engine: exhaust pulses through a resonant pipe, no two cylinders quite alike."""
    n = seconds_to_samples(seconds)
    if variant == "idling":
        firing = curve(rng, n, 3, 0.97, 1.03) * rng.uniform(22, 32)
    else:
        firing = curve(rng, n, 1.1, 0.0, 1.0) * rng.uniform(60, 90) + rng.uniform(55, 75)
    turn = np.cumsum(firing) / SAMPLE_RATE  # counts firings
    stroke = np.floor(turn).astype(int)
    first = np.flatnonzero(np.diff(stroke, prepend=-1))
    pulses = np.zeros(n)
    cylinders = rng.uniform(0.75, 1.0, 4)
    pulses[first] = cylinders[stroke[first] % 4] * rng.uniform(0.9, 1.1, len(first))
    size = seconds_to_samples(0.06)
    pipe = rng.uniform(90, 150)
    kernel = ring([pipe, pipe * 2.1, pipe * 3.6, pipe * 6.3], [1, 0.8, 0.5, 0.3], [0.05, 0.03, 0.02, 0.012], size)
    kernel += 0.4 * noise(rng, size, 300, 4000, 1) * decay(size, 0.01)
    hiss = noise(rng, n, 300, 5000, 1, tilt=-2) * (0.5 + 0.5 * np.cos(2 * np.pi * turn)) * 0.12
    return convolve(pulses, kernel) + hiss


def helicopter(rng: Rng, seconds: float, variant: str) -> Signal:
    """Blade slap: a burst of noise per blade passage, over the tones of tail rotor and turbine."""
    n = seconds_to_samples(seconds)
    near = variant == "nearby"
    turn = np.cumsum(rng.uniform(10, 17) * curve(rng, n, 0.5, 0.98, 1.02)) / SAMPLE_RATE
    passage = turn % 1
    slap = np.minimum(1, passage / 0.12) ** 2 * np.exp(-passage * rng.uniform(5, 8)) * 2
    out = noise(rng, n, 40, 700 if near else 260, 1) * slap
    out += 0.25 * noise(rng, n, 300, 3000 if near else 900, 1) * slap**2
    tail = 2 * np.pi * turn * rng.uniform(4.2, 5.6)
    out += 0.15 * sum(np.sin(k * tail) / k for k in (1, 2, 3))
    if near:
        out += 0.03 * oscillate(rng.uniform(2200, 3800) * curve(rng, n, 0.5, 0.99, 1.01))
    return out * curve(rng, n, 0.3, 0.75, 1.1)
