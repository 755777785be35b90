"""The server: what it answers, to whom, how it refuses, and that it lives on whatever is sent to it."""

from __future__ import annotations

import base64
import io
import json
import resource
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx  # what huggingface_hub and openai bring
import numpy as np
import openai
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from codec.audio.files import read_audio
from lm.serving import gate
from lm.serving.formats import MEDIA
from tests.lm.serving.conftest import MODEL, SAID, Running, wait_until
from training.config import REPOSITORY

SPEECH = REPOSITORY / "data/mini/speech/speech-test-0000.flac"
RATE = 24_000
SPOKEN, TRANSCRIPTIONS, CAPTIONS, RECONSTRUCTIONS = (
    f"/v1/audio/{name}" for name in ("speech", "transcriptions", "captions", "reconstructions")
)
pytestmark = pytest.mark.slow


def wav(seconds: float = 1.0, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(int(seconds * rate)) / 9) / 4, rate, format="WAV")
    return file.getvalue()


def events(response: httpx.Response) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]


# ---- what it answers ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def said(server: Running):
    return server.service.model.speak(SAID, voice="rms", temperature=0)


@pytest.mark.parametrize("kind", MEDIA)
def test_speech_comes_in_every_format(server: Running, said, kind: str, tmp_path: Path) -> None:
    answer = server.speak(voice="rms", response_format=kind)
    assert answer.status_code == 200 and answer.headers["content-type"] == MEDIA[kind]
    if kind == "pcm":
        wave = np.frombuffer(answer.content, "<i2") / 32767
    else:
        (tmp_path / "said").write_bytes(answer.content)
        wave = read_audio(tmp_path / "said", RATE)
    assert len(wave) == len(said.audio) and np.corrcoef(wave, said.audio)[0, 1] > 0.9


