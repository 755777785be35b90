"""The plain alternative to queries: strided convolutions from frames to windows, transposed ones back.

::

    frames (75 Hz) ─ residual units ─ strided convolution, stride w ─► latents
    latents ─ RVQ ─ transposed convolution ─ residual units ─► frames

The baseline that a query-based codec has to beat (``codec.bottleneck=strided``): the ends, the quantiser, the losses
and the data are the same, and residual units (as in DAC, Kumar et al., 2023) stand where the transformers stand. Its
window is built in, where queries choose theirs at run time.

Padding is with zeros, and what lies beyond a clip's last window is set to zero before each convolution, so a clip in a
padded batch gives the same latents as alone. ``causal`` pads on the left only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.convolutions import DownConv, ResidualUnit, UpConv, silence_padding

DILATIONS = (1, 3, 9)  # of the units in turn
KERNEL = 7


class StridedStack(nn.Module, ABC):
    """What both directions share.

    Args:
        units: residual units at the rate of the frames.
        window: frames per latent.
        causal: no output depends on a later window.
    """

    inputs: int  # per window
    outputs: int  # per window

    def __init__(self, dim: int, units: int, window: int, causal: bool) -> None:
        super().__init__()
        self.window = window
        self.units = nn.ModuleList(
            ResidualUnit(dim, causal, hidden=dim, kernel=KERNEL, dilation=DILATIONS[i % len(DILATIONS)])
            for i in range(units)
        )

    def _through_units(self, low: int, high: int) -> tuple[int, int]:
        """First and last frame that the units' outputs ``low … high`` depend on."""
        for unit in reversed(self.units):
            low, high = unit.inner.inputs(low, high)  # type: ignore[operator, union-attr]
        return low, high

    @property
    @abstractmethod
    def reach(self) -> tuple[int, int]:
        """Windows before and after its own that a window's output depends on."""


class StridedEncoder(StridedStack):
    """Frames ``[batch, windows * w, dim]`` → latents ``[batch, windows, dim]``."""

    def __init__(self, dim: int, units: int, window: int, causal: bool) -> None:
        super().__init__(dim, units, window, causal)
        self.inputs, self.outputs = window, 1
        self.down = DownConv(dim, dim, window, causal)

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """``valid [batch, windows]`` bool or None."""
        x = silence_padding(frames.transpose(1, 2), valid)
        for unit in self.units:
            x = unit(x, valid)
        return self.down(silence_padding(F.elu(x), valid)).transpose(1, 2)

    @property
    def reach(self) -> tuple[int, int]:
        low, high = self._through_units(*self.down.inputs(0, 0))
        return -(low // self.window), high // self.window


class StridedDecoder(StridedStack):
    """Latents ``[batch, windows, dim]`` → frames ``[batch, windows * w, dim]``."""

    def __init__(self, dim: int, units: int, window: int, causal: bool) -> None:
        super().__init__(dim, units, window, causal)
        self.inputs, self.outputs = 1, window
        self.up = UpConv(dim, dim, window, causal)

    def forward(self, latents: Tensor, valid: Tensor | None = None) -> Tensor:
        """``valid [batch, windows]`` bool or None."""
        x = self.up(silence_padding(latents.transpose(1, 2), valid))
        for unit in self.units:
            x = unit(x, valid)
        return x.transpose(1, 2)

    @property
    def reach(self) -> tuple[int, int]:
        low, high = self.up.inputs(*self._through_units(0, self.window - 1))
        return -low, high
