"""The server: a trained language model behind OpenAI's interface for speech and transcriptions, and a page to try it.

    python lm/serve.py
    python lm/serve.py model=runs/lm-tts/final port=8080
    ALMKIT_API_KEY=… python lm/serve.py host=0.0.0.0

Requests are batched, wait in a bounded queue, and have limits (configs/serve.yaml); docs/serving.md lists the paths.
SIGTERM and Ctrl-C let what is being answered end.
"""

from __future__ import annotations

import training.help  # noqa: F401

import asyncio
import copy
import os
import socket
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig

from codec.files import Codec
from codec.interface import TokenizerError
from codec.load import load_tokenizer
from lm.audio_model import AudioModel
from lm.model import ModelError
from lm.run_state import model_folder
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from training.config import ConfigError, hydra_entry, refusing
from training.launch import pick_device
from training.stopping import Stop
from training.streams import say
from training.threads import set_threads

KEY = "ALMKIT_API_KEY"
ENDING = 5.0  # seconds that a step of what nobody waits for any more may still take
if None in map(find_spec, ("fastapi", "prometheus_client", "python_multipart", "uvicorn")):
    raise ConfigError('the server needs packages of its own: pip install "almkit[serve]".')

import uvicorn  # noqa: E402

from lm.serving.api import Service, application  # noqa: E402
from lm.serving.gate import LOOPBACK, Gate, patient  # noqa: E402


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises ConfigError where it cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(f"host={host} port={port}: {error.strerror}: choose others.") from None
    except ValueError:  # of the encoding of internationalised names
        raise ConfigError(f"host={host[:80]} is no name of a machine and no address: choose another.") from None


def service_of(cfg: DictConfig) -> Service:
    """The model at work, warm: the first request is as fast as the next."""
    device = pick_device(cfg.device)
    with refusing(ModelError, TokenizerError, TextTokenizerError, VocabularyError):
        model = AudioModel(model_folder(cfg.model, "tts"), load_tokenizer(cfg.tokenizer, device), device)
        model.load()
        if "tts" in model.learnt or not model.learnt:
            list(model.stream("a", seed=0))
        codec = variants_of(Codec.open(cfg.reconstructor, device))
    return Service(model, codec, cfg)


def variants_of(codec: Codec) -> Callable[[int | None, int | None], Codec]:
    """(window, levels) → ``codec`` with them, from the weights in memory: nobody's choice makes the disk be read."""

    @lru_cache(maxsize=4)
    def variant(window: int | None, levels: int | None) -> Codec:
        tokenizer: Any = codec.tokenizer
        weights = {id(one): one for one in (*tokenizer.parameters(), *tokenizer.buffers())}
        tokenizer = copy.deepcopy(tokenizer, weights)  # all but these
        if window is not None:
            tokenizer.set_window(window)
        if levels is not None:
            tokenizer.set_levels(levels)
        return Codec(tokenizer)

    return variant


def server_of(cfg: DictConfig, service: Service, key: str | None) -> uvicorn.Server:
    """What answers for ``service``; requests must bear ``key``, where there is one."""
    gate = Gate(application(service), key, cfg.host in LOOPBACK, cfg.limits, service.metrics.answered)
    settings = uvicorn.Config(
        gate, log_level="critical", access_log=False, lifespan="off", ws="none", server_header=False,
        http=patient(cfg.limits.upload_seconds), timeout_graceful_shutdown=cfg.drain_seconds,
    )  # fmt: skip
    return uvicorn.Server(settings)


async def served(server: uvicorn.Server, bound: socket.socket, service: Service, stop: Stop) -> bool:
    """Answer until a signal comes, then what has been asked; whether nothing is computed any more."""

    async def watch() -> None:
        """uvicorn hears signals from its start on, and one may have come before."""
        while not stop.asked:
            await asyncio.sleep(0.1)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    await server.serve([bound])
    watching.cancel()
    return await asyncio.to_thread(service.close, ENDING)


def serve(cfg: DictConfig) -> None:
    """Serve until a signal comes."""
    key = os.environ.get(KEY, "").strip() or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY} must be of printable ASCII: no header can carry another key.")
    if cfg.host not in LOOPBACK and key is None:
        raise ConfigError(f"host={cfg.host} is open to others: set a key in the environment variable {KEY}.")
    set_threads(cfg.threads)
    bound = listening(cfg.host, cfg.port)
    stop = Stop().listen()
    service = service_of(cfg)
    host = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
    print(f"{service.name} at http://{host}:{bound.getsockname()[1]}/; Ctrl-C ends it.", flush=True)
    ended = asyncio.run(served(server_of(cfg, service, key), bound, service, stop))
    stop.close()
    if not ended:
        say("ended; what was in work is left, and was for nobody any more.")
        os._exit(stop.status)  # Python would end under a thread that computes
    say("ended; what was being answered was let end first.")
    stop.leave()


@hydra_entry("serve")
def main(cfg: DictConfig) -> None:
    serve(cfg)


if __name__ == "__main__":
    main()
