"""Speech for many at once: requests wait in a bounded queue, join the running batch between two frames, and leave it.

    speaking = Speaking(model, together=8, waiting=32, pieces=(6, 25, 6))
    speaking.ask(prompt, sampling, seed, put)   # put(piece), … put(Generation); or put(exception)
    speaking.close()

One thread generates codes and another makes sound of them, so that two cores have work; the second calls ``put``.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lm.audio_model import AudioModel
from lm.generation.asking import Prompt
from lm.generation.batch import Batch, Generation, Wanted, joined, open_batch
from lm.generation.decoding import Engine
from lm.generation.sampling import Sampling
from lm.generation.streaming import StreamDecoder
from lm.serving.refusals import busy


@dataclass(eq=False)
class Spoken:
    """One request on its way.

    Attributes:
        prompt: of the part that is made now, or is to be made next.
        made: the parts before it.
        gone: nobody waits for it: it leaves its place.
    """

    prompt: Prompt
    sampling: Sampling
    seed: int
    put: Callable[[Any], None]
    decoder: StreamDecoder
    made: list[Generation] = field(default_factory=list)
    gone: bool = field(default=False)


class Speaking:
    """The one place where a server's model speaks.

    Args:
        together: clips in one batch, at most.
        waiting: requests that wait for a place, at most.
        pieces: frames per piece of sound, before it and after it (`lm.generation.streaming.StreamDecoder`).
    """

    def __init__(self, model: AudioModel, together: int, waiting: int, pieces: tuple[int, int, int]) -> None:
        self.model, self.together, self.most_waiting, self.pieces = model, together, waiting, pieces
        self.asked: set[Spoken] = set()  # all that are not answered yet
        self._waiting: deque[Spoken] = deque()
        self._batches: dict[Sampling, Batch] = {}
        self._change = threading.Condition()
        self._closed = False
        self._codes: queue.SimpleQueue[tuple[Spoken, Any] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._generate, self._decode)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Clips that are being made."""
        return sum(map(len, list(self._batches.values())))

    def ask(self, prompt: Prompt, sampling: Sampling, seed: int, put: Callable[[Any], None]) -> Spoken:
        """Queue a request. Raises Refused (429)."""
        sampling.check_levels(self.model.vocabulary.levels)
        asked = Spoken(prompt, sampling, seed, put, StreamDecoder(self.model.tokenizer, *self.pieces))
        with self._change:
            if len(self.asked) >= self.together + self.most_waiting:
                raise busy(self.most_waiting)
            self.asked.add(asked)
            self._waiting.append(asked)
            self._change.notify()
        return asked

    def forget(self, asked: Spoken) -> None:
        """Nobody waits for this one any more."""
        asked.gone = True
        with self._change:
            self.asked.discard(asked)
            if asked in self._waiting:
                self._waiting.remove(asked)

    def close(self, seconds: float | None = None) -> bool:
        """End both threads. Who asked has been answered by then, or has been cut off: the rest is made for nobody.

        Returns whether they have ended within ``seconds`` each; without a limit they are waited for.
        """
        with self._change:
            self._closed = True
            for asked in self.asked:
                asked.gone = True
            self.asked.clear()
            self._waiting.clear()
            self._change.notify()
        self._threads[0].join(seconds)
        self._codes.put(None)
        self._threads[1].join(seconds)
        return not any(thread.is_alive() for thread in self._threads)

    # ---- codes -------------------------------------------------------------------------------------------------
    def _generate(self) -> None:
        while True:
            with self._change:
                while not (self._waiting or self._batches or self._closed):
                    self._change.wait()
                if self._closed and not self._waiting and not self._batches:
                    return
                places = max(0, self.together - self.running)
                new = [self._waiting.popleft() for _ in range(min(places, len(self._waiting)))]
            for sampling in {asked.sampling for asked in new}:
                self._join(sampling, [asked for asked in new if asked.sampling == sampling])
            for sampling, batch in list(self._batches.items()):
                self._step(sampling, batch)

    def _join(self, sampling: Sampling, new: list[Spoken]) -> None:
        """Let requests join the batch of their sampling."""
        batch = self._batches.get(sampling)
        try:
            batch = batch or open_batch(self.model.network, self.model.vocabulary, sampling, Engine())
            batch.join([Wanted(a, a.prompt.ids, a.prompt.most, a.prompt.least, a.seed) for a in new])
            self._batches[sampling] = batch
        except Exception as error:  # whatever it is, those who wait are told, and the next are served
            for asked in new:
                self._codes.put((asked, error))

    def _step(self, sampling: Sampling, batch: Batch) -> None:
        """One frame of all clips of a batch."""
        try:
            batch.drop({name for name in batch.names if isinstance(name, Spoken) and name.gone})
            for asked, codes in batch.step() if len(batch) else ():
                self._codes.put((asked, codes))  # type: ignore[arg-type]
            for asked in list(batch.left):
                self._next(asked, batch.left.pop(asked))  # type: ignore[arg-type]
        except Exception as error:  # as above
            for asked in batch.names:
                self._codes.put((asked, error))  # type: ignore[arg-type]
            del self._batches[sampling]
            return
        if not len(batch):
            del self._batches[sampling]

    def _next(self, asked: Spoken, part: Generation) -> None:
        """Once all is said, tell; until then the next part of the text waits, before all others, for the place left."""
        asked.made.append(part)
        if asked.prompt.then is None:
            self._codes.put((asked, joined(asked.made)))
            return
        asked.prompt = asked.prompt.then
        with self._change:
            if not asked.gone:
                self._waiting.appendleft(asked)

    # ---- sound -------------------------------------------------------------------------------------------------
    def _decode(self) -> None:
        open_ = True
        while open_:
            found = [self._codes.get()]
            while not self._codes.empty():  # who is late makes fewer and longer pieces of all that waits
                found.append(self._codes.get())
            news: dict[Spoken, list[Any]] = {}
            for one in found:
                if one is None:
                    open_ = False
                elif not one[0].gone:
                    news.setdefault(one[0], []).append(one[1])
            for asked, told in news.items():
                self._tell(asked, told)

    def _tell(self, asked: Spoken, told: list[Any]) -> None:
        """Give on the sound of the codes, and the end, that were told of a request."""
        codes = [one for one in told if isinstance(one, np.ndarray)]
        end = told[-1] if len(told) > len(codes) else None
        try:
            for piece in asked.decoder.feed(np.concatenate(codes)) if codes else ():
                asked.put(piece)
            for piece in asked.decoder.finish() if isinstance(end, Generation) else ():
                asked.put(piece)
        except Exception as error:  # as above
            end = error
        if end is not None:
            self.forget(asked)
            asked.put(end)
