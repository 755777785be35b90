"""Objectives of the training that leave nothing in the exported codec: masked autoencoding and autoregression.

MAE (paper section 3; stage 1): 20–30 % of the frames are masked, a small transformer encoder and decoder predict them
from the rest. The gradient reaches patchify through the frames that remain, and makes them carry what predicts their
neighbours. The target is detached: with a trainable target the constant solution lowers the loss.

AR (paper section 3, and the author's account of it): a small continuous transformer predicts the features of level l
from those of the levels before it; the gradient reaches the encoder through the straight-through path, so that deeper
levels become easier to predict for a language model. Reconstruction pays a little for it.

Experts (ALMTokenizer2, "phone decoder"): what the phone experts heard of each frame is predicted from the quantised
latents, so that codes keep it; theirs is two strided convolutions, ours the description of a window.

The networks' sizes and the weights are not stated in the paper: configuration keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.transformer import LocalTransformer, WindowSpread


def draw_mask(batch: int, frames: int, share: float, generator: torch.Generator, first: int = 0) -> Tensor:
    """Which frames are masked: exactly ``ceil(share * frames)`` of each row.

    Args:
        first: rows of the global batch before these, so that every number of processes draws the same masks.

    Returns:
        ``[batch, frames]`` bool, on the CPU (so that every device draws the same).
    """
    scores = torch.rand(first + batch, frames, generator=generator)[first:]
    wanted = int(-(-share * frames // 1))
    order = scores.argsort(dim=1, stable=True)
    mask = torch.zeros(batch, frames, dtype=torch.bool)
    return mask.scatter_(1, order[:, :wanted], True)


class MaskedAutoencoder(nn.Module):
    """Predicts masked frames.

    Args:
        dim: width of the frames and of both networks.
        encoder_layers, decoder_layers: depth of the two throw-away transformers.
    """

    def __init__(self, dim: int, encoder_layers: int, decoder_layers: int, head_dim: int, span: int) -> None:
        super().__init__()
        self.encoder = LocalTransformer(dim, encoder_layers, head_dim, span)
        self.decoder = LocalTransformer(dim, decoder_layers, head_dim, span)
        self.predict = nn.Linear(dim, dim)

    def features(self, frames: Tensor) -> Tensor:
        """Contextual features of unmasked ``frames [batch, frames, dim]``: what a semantic prior can be fitted to."""
        return self.encoder(frames, None, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the frames where ``mask [batch, frames]`` is True.

        Frames are compared after standardising each over its features, so that the loss does not depend on their
        scale, which patchify is free to choose.
        """
        hidden = self.encoder(frames.masked_fill(mask[..., None], 0.0), None, 1)
        predicted = self.predict(self.decoder(hidden, None, 1)).float()
        target = F.layer_norm(frames.detach().float(), frames.shape[-1:])
        error = (predicted - target).square().mean(-1)
        return (error * mask).sum() / mask.sum().clamp(min=1)


class LevelPredictor(nn.Module):
    """The AR objective: level l's features from those of the levels before it.

    Args:
        dim: dimension of the code vectors.
        levels: codebook levels.
    """

    def __init__(self, dim: int, levels: int, width: int, layers: int, head_dim: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, width)
        self.level = nn.Parameter(torch.randn(levels, width) * 0.02)
        # block_causal with blocks of one token is plain causal attention
        self.transformer = LocalTransformer(width, layers, head_dim, levels, block_causal=True)
        self.leave = nn.Linear(width, dim)

    def predictions(self, features: Tensor) -> Tensor:
        """Normalised features ``[batch, windows, levels, dim]`` → predictions of the next level, the same shape."""
        batch, windows, levels, _ = features.shape
        x = (self.enter(features) + self.level[:levels]).flatten(0, 1)
        return self.leave(self.transformer(x, None, 0)).view(batch, windows, levels, -1)

    def forward(self, latents: Tensor, per_level: Tensor) -> Tensor:
        """Mean squared error of levels 2…L, L2-normalised, targets detached.

        Args:
            latents: ``[batch, windows, dim]`` the quantiser's input: where the straight-through gradient goes.
            per_level: ``[levels, batch, windows, dim]`` dequantised vectors.
        """
        through = latents + (per_level - latents).detach()  # each level is the identity for the gradient
        features = F.normalize(through.permute(1, 2, 0, 3), dim=-1, eps=1e-6)
        predicted = self.predictions(features)
        if features.shape[2] == 1:  # level dropout left nothing to predict; the parameters stay in the graph
            return predicted.sum() * 0.0
        error = (predicted[:, :, :-1].float() - features[:, :, 1:].detach()).square().sum(-1)
        return error.mean()


class ExpertPredictor(nn.Module):
    """What the phone experts heard, from the quantised latents.

    Args:
        dim: of the latents that the decoder is given.
        phones: numbers of the phone experts per frame.
        basis: cosines that describe a window's frames.
    """

    def __init__(self, dim: int, phones: int, basis: int = 5) -> None:
        super().__init__()
        self.spread, self.predict = WindowSpread(dim, basis), nn.Linear(dim, phones)

    def forward(self, latents: Tensor, heard: Tensor) -> Tensor:
        """Mean squared error.

        Args:
            latents: ``[batch, windows, dim]``.
            heard: ``[batch, windows * w, phones]``, normalised.
        """
        frames = self.spread(latents, heard.shape[1] // latents.shape[1])
        return (self.predict(F.silu(frames)).float() - heard.float()).square().mean()
