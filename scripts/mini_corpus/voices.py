"""Programs that speak a sentence: flite (CMU, 16 kHz, any of its voices by name) and Piper (a neural voice by path).

Both are called as programs, never imported: a licence of theirs does not reach the corpus' builder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Protocol

import numpy as np
import soundfile

from mini_corpus.layout import CorpusError

FLITE_RATE = 16_000  # Hz
FLITE_LICENCE = "BSD-style (flite and its CMU ARCTIC voices); text MIT"
MISSING_FLITE = (
    "flite, the speech synthesiser, is not installed: apt install flite (Debian, Ubuntu), brew install flite "
    "(macOS) or https://github.com/festvox/flite. The audio that ships in data/mini does not need it."
)
MISSING_PIPER = (
    "piper, the speech synthesiser, is not installed: pip install piper-tts (GPL), in any environment on PATH."
)
# what piper ends with at a text that has no sounds, as "…"
NO_SOUND = "wave.Error: # channels not specified"


class Voice(Protocol):
    """One voice; safe to use from several threads."""

    name: str
    licence: str

    def speak(self, text: str) -> tuple[np.ndarray, int]:
        """(``[samples]`` float32, Hz), of a text without sounds none; raises CorpusError when the program fails."""
        ...

    def close(self) -> None:
        """End the programs that wait for text."""
        ...


def flite_voices() -> list[str]:
    """Names of the voices that flite was built with; raises CorpusError without flite."""
    if not shutil.which("flite"):
        raise CorpusError(MISSING_FLITE)
    answer = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False).stdout
    return answer.partition(":")[2].split()


class Flite:
    """A voice of flite: a process per sentence."""

    licence = FLITE_LICENCE

    def __init__(self, voice: str) -> None:
        known = flite_voices()  # flite would speak in its default voice without a word
        if voice not in known and not Path(voice).is_file():
            raise CorpusError(f"flite has no voice {voice!r}; it has {', '.join(known)}. A Piper voice ends in .onnx.")
        self.name = voice

    def speak(self, text: str) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory(prefix="flite-") as folder:
            path = Path(folder) / "speech.wav"
            command = ["flite", "-voice", self.name, "-t", text, "-o", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not path.exists():
                raise CorpusError(f"flite failed on {text!r} with voice {self.name}: {done.stderr.strip()[:200]}")
            samples, rate = soundfile.read(path, dtype="float32")
        if rate != FLITE_RATE:
            raise CorpusError(f"voice {self.name} speaks at {rate} Hz; choose one of {FLITE_RATE} Hz.")
        return samples, rate

    def close(self) -> None:
        """Nothing waits."""


class Piper:
    """A Piper voice (``NAME.onnx`` with ``NAME.onnx.json`` beside it): processes that read a line and write a file."""

    def __init__(self, model: Path) -> None:
        if not shutil.which("piper"):
            raise CorpusError(MISSING_PIPER)
        for needed in (model, model.with_name(f"{model.name}.json")):
            if not needed.is_file():
                raise CorpusError(f"the Piper voice {model} lacks {needed.name}: both files must be there.")
        self.name = model.stem
        self.licence = f"see the card of the Piper voice {self.name}; text: its own"
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="piper-")
        self._idle: LifoQueue[subprocess.Popen[str]] = LifoQueue()
        self._all: list[subprocess.Popen[str]] = []

    def _start(self) -> subprocess.Popen[str]:
        command = ["piper", "-m", str(self._model), "-d", self._folder.name]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True)
        self._all.append(process)
        return process

    def speak(self, text: str) -> tuple[np.ndarray, int]:
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = self._start()
        said: list[str] = []
        assert process.stdin is not None and process.stderr is not None
        try:
            process.stdin.write(" ".join(text.split()) + "\n")
            process.stdin.flush()
            for line in process.stderr:
                said.append(line.strip())
                if "Wrote " in line:
                    break
            else:
                if said[-1:] == [NO_SOUND]:
                    return np.zeros(0, np.float32), 1
                raise CorpusError(f"piper ended on {text!r} with voice {self.name}: {' '.join(said[-2:])[:200]}")
            path = Path(line.partition("Wrote ")[2].strip())
            samples, rate = soundfile.read(path, dtype="float32")
        except (OSError, soundfile.LibsndfileError) as error:
            raise CorpusError(f"piper failed on {text!r} with voice {self.name}: {error}") from error
        path.unlink()
        self._idle.put(process)
        return samples, rate

    def close(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stderr):
                with suppress(OSError):  # what was not yet written has no reader any more
                    if stream:
                        stream.close()
        self._folder.cleanup()


def open_voices(given: Sequence[str]) -> dict[str, Voice]:
    """The voices that are named, by the name that clips carry.

    Raises:
        CorpusError: a voice or its program is not there, or two have one name.
    """
    voices: dict[str, Voice] = {}
    for voice in given:
        opened: Voice = Piper(Path(voice)) if voice.endswith(".onnx") else Flite(voice)
        if opened.name in voices:
            raise CorpusError(f"--voices names {opened.name} twice.")
        voices[opened.name] = opened
    return voices


def names_of(given: Sequence[str]) -> list[str]:
    """The names that clips carry, before any voice is opened."""
    return [Path(voice).stem if voice.endswith(".onnx") else voice for voice in given]