def test_speech_comes_while_it_is_made(server: Running, said, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last steps wait until the first bytes of sound have been read."""
    heard, step = threading.Event(), server.service.speaking._step
    steps = iter(range(1000))

    def held(*given):
        if next(steps) == 20:
            assert heard.wait(60)
        step(*given)

    monkeypatch.setattr(server.service.speaking, "_step", held)
    asked = {"model": MODEL, "input": SAID, "voice": "rms", "temperature": 0}
    with server.client.stream("POST", SPOKEN, json=asked) as answer:
        pieces = answer.iter_bytes()
        first = next(pieces)
        heard.set()
        assert len(first) > 44 and len(first + b"".join(pieces)) == 44 + 2 * len(said.audio)


def test_events_tell_the_sound_and_its_codes(server: Running, said) -> None:
    *deltas, done = events(server.speak(voice="rms", stream_format="sse", response_format="pcm"))
    assert {one["type"] for one in deltas} == {"speech.audio.delta"} and len(deltas) > 1
    assert len(b"".join(base64.b64decode(one["audio"]) for one in deltas)) == 2 * len(said.audio)
    assert done["type"] == "speech.audio.done" and done["codes"] == said.codes.tolist() and done["ended"]
    assert done["usage"]["output_tokens"] == said.codes.size


def test_words_that_are_spelled_and_texts_that_are_long_are_named(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = server.speak(" ".join([SAID] * 3), stream_format="sse")
    assert events(long)[-1]["note"].endswith("(at most 46 characters), and said in 3 parts, cut where a reader pauses.")
    monkeypatch.setattr(server.service.model, "normalise", "phonemes")
    text = "peter carried the žižkolino"
    note = events(server.speak(text, stream_format="sse"))[-1]["note"]
    assert "1 of 4 words are not in its dictionary, as ŽIŽKOLINO" in note
    assert "\\u017dI\\u017dKOLINO" in server.speak(text).headers["x-note"]
    assert "note" not in events(server.speak(stream_format="sse"))[-1] and "x-note" not in server.speak().headers


def test_many_at_once_get_what_each_gets_alone(server: Running) -> None:
    texts = [("peter carried the purple ladder", 1), ("anna found the green table", 2), ("the dog is happy", 3)] * 4

    def codes(asked):
        answer = server.speak(asked[0], seed=asked[1], temperature=0.7, stream_format="sse")
        return answer.status_code if answer.status_code != 200 else events(answer)[-1]["codes"]

    alone = {asked: codes(asked) for asked in texts[:3]}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(codes, texts[:8]))
    assert [alone[asked] for asked in texts[:8]] == together and server.idle()


def test_the_client_of_openai(server: Running, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == [MODEL] and client.models.retrieve(MODEL).id == MODEL
    made = client.audio.speech
    with made.with_streaming_response.create(
        model=MODEL, input=SAID, voice="slt", response_format="wav", extra_body={"temperature": 0}
    ) as answer:
        answer.stream_to_file(tmp_path / "said.wav")
    with (tmp_path / "said.wav").open("rb") as file:
        heard = client.audio.transcriptions.create(model=MODEL, file=file)
        whole = client.audio.transcriptions.create(model=MODEL, file=file, response_format="verbose_json")
        bare = client.audio.transcriptions.create(model=MODEL, file=file, response_format="text")
    assert heard.text == whole.text == bare.strip() == server.service.model.transcribe(tmp_path / "said.wav").text
    assert whole.duration == pytest.approx(soundfile.info(tmp_path / "said.wav").duration, abs=0.01)
    assert whole.segments[0].avg_logprob < 0 and whole.segments[0].end == whole.duration
    with pytest.raises(openai.NotFoundError, match=f"ask for model={MODEL}"):
        made.create(model="tts-1", input="a", voice="slt")
    with pytest.raises(openai.UnprocessableEntityError, match="choose one of rms, slt, auto"):
        made.create(model=MODEL, input="a", voice="alloy")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Running) -> None:
    url = f"http://127.0.0.1:{server.port}{TRANSCRIPTIONS}"
    run = subprocess.run(
        ["curl", "-s", url, "-F", f"file=@{SPEECH}", "-F", "response_format=text"], capture_output=True
    )
    assert run.stdout.decode().strip() == server.service.model.transcribe(SPEECH).text


def test_recordings_are_described_and_reconstructed(server: Running) -> None:
    model, data = server.service.model, SPEECH.read_bytes()
    ask = server.client.post
    for music in (False, True):
        form = {"music": str(music).lower()}
        found = ask(CAPTIONS, files={"file": data}, data=form).json()
        assert found == {"text": model.caption(SPEECH, music=music).text}
    for window, levels in ((None, None), (8, 2)):
        form = {key: value for key, value in (("window", window), ("levels", levels)) if value}
        found = ask(RECONSTRUCTIONS, files={"file": data}, data=form).json()
        codec = server.service.hearing.codec(window, levels)
        expected = codec.reconstruct(SPEECH)
        assert found["codes"] == expected.codes.tolist() and found["frames"] == len(expected.codes)
        wave = np.frombuffer(base64.b64decode(found["audio"])[44:], "<i2") / 32767
        assert np.abs(wave - expected.audio.clip(-1, 1)).max() < 1e-4


def counts(server: Running) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_it_tells_how_it_is(server: Running) -> None:
    assert server.client.get("/health").json() == {"status": "ok", "model": MODEL}
    before = counts(server)
    answer = server.speak(response_format="pcm")
    after = counts(server)
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert grown[("almkit_requests_total", SPOKEN, "200")] == grown[("almkit_first_audio_seconds_count",)] == 1
    assert grown[("almkit_audio_made_seconds_total",)] == pytest.approx(len(answer.content) / 2 / RATE)
    assert after[("almkit_speech_running",)] == after[("almkit_speech_waiting",)] == 0


# ---- what it refuses ---------------------------------------------------------------------------------------------
SAY = {"model": MODEL, "input": "a"}
Asked = tuple[str, str, dict[str, Any]]  # method, path, what else is given


def say(**more: Any) -> Asked:
    return "POST", SPOKEN, {"json": {**SAY, **more}}


def send(path: str, file: Any = None, **data: str) -> Asked:
    return "POST", path, {"data": data, "files": {"file": wav() if file is None else file}}


@pytest.mark.parametrize(
    ("status", "words", "asked"),
    [
        (404, "no such path", ("GET", "/v1/nothing", {})),
        (404, "no such path", ("GET", "/../../etc/passwd", {})),
        (404, "no such path", ("GET", "/%2e%2e/%2e%2e/etc/passwd", {})),
        (404, "no such path", ("GET", "/v1/models/..%2f..%2fetc", {})),
        (404, "no such model", ("GET", "/v1/models/tts-1", {})),
        (405, "another way", ("GET", SPOKEN, {})),
        (404, f"ask for model={MODEL}", say(model="/etc/passwd")),
        (422, "Invalid JSON", ("POST", SPOKEN, {"content": b"{"})),
        (422, "Invalid JSON", ("POST", SPOKEN, {"content": b'{"input": "\\ud800", "model": "a"}'})),
        (422, "input: Field required", ("POST", SPOKEN, {"json": {"model": MODEL}})),
        (422, "input: Input should be a valid string", say(input=3)),
        (422, "there is no text", say(input=" ")),
        (422, "choose one of", say(voice=str(SPEECH))),
        (422, "response_format: ", say(response_format="mp3")),
        (422, "speed: ", say(speed=2)),
        (422, "temperature: ", say(temperature=-1)),
        (422, "seed: ", say(seed=1 << 32)),
        (422, "instructions: ", say(instructions="whisper")),
        (413, "longer than 1000 characters", say(input="a" * 1001)),
        (413, "larger than 2 MB", ("POST", SPOKEN, {"content": b" " * 2_000_001})),
        (413, "larger than 80384 bytes", ("POST", SPOKEN, {"json": dict.fromkeys(map(str, range(20_000)), 0)})),
        (422, ": Extra inputs", say(**{"k" * 50_000: 0})),
        (400, "no address", ("GET", "/v1/models", {"headers": {"origin": "http://["}})),
        (415, "multipart/form-data", ("POST", TRANSCRIPTIONS, {"json": {}})),
        (422, "has no file", ("POST", TRANSCRIPTIONS, {"data": {"a": "b"}, "files": {"x": b"1"}})),
        (422, "prompt is not read", send(TRANSCRIPTIONS, prompt="b")),
        (422, "json, text or", send(CAPTIONS, response_format="srt")),
        (415, "the file is not audio", send(TRANSCRIPTIONS, b"no audio" * 99)),
        (415, "empty", send(TRANSCRIPTIONS, ("../../a.wav", b""))),
        (415, "truncated", send(TRANSCRIPTIONS, wav()[:5000])),
        (413, "longer than 60 s", send(TRANSCRIPTIONS, wav(61))),
        (422, "window", send(RECONSTRUCTIONS, window="99")),
        (422, "whole numbers", send(RECONSTRUCTIONS, window="1" * 5000)),
        (422, "whole numbers", send(RECONSTRUCTIONS, levels="²")),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_with_its_status(server: Running, status: int, words: str, asked: Asked) -> None:
    method, path, given = asked
    answer = server.client.request(method, path, **given)
    error = answer.json()["error"]
    assert answer.status_code == status == error["code"] and words in error["message"], error
    assert "\n" not in error["message"] and len(error["message"]) < 300 and "/tmp" not in error["message"]
    assert len(error) == 4


@pytest.fixture
def go(server: Running, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is spoken until it is set."""
    go, step = threading.Event(), server.service.speaking._step

    def held(*given):
        go.wait(120)
        step(*given)

    monkeypatch.setattr(server.service.speaking, "_step", held)
    return go


def test_a_full_queue_and_a_full_server_say_so(server: Running, start, go: threading.Event) -> None:
    small = start("limits.requests=6")
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(server.speak) for _ in range(8)]  # four places, and four to wait for them
        wait_until(lambda: len(server.service.speaking.asked) == 8)
        refused = server.speak()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["message"]
        sockets = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(6)]
        for one in sockets:  # bodies that are on their way
            one.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        wait_until(lambda: small.client.get("/v1/models").status_code != 200)
        full = small.client.get("/v1/models")
        assert full.status_code == 503 and full.headers["retry-after"] == "1"
        assert small.client.get("/health").status_code == 200, "it is full, and well"
        for one in sockets:
            one.close()
        go.set()
        assert {one.result().status_code for one in asked} == {200}
    assert server.idle()


