"""The codec without torch: the two ONNX graphs that ``scripts/export_onnx.py`` writes, run by onnxruntime.

    from codec.onnx_codec import OnnxCodec
    codec = OnnxCodec("codec-onnx")
    codes = codec.encode(wav)       # [samples] float32 at codec.sample_rate → [levels, windows] int64
    wav = codec.decode(codes)       # → [samples] float32

    state = None                    # codes that come in pieces
    for piece in source:            # [levels, windows], any number of windows
        wav, state = codec.decode_stream(piece, state)
    wav, state = codec.decode_stream(piece[:, :0], state, last=True)

Needs numpy and onnxruntime only; this file imports nothing else of ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "almkit-onnx-2"
CARD = "codec.json"
PIECE_SECONDS = 30.0  # of a long clip, as codec/network/streaming.py takes them


class OnnxCodecError(ValueError):
    """A folder that holds no exported codec, or input that it cannot take; one sentence."""


@dataclass(frozen=True)
class DecoderState:
    """Where a stream of codes stands.

    Attributes:
        codes: ``[levels, windows]`` from window ``first`` on, what later sound may still depend on.
        done: windows that have become sound.
        pulse, tones: phases of the excitation at window ``done``, in cycles.
    """

    codes: np.ndarray
    pulse: np.ndarray
    tones: np.ndarray
    first: int = 0
    done: int = 0


class OnnxCodec:
    """One exported codec.

    Args:
        folder: what the export wrote.
        int8: the graphs with 8-bit weights, where they were exported.
        threads: of onnxruntime; None: its own choice.

    Attributes:
        sample_rate: Hz, of what goes in and comes out.
        samples_per_frame: samples per window of codes.
        codebook_sizes: codes per level.
        fingerprint: of the codec whose codes these are.
    """

    def __init__(self, folder: str | Path, int8: bool = False, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise OnnxCodecError("an exported codec needs onnxruntime: pip install onnxruntime") from None
        self.folder = Path(folder)
        try:
            card: dict[str, Any] = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OnnxCodecError(
                f"{folder} holds no exported codec ({error}): python scripts/export_onnx.py makes one."
            ) from None
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            raise OnnxCodecError(f"{folder}: {CARD} is not of format {FORMAT}; export the codec again.")
        try:
            self.sample_rate = int(card["sample_rate"])
            self.samples_per_frame = int(card["samples_per_frame"])
            self.codebook_sizes = tuple(int(size) for size in card["codebook_sizes"])
            self.fingerprint = str(card["fingerprint"])
            self._shortest, (self._before, self._after) = int(card["shortest"]), map(int, card["around"])
        except (KeyError, TypeError, ValueError) as error:
            raise OnnxCodecError(f"{folder}: {CARD} is damaged ({error!r}); export the codec again.") from None
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads

        def session(name: str) -> Any:
            path = self.folder / (f"{name}.int8.onnx" if int8 else f"{name}.onnx")
            if not path.is_file():
                cure = "export the codec again" + (" with --int8." if int8 else ".")
                raise OnnxCodecError(f"{folder} lacks {path.name}; {cure}")
            try:
                return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its kinds have no base in common
                why = " ".join(str(error).split())
                raise OnnxCodecError(f"{path} is damaged ({why}); export the codec again.") from None

        self._encoder, self._decoder = session("encoder"), session("decoder")

    def encode(self, wav: np.ndarray) -> np.ndarray:
        """``wav [samples]`` float, within ±1, at ``sample_rate`` → codes ``[levels, windows]`` int64.

        Raises:
            OnnxCodecError: no samples, another shape, integers, or values that are not finite.
        """
        wav = np.asarray(wav)
        if wav.ndim != 1 or not len(wav) or wav.dtype.kind != "f" or not np.isfinite(wav).all():
            raise OnnxCodecError(f"wav must be finite floats [samples], not {wav.dtype} {list(wav.shape)}.")
        windows = -(-len(wav) // self.samples_per_frame)
        padded = np.zeros((1, max(windows, self._shortest) * self.samples_per_frame), np.float32)
        padded[0, : len(wav)] = wav
        (codes,) = self._encoder.run(None, {"wav": padded, "windows": np.array([windows], np.int64)})
        return codes[0, :, :windows]

    def decode(self, codes: np.ndarray, samples: int | None = None) -> np.ndarray:
        """``codes [levels, windows]`` → ``[samples]`` float32, cut to ``samples`` where given; long clips in pieces.

        Raises:
            OnnxCodecError: another shape, or codes that the codebooks do not have.
        """
        windows = self._checked(codes, least=1).shape[1]
        step = max(1, int(PIECE_SECONDS * self.sample_rate / self.samples_per_frame))
        if windows <= 2 * step:
            step = windows
        parts, state = [], None
        for start in range(0, windows, step):
            piece, state = self.decode_stream(codes[:, start : start + step], state, start + step >= windows)
            parts.append(piece)
        wav = np.concatenate(parts)
        return wav if samples is None else wav[:samples]

    def decode_stream(
        self, codes: np.ndarray, state: DecoderState | None = None, last: bool = False
    ) -> tuple[np.ndarray, DecoderState]:
        """The next ``codes [levels, windows]`` → sound ``[samples]`` as it becomes certain, and the state that follows.

        Each piece is decoded with the windows around it that it depends on; what pieces give together is what
        :meth:`decode` gives.

        Args:
            last: nothing follows; the rest comes out.

        Raises:
            OnnxCodecError: as :meth:`decode`.
        """
        codes = self._checked(codes)
        if state is None:
            tones = np.zeros(self._decoder.get_inputs()[-1].shape)
            state = DecoderState(codes[:, :0], tones[:, 0], tones)
        held = np.concatenate((state.codes, codes), axis=1)
        windows = held.shape[1]
        ready = state.first + windows - (0 if last else self._after)
        if ready <= state.done:
            return np.zeros(0, np.float32), replace(state, codes=held)
        padded = np.zeros((1, len(held), max(windows, self._shortest)), np.int64)
        padded[0, :, :windows] = held
        edges = np.array([state.done - state.first, ready - state.first])
        given = {"codes": padded, "windows": np.array([windows]), "edges": edges, "first": np.array([state.first])}
        wav, pulse, tones = self._decoder.run(None, given | {"pulse": state.pulse, "tones": state.tones})
        begin, end = edges * self.samples_per_frame
        first = max(state.first, ready - self._before)
        return wav[0, begin:end], DecoderState(held[:, first - state.first :], pulse, tones, first, ready)

    def _checked(self, codes: np.ndarray, least: int = 0) -> np.ndarray:
        codes = np.asarray(codes)
        levels = len(self.codebook_sizes)
        if codes.ndim != 2 or len(codes) != levels or codes.shape[1] < least or codes.dtype.kind not in "iu":
            raise OnnxCodecError(f"codes must be integers [{levels}, windows], not {codes.dtype} {list(codes.shape)}.")
        if codes.shape[1] and (codes.min() < 0 or (codes.max(axis=1) >= np.array(self.codebook_sizes)).any()):
            raise OnnxCodecError(f"codes must lie from 0 to below {list(self.codebook_sizes)}, level by level.")
        return codes
