"""Sound as the bytes of a file, piece by piece while it is made.

    encoder = Encoder("flac", 24_000)
    for piece in pieces: send(encoder.feed(piece))
    send(encoder.finish())

Nobody knows the length when the first bytes leave, so headers leave it open: in WAV it is the largest that there is, in
FLAC "unknown", as both formats foresee. Ogg Opus and PCM (16 bit, little-endian, no header) state none.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

MEDIA = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg", "pcm": "audio/pcm"}
CODINGS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}  # as libsndfile calls them
OPEN = 0xFFFFFFFF  # bytes of a WAV file whose length is not known


class Encoder:
    """One clip, mono.

    Args:
        kind: one of `MEDIA`.
        rate: of the sound, Hz.
    """

    def __init__(self, kind: str, rate: int) -> None:
        self._buffer, self._file, self._head = io.BytesIO(), None, b""
        self._sent = 0
        if kind in CODINGS:
            container, coding = CODINGS[kind]
            self._file = soundfile.SoundFile(self._buffer, "w", rate, 1, format=container, subtype=coding)
        elif kind == "wav":
            layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
            self._head = struct.pack("<4sI4s", b"RIFF", OPEN, b"WAVE") + layout + struct.pack("<4sI", b"data", OPEN)

    def feed(self, piece: np.ndarray) -> bytes:
        """The bytes that ``piece``, float32 ``[samples]``, adds."""
        samples = np.clip(piece, -1, 1)
        if self._file is not None:
            self._file.write(samples)
            return self._new()
        head, self._head = self._head, b""
        return head + (samples * 32767).astype("<i2").tobytes()

    def finish(self) -> bytes:
        """The last bytes."""
        if self._file is None:
            return self._head
        self._file.close()  # what it puts into the header now has been sent
        return self._new()

    def _new(self) -> bytes:
        """What the file has grown by."""
        self._buffer.seek(self._sent)
        new = self._buffer.read()
        self._sent += len(new)
        return new
