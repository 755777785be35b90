"""Embeddings frame by frame: EnCodec's encoder, and hidden layers of self-supervised speech and music networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModel, EncodecModel

from eval.harness.audio import RESAMPLER, Wave, check_wave, pieces, resample
from eval.harness.networks import NetworkError, describe_network, load_network, load_part

SHORTEST = 0.1  # s
LONGEST = 30.0  # s in one piece


class EncodecFrames:
    """EnCodec's encoder before quantisation (``encodec-emb`` of fadtk): ``[frames, 128]`` at 75 Hz for the 24 kHz one.

    Args:
        path: folder or hub id, for example ``facebook/encodec_24khz``.
    """

    name = "encodec"

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.network = load_network(EncodecModel, path, device, "encodec")
        if self.network.config.audio_channels != 1:
            raise NetworkError(f"weights.encodec={path} is stereo: use a mono model such as facebook/encodec_24khz.")
        self.path, self.device, self.rate = path, device, int(self.network.config.sampling_rate)

    @torch.inference_mode()
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """``[frames, d]`` of one clip."""
        check_wave(wav, sample_rate, SHORTEST)
        samples = torch.from_numpy(resample(wav, sample_rate, self.rate)).to(self.device)
        return self.network.encoder(samples[None, None])[0].T.float().cpu().numpy()

    def how(self) -> dict[str, Any]:
        """What a result records about this embedding."""
        return describe_network(self.path, self.network) | {"sample_rate": self.rate, "resampler": RESAMPLER}


class SSLFrames:
    """A hidden layer of wav2vec 2.0, HuBERT, WavLM, MERT or their like: ``[frames, d]`` at about 50 Hz.

    Args:
        path: folder or hub id.
        layer: index into the hidden states; 0 is the input of the first layer, −1 the last output.
    """

    name = "ssl"

    def __init__(self, path: str, device: str = "cpu", layer: int = -1) -> None:
        self.network = load_network(AutoModel, path, device, "ssl")
        self.extractor = load_part(AutoFeatureExtractor, path, "ssl")
        layers = self.network.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise NetworkError(f"weights.ssl={path} has the hidden states 0 to {layers}: layer={layer} is none.")
        self.path, self.device, self.layer = path, device, layer
        self.rate = int(self.extractor.sampling_rate)

    @torch.inference_mode()
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """``[frames, d]`` of one clip; more than 30 s are embedded in equal pieces."""
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, self.rate)
        found = []
        for piece in pieces(samples, self.rate, LONGEST):
            inputs = self.extractor(piece, sampling_rate=self.rate, return_tensors="pt")
            states = self.network(inputs.input_values.to(self.device), output_hidden_states=True).hidden_states
            found.append(states[self.layer][0].float().cpu().numpy())
        return np.concatenate(found)

    def how(self) -> dict[str, Any]:
        """What a result records about this embedding."""
        return describe_network(self.path, self.network) | {
            "layer": self.layer,
            "sample_rate": self.rate,
            "resampler": RESAMPLER,
        }