def test_a_client_that_leaves_frees_its_place(server: Running, go: threading.Event) -> None:
    body = json.dumps(SAY).encode()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    for one in clients:
        head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        one.sendall(head.encode() + body)
    wait_until(lambda: len(server.service.speaking.asked) == 8)
    for one in clients:
        one.close()
    wait_until(lambda: not server.service.speaking.asked)  # their places are free at once, though nothing moves
    go.set()
    assert server.idle() and server.speak().status_code == 200


def test_who_may_ask(server: Running, start, capfd: pytest.CaptureFixture) -> None:
    key = "a-key-of-ours"
    keyed = start(key=key)
    for headers, status in [
        ({}, 401), ({"authorization": "Bearer a-key-of-theirs"}, 401), ({"authorization": key}, 401),
        ({"authorization": "Bearer schlüssel"}, 401), ({"authorization": f"Bearer {key}"}, 200),
    ]:  # fmt: skip
        given = {name: value.encode() for name, value in headers.items()}
        for path in ("/v1/models", "/metrics"):
            assert keyed.client.get(path, headers=given).status_code == status, headers
    assert keyed.client.get("/health").status_code == keyed.client.get("/").status_code == 200
    ask = server.client.get
    own = f"127.0.0.1:{server.port}"
    for headers, status in [
        ({"origin": "http://elsewhere.example"}, 403), ({"origin": "null"}, 403), ({"origin": f"http://{own}"}, 200),
        ({"host": "elsewhere.example"}, 403), ({"host": "127.0.0.1.elsewhere.example"}, 403),
        ({"host": "[::1]:1"}, 200),
        ({"host": "localhost"}, 200), ({"host": ""}, 403),
        ({"host": "[[::1]"}, 400), ({"host": "["}, 400), ({"host": "a[b]"}, 400),
    ]:  # fmt: skip
        assert ask("/v1/models", headers=headers).status_code == status, headers
    assert not {name for name in ask("/v1/models").headers if name.startswith("access-control")}
    out = "".join(capfd.readouterr())
    assert key not in out and "elsewhere" not in out


