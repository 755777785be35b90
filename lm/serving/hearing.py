"""What a server hears: uploads as sound, within their limits, and the questions about them, one batch after the other.

wave = sound_of(upload, 24_000, most_seconds=60)     # float32 [samples]; raises Refused
hearing = Hearing(model, codec, together=8, waiting=32)
hearing.ask(("asr",), wave, put)                     # put(Writing); or put(exception)
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from codec.audio.files import AudioError, audio_info, read_pieces
from codec.files import Codec
from lm.audio_model import AudioModel
from lm.generation.asking import Prompt
from lm.serving.refusals import Refused, busy

Put = Callable[[Any], None]


def sound_of(upload: BinaryIO, rate: int, most_seconds: float) -> np.ndarray:
    """float32 ``[samples]`` at ``rate`` Hz of an uploaded audio file.

    It is read under a name of ours, and no further than ``most_seconds``, whatever its header says.

    Raises:
        Refused: no audio (415), damaged (422), or longer (413).
    """
    too_long = Refused(413, f"the recording is longer than {most_seconds:g} s: cut it.")
    with tempfile.NamedTemporaryFile(prefix="almkit-") as file:
        shutil.copyfileobj(upload, file)
        file.flush()
        path = Path(file.name)
        try:
            if audio_info(path).seconds > most_seconds + 0.01:
                raise too_long
        except AudioError as error:
            raise Refused(415, _said(error, path)) from None
        pieces, samples = [], 0
        try:
            for piece in read_pieces(path, rate):
                pieces.append(piece)
                samples += len(piece)
                if samples > (most_seconds + 0.01) * rate:
                    raise too_long
        except AudioError as error:
            raise Refused(422, _said(error, path)) from None
    return np.concatenate(pieces)


def _said(error: AudioError, path: Path) -> str:
    """The sentence of an error, about "the file" in place of its path here."""
    return str(error).replace(str(path), "the file")


class Hearing:
    """The one place where a server's model writes about recordings, and its codec codes them.

    Args:
        codec: for reconstructions; no other thread may use it.
        together: recordings in one batch, at most.
        waiting: that wait, at most.
    """

    def __init__(
        self, model: AudioModel, codec: Callable[[int | None, int | None], Codec], together: int, waiting: int
    ):
        self.model, self.codec, self.together, self.most_waiting = model, codec, together, waiting
        self._waiting: deque[tuple[tuple[Any, ...], np.ndarray, Put]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Recordings that wait."""
        return len(self._waiting)

    def ask(self, what: tuple[Any, ...], wave: np.ndarray, put: Put) -> Any:
        """Queue a recording, float32 ``[samples]`` at the rate of the tokenizer.

        Args:
            what: ``(task,)`` that writes a text, or ``("reconstruct", window, levels)``.
            put: gets the `Writing`, the `Answer`, or the exception that came of it.

        Raises:
            Refused: no place in the queue (429).
        """
        asked = (what, wave, put)
        with self._change:
            if len(self._waiting) >= self.together + self.most_waiting:
                raise busy(self.most_waiting)
            self._waiting.append(asked)
            self._change.notify()
        return asked

    def forget(self, asked: Any) -> None:
        """Nobody waits for this one any more."""
        with self._change:
            self._waiting = deque(other for other in self._waiting if other is not asked)

    def close(self, seconds: float | None = None) -> bool:
        """End the thread, after the recording in work: who asked has been answered by then, or has been cut off.

        Returns whether it has ended within ``seconds``; without a limit it is waited for.
        """
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._change:
                while not (self._waiting or self._closed):
                    self._change.wait()
                if not self._waiting:
                    return
                what = self._waiting[0][0]
                alike = [asked for asked in self._waiting if asked[0] == what][: self.together]
                self._waiting = deque(asked for asked in self._waiting if not any(asked is one for one in alike))
            try:
                answers = self._answers(what, [wave for _, wave, _ in alike])
            except Exception as error:  # whatever it is, those who wait are told, and the next are served
                answers = [error] * len(alike)
            for (_, _, put), answer in zip(alike, answers, strict=True):
                put(answer)

    def _wanted(self, waves: list[np.ndarray]) -> Iterator[np.ndarray]:
        """``waves``, until it is closed; raises Refused then."""
        for wave in waves:
            if self._closed:
                raise Refused(503, "the server is ending: ask again when it is back.")
            yield wave

    def _answers(self, what: tuple[Any, ...], waves: list[np.ndarray]) -> list[Any]:
        if what[0] == "reconstruct":
            codec = self.codec(*what[1:])
            return [codec.reconstruct(wave, self.model.tokenizer.sample_rate) for wave in self._wanted(waves)]
        answers: list[Any] = []
        for wave in self._wanted(waves):
            try:
                answers.append(self.model.question(what[0], self.model.hear(wave)))
            except ValueError as error:  # of this recording, and of none beside it
                answers.append(error)
        asked = [answer for answer in answers if isinstance(answer, Prompt)]
        written = iter(self.model.write(asked, self.together) if asked else ())
        return [next(written) if isinstance(answer, Prompt) else answer for answer in answers]
