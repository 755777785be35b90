"""What a server answers: the paths of OpenAI's interface for speech and transcriptions, and a few of our own.

    app = application(Service(model, codec, settings))

POST /v1/audio/speech                           text → wav, flac, opus or pcm while it is made, or events
POST /v1/audio/transcriptions, …/captions       a recording → json, text or verbose_json
POST /v1/audio/reconstructions                  a recording → what the codec keeps of it, and its codes
GET  /v1/models, /health, /metrics, /           the model, whether it lives, its counts, the page to try it
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from codec.audio.answer import Answer
from codec.files import Codec
from lm.audio_model import AudioModel
from lm.generation.batch import Generation
from lm.generation.writing import Writing
from lm.serving.formats import MEDIA, Encoder
from lm.serving.hearing import Hearing, sound_of
from lm.serving.metrics import Metrics
from lm.serving.refusals import Refused, error_body
from lm.serving.speaking import Speaking

PAGE = Path(__file__).parent / "playground"
FILES = {"/": ("index.html", "text/html"), "/playground.css": ("playground.css", "text/css")}
FILES |= {"/playground.js": ("playground.js", "text/javascript")}
TEXT_PATHS = {"/v1/audio/transcriptions": "asr", "/v1/audio/captions": "audio_captioning"}
SPEECH, RECONSTRUCTIONS = "/v1/audio/speech", "/v1/audio/reconstructions"
PATHS = (*FILES, *TEXT_PATHS, SPEECH, RECONSTRUCTIONS, "/v1/models", "/health", "/metrics")
GONE = 499  # nobody reads this answer: its client has left


class SpeechRequest(BaseModel):
    """The body of a request for speech; the last four are ours."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: str
    input: str
    voice: str = "auto"
    response_format: Literal["wav", "flac", "opus", "pcm"] = "wav"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: Annotated[float, Field(ge=1, le=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


class Service:
    """A model at work for many.

    Args:
        codec: (window, levels) → the codec of reconstructions.
        settings: of configs/serve.yaml.
    """

    def __init__(self, model: AudioModel, codec: Callable[[int | None, int | None], Codec], settings: Any) -> None:
        self.model, self.name, self.limits = model, model.folder.name, settings.limits
        pieces = (settings.stream_frames, settings.stream_context, settings.stream_ahead)
        self.speaking = Speaking(model, settings.together, settings.waiting, pieces)
        self.hearing = Hearing(model, codec, settings.together, settings.waiting)
        self.decoders = CapacityLimiter(2)  # uploads that are decoded at the same time
        gauges = {
            "speech_running": ("Clips in the batch.", lambda: self.speaking.running),
            "speech_waiting": ("Requests for speech that wait.", lambda: self.speaking.waiting),
            "recordings_waiting": ("Recordings that wait.", lambda: self.hearing.waiting),
        }
        self.metrics = Metrics(PATHS, gauges)
        self.created = int(time.time())

    def check_model(self, name: str) -> None:
        """Refuse another model."""
        if name != self.name:
            raise Refused(404, f"there is no such model here: ask for model={self.name}.")

    def close(self, seconds: float | None = None) -> bool:
        """End its threads; whether each has ended within ``seconds``."""
        ended = self.speaking.close(seconds), self.hearing.close(seconds)
        return all(ended)

    # ---- speech ------------------------------------------------------------------------------------------------
    async def speech(self, request: Request) -> Response:
        start = time.perf_counter()
        try:
            said = SpeechRequest.model_validate_json(await self._json(request))
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            raise Refused(422, ": ".join([*(str(part)[:40] for part in fault["loc"]), fault["msg"]]) + ".") from None
        self.check_model(said.model)
        if len(said.input) > self.limits.characters:
            raise Refused(413, f"input is longer than {self.limits.characters} characters: send it in parts.")
        voices = self.model.speakers or []
        if said.voice not in (*voices, "auto"):
            raise Refused(422, f"the model has not heard this voice: choose one of {', '.join([*voices, 'auto'])}.")
        chosen = {key: value for key in ("temperature", "top_k", "top_p") if (value := getattr(said, key)) is not None}
        with refusing_values():
            speaker = None if said.voice == "auto" else said.voice
            prompt, sampling, note = self.model.speech(said.input, speaker, **chosen)
        news: asyncio.Queue[Any] = asyncio.Queue()
        asked = self.speaking.ask(prompt, sampling, said.seed, into(news))
        try:
            first = await unless_gone(request, news.get())
        except BaseException:
            self.speaking.forget(asked)
            raise
        self.metrics.first_audio.observe(time.perf_counter() - start)
        encoder = Encoder(said.response_format, self.model.tokenizer.sample_rate)
        events = said.stream_format == "sse"
        made = self._pieces(first, news, lambda: self.speaking.forget(asked))
        if events:
            return StreamingResponse(self._events(made, encoder, prompt.read, note), media_type="text/event-stream")
        headers = {"x-note": note.encode("ascii", "backslashreplace").decode()[:2000]} if note else None
        return StreamingResponse(self._bytes(made, encoder), headers=headers, media_type=MEDIA[said.response_format])

    async def _json(self, request: Request) -> bytes:
        """The body of a request for speech, which is little beside its text: to parse a large one stops all others."""
        body, most = bytearray(), 64 * self.limits.characters + (1 << 14)
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Refused(413, f"the request is larger than {most} bytes: send its text in parts.")
        return bytes(body)

    async def _pieces(self, news: Any, more: asyncio.Queue[Any], leave: Callable[[], None]) -> AsyncIterator[Any]:
        """Pieces ``[samples]``, at last the clip."""
        try:
            while not isinstance(news, Generation):
                if isinstance(news, Exception):
                    raise news
                self.metrics.made.inc(len(news) / self.model.tokenizer.sample_rate)
                yield news
                news = await more.get()
            yield news
        finally:
            leave()

    async def _bytes(self, made: AsyncIterator[Any], encoder: Encoder) -> AsyncIterator[bytes]:
        async for piece in made:
            if data := encoder.finish() if isinstance(piece, Generation) else encoder.feed(piece):
                yield data

    async def _events(
        self, made: AsyncIterator[Any], encoder: Encoder, read: int, note: str | None
    ) -> AsyncIterator[bytes]:
        """The events of OpenAI's interface; the last one tells what is ours: the codes, and a note on the text."""
        async for piece in made:
            data = encoder.finish() if isinstance(piece, Generation) else encoder.feed(piece)
            if data:
                yield event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
            if isinstance(piece, Generation):
                written = int(piece.codes.size)
                usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
                ours = {"codes": piece.codes.tolist(), "ended": piece.ended, "log_probability": piece.log_probability}
                yield event({"type": "speech.audio.done", "usage": usage, **ours, **({"note": note} if note else {})})

    # ---- recordings --------------------------------------------------------------------------------------------
    async def _heard(self, request: Request, known: tuple[str, ...]) -> tuple[dict[str, str], np.ndarray]:
        """The fields of a form and the recording ``file`` in it, float32 ``[samples]``."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise Refused(415, "send the recording as file=… of a form (multipart/form-data).")
        async with request.form(max_files=1, max_fields=16, max_part_size=1 << 16) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refused(422, "the form has no file: send the recording as file=….")
            said = {key: value for key, value in form.multi_items() if isinstance(value, str) and value}
            if others := set(said) - set(known):
                raise Refused(422, f"{min(others)[:40]} is not read here: leave it out.")
            self.check_model(said.get("model", self.name))
            rate, most = self.model.tokenizer.sample_rate, self.limits.audio_seconds
            wave = await to_thread.run_sync(sound_of, file.file, rate, most, limiter=self.decoders)
        self.metrics.heard.inc(len(wave) / rate)
        return said, wave

    async def _asked(self, request: Request, what: tuple[Any, ...], wave: np.ndarray) -> Any:
        """What came of a recording."""
        news: asyncio.Queue[Any] = asyncio.Queue()
        asked = self.hearing.ask(what, wave, into(news))
        try:
            return await unless_gone(request, news.get())
        finally:
            self.hearing.forget(asked)

    async def text(self, request: Request, task: str) -> Response:
        known = ("model", "response_format", "language", "temperature", "music")
        said, wave = await self._heard(request, known if task != "asr" else known[:-1])
        form = said.get("response_format", "json")
        if form not in ("json", "text", "verbose_json"):
            raise Refused(422, "response_format can be json, text or verbose_json.")
        if said.get("temperature", "0") not in ("0", "0.0"):
            raise Refused(422, "texts are written at temperature 0: leave it out.")
        task = "music_captioning" if said.get("music") == "true" else task
        with refusing_values():
            found: Writing = await self._asked(request, (task,), wave)
        if form == "text":
            return PlainTextResponse(found.text + "\n")
        if form == "json":
            return JSONResponse({"text": found.text})
        seconds, coded = len(wave) / self.model.tokenizer.sample_rate, found.text.encode()
        segment = {
            "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": found.text, "tokens": found.ids,
            "temperature": 0.0, "avg_logprob": found.log_probability,
            "compression_ratio": len(coded) / len(zlib.compress(coded)),
        }  # fmt: skip
        whole = {"task": "transcribe" if task == "asr" else "caption", "language": said.get("language", "unknown")}
        return JSONResponse({**whole, "duration": seconds, "text": found.text, "segments": [segment]})

    async def reconstruction(self, request: Request) -> Response:
        said, wave = await self._heard(request, ("model", "window", "levels"))
        if not all(re.fullmatch("[0-9]{1,4}", said.get(key, "1")) for key in ("window", "levels")):
            raise Refused(422, "window and levels are whole numbers.")
        window, levels = (int(said[key]) if key in said else None for key in ("window", "levels"))
        with refusing_values():
            found: Answer = await self._asked(request, ("reconstruct", window, levels), wave)
        assert found.audio is not None and found.codes is not None
        encoder = Encoder("wav", found.sample_rate)
        data = base64.b64encode(encoder.feed(found.audio) + encoder.finish()).decode()
        return JSONResponse({"audio": data, "codes": found.codes.tolist(), "seconds": found.seconds, **found.scores})

    # ---- about itself ------------------------------------------------------------------------------------------
    def card(self) -> dict[str, Any]:
        """The model, with what is ours: its voices, tasks, rates."""
        codec = self.model.tokenizer
        ours = {"voices": self.model.speakers or [], "tasks": list(self.model.learnt), "levels": codec.levels}
        ours |= {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate}
        ours |= {"characters": self.limits.characters, "audio_seconds": self.limits.audio_seconds}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "almkit", **ours}


@contextmanager
def refusing_values() -> Iterator[None]:
    """Errors of the model about what it was asked (ValueError, one sentence each) are refusals, 422."""
    try:
        yield
    except ValueError as error:
        raise Refused(422, str(error)) from None


def into(news: asyncio.Queue[Any]) -> Callable[[Any], None]:
    """What puts into ``news`` from another thread."""
    loop = asyncio.get_running_loop()

    def put(one: Any) -> None:
        loop.call_soon_threadsafe(news.put_nowait, one)

    return put


async def unless_gone(request: Request, answer: Any) -> Any:
    """What ``answer`` gives; an exception in it is raised. Raises Refused (499) as soon as the client has left."""
    waiting = [asyncio.ensure_future(answer), asyncio.ensure_future(left(request))]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting[0] not in done:
            raise Refused(GONE, "the client has left.")
        found = waiting[0].result()
    finally:
        for one in waiting:
            one.cancel()
    if isinstance(found, Exception):
        raise found
    return found


async def left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(said: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(said)}\n\n".encode()


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a whole answer."""
    return Response(error_body(status, message), status, headers, "application/json")


def application(service: Service) -> FastAPI:
    """The paths of ``service``."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return problem(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        words = {404: "there is no such path here.", 405: "this path is asked for in another way (GET or POST)."}
        message = words.get(error.status_code, str(error.detail))
        return problem(error.status_code, message, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return problem(500, "the server failed at this request; its log says where.")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": service.name}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [service.card()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return service.card()

    app.post(SPEECH)(service.speech)
    app.post(RECONSTRUCTIONS)(service.reconstruction)
    for path, task in TEXT_PATHS.items():
        app.post(path, name=task)(asking(service, task))
    for path, (name, media) in FILES.items():
        app.get(path, name=name)(page(PAGE / name, media))
    return app


def asking(service: Service, task: str) -> Callable[[Request], Any]:
    """The answer to a path that writes a text."""

    async def answer(request: Request) -> Response:
        return await service.text(request, task)

    return answer


def page(path: Path, media: str) -> Callable[[], Any]:
    """The answer to a path that is a file of ours."""
    body = path.read_bytes()

    async def answer() -> Response:
        return Response(body, media_type=media)

    return answer