# ---- what is sent to harm it -------------------------------------------------------------------------------------
def raw(port: int, *parts: bytes) -> bytes:
    """What comes back for these bytes, until the server closes or has told an error."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        try:
            for part in parts:
                one.sendall(part)
            while not found.endswith(b"}}") and (more := one.recv(1 << 16)):
                found += more
        except ConnectionError:
            return found
    return found


def hours_of_flac() -> bytes:
    """A FLAC of a few kB per minute that decodes to hours: silence, whose header leaves its length open."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1000, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(90):
            sound.write(np.zeros(60_000, np.int16))
    data = bytearray(file.getvalue())
    data[21] &= 0xF0  # total samples of STREAMINFO, 36 bits: unknown
    data[22:26] = bytes(4)
    return bytes(data)


def test_it_lives_on_whatever_is_sent(server: Running, capfd: pytest.CaptureFixture) -> None:
    port, head = server.port, b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\n"
    # 200 MB in pieces, of no announced length: refused long before they are there
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(200):
                one.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
                sent += 1
            answer = one.recv(1 << 16)
        except ConnectionError:
            answer = b"cut"
    assert answer == b"cut" or b" 413 " in answer.split(b"\r\n")[0]
    assert raw(port, head + b"content-length: 200000000\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    bomb = hours_of_flac()
    assert len(bomb) < 200_000
    long = server.client.post(TRANSCRIPTIONS, files={"file": ("a.flac", bomb)})
    assert long.status_code == 413 and "longer than 60 s" in long.json()["error"]["message"]
    for name in ("../../etc/passwd", "/etc/passwd", "a\x00b", "a.raw", "x" * 9999):
        files = {"file": (name, b"no audio at all")}
        assert server.client.post(TRANSCRIPTIONS, files=files).status_code in (400, 415)
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"x" * 200_000, b"GET /\r\n\r\n"):
        answer = raw(port, noise)
        assert not answer or (answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")) and b'{"error": ' in answer)
    # half a request, half a body, byte by byte, and nothing at all: the server closes, without waiting for ever
    halves = [(head + b"content-length: 99\r\n\r\n", b'{"model": '), (head,), ()]
    with ThreadPoolExecutor() as pool:
        body, request, nothing = pool.map(lambda parts: raw(port, *parts), halves)
    assert b" 408 " in body and request == nothing == b""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 1 << 16, hard))
    many = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(1000)]
    for number, one in enumerate(many):
        one.sendall(head[: number % len(head)])
    assert server.speak().status_code == 200  # served among them
    for one in many:
        one.settimeout(60)
        try:
            assert one.recv(10) == b""  # each of them is closed
        except ConnectionError:
            pass  # or reset
        one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # one that asks for speech and leaves in its middle
    asked = {"model": MODEL, "input": SAID}
    for _ in range(5):
        with server.client.stream("POST", SPOKEN, json=asked) as answer:
            next(answer.iter_bytes())
    assert server.idle()
    assert server.speak().status_code == 200 and server.client.get("/health").status_code == 200
    out = "".join(capfd.readouterr())
    assert "purple" not in out and "Traceback" not in out


def test_connections_leave_files_for_the_rest(start, monkeypatch: pytest.MonkeyPatch) -> None:
    few = start()
    assert few.client.get("/health").status_code == 200
    monkeypatch.setattr(gate, "most_connections", lambda: 5)
    idle = [socket.create_connection(("127.0.0.1", few.port), timeout=60) for _ in range(20)]
    answered = 0
    for one in idle:
        try:
            one.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answered += one.recv(4) == b"HTTP"
        except ConnectionError:
            pass
        one.close()
    assert answered == 4, "with the client's own, five are kept"
    assert few.client.get("/health").status_code == 200


def test_an_error_of_ours_is_told_without_what_was_asked(server: Running, monkeypatch, capfd) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot say {SAID}")

    monkeypatch.setattr(server.service.model, "speech", broken)
    answer = server.speak()
    assert answer.status_code == 500 and "purple" not in answer.text
    assert answer.headers["content-type"] == "application/json"
    out, until = "", time.monotonic() + 60
    while "in broken" not in out and time.monotonic() < until:  # the answer may be here before the log
        out += capfd.readouterr().err
    assert "RuntimeError" in out and "in broken" in out and "purple" not in out
