"""What a codec's patchify owes a stream: which frames are certain, and how far back it must hear again."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Patchify(nn.Module, ABC):
    """Waveform → frames; a frame depends on the audio within ``reach``, wherever in a clip it lies."""

    @property
    @abstractmethod
    def reach(self) -> tuple[int, int]:
        """Frames of audio before and after its own that a frame may depend on."""

    def certain(self, frames: int) -> int:
        """Of so many frames of audio, those that nothing after them can change any more."""
        return frames - self.reach[1]

    def needed(self, ready: int) -> int:
        """The first frame of audio that frames from ``ready`` on depend on."""
        return max(0, ready - self.reach[0])

    def hear(self, wav: Tensor, start: int) -> Tensor:
        """``wav [batch, frames * hop]`` of a stream from frame ``start`` on → ``[batch, frames, dim]``."""
        return self(wav)
