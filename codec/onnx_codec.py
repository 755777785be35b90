"""The codec without torch: the two ONNX graphs that ``scripts/export_onnx.py`` writes, run by onnxruntime.

    from codec.onnx_codec import OnnxCodec
    codec = OnnxCodec("codec-onnx")
    codes = codec.encode(wav)       # [samples] float32 at codec.sample_rate → [levels, windows] int64
    wav = codec.decode(codes)       # → [samples] float32

Needs numpy and onnxruntime only; this file imports nothing else of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "almkit-onnx-1"
CARD = "codec.json"


class OnnxCodecError(ValueError):
    """A folder that holds no exported codec, or input that it cannot take; one sentence."""


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
        import onnxruntime

        self.folder = Path(folder)
        try:
            card: dict[str, Any] = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OnnxCodecError(
                f"{folder} holds no exported codec ({error}): python scripts/export_onnx.py makes one."
            ) from None
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            raise OnnxCodecError(f"{folder}: {CARD} is not of format {FORMAT}; export the codec again.")
        self.sample_rate = int(card["sample_rate"])
        self.samples_per_frame = int(card["samples_per_frame"])
        self.codebook_sizes = tuple(int(size) for size in card["codebook_sizes"])
        self.fingerprint = str(card["fingerprint"])
        self._shortest = int(card["shortest"])
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads

        def session(name: str) -> Any:
            path = self.folder / (f"{name}.int8.onnx" if int8 else f"{name}.onnx")
            if not path.is_file():
                cure = "export the codec again" + (" with --int8." if int8 else ".")
                raise OnnxCodecError(f"{folder} lacks {path.name}; {cure}")
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

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
        """``codes [levels, windows]`` → ``[samples]`` float32, cut to ``samples`` where it is given.

        Raises:
            OnnxCodecError: another shape, or codes that the codebooks do not have.
        """
        codes = np.asarray(codes)
        levels = len(self.codebook_sizes)
        if codes.ndim != 2 or codes.shape[0] != levels or not codes.shape[1] or codes.dtype.kind not in "iu":
            raise OnnxCodecError(f"codes must be integers [{levels}, windows], not {codes.dtype} {list(codes.shape)}.")
        if codes.min() < 0 or (codes.max(axis=1) >= np.array(self.codebook_sizes)).any():
            raise OnnxCodecError(f"codes must lie from 0 to below {list(self.codebook_sizes)}, level by level.")
        windows = codes.shape[1]
        padded = np.zeros((1, levels, max(windows, self._shortest)), np.int64)
        padded[0, :, :windows] = codes
        (wav,) = self._decoder.run(None, {"codes": padded, "windows": np.array([windows], np.int64)})
        whole = windows * self.samples_per_frame
        return wav[0, : whole if samples is None else min(samples, whole)]
