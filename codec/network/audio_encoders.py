"""Encoders whose features the semantic prior is fitted to: any transformers audio encoder, or a codec of ours.

`load_encoder` returns an `Encoder`: features of a clip of any length, none of which stands for padding or a special
token. Three kinds of transformers encoder give something else than a vector per moment of the clip:

* **fixed-length log-mel encoders** (Whisper and those that took over its input: Qwen2-Audio, Voxtral, …) hear 30 s:
  shorter clips are padded, longer ones would be cut;
* **AST** hears about 10 s, and gives a grid of patches, frequency by time, behind two special tokens;
* **CLAP**'s audio tower hears 10 s, repeats shorter clips, and folds time into the rows of an image.

Here such an encoder hears a long clip window by window, its patches are averaged over frequency (ours), and vectors
beyond the end of the clip are dropped. Of encoder-decoder and audio-text models the audio encoder alone is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from codec.audio.mel import mel_filters
from codec.interface import TokenizerError
from codec.network.architecture import ALMTokenizerConfig, check_architecture
from codec.network.ctc import SAMPLE_RATE, CTCRecogniser
from codec.network.ends import build_ends
from codec.network.patchify import spectrum
from codec.network.transformer import LocalTransformer
from codec.pretrained import load_whole
from training.config import ConfigError, refusing
from training.places import beside_code
from training.pretrained import PretrainedError, description, load_model, load_part, telling

KNOWN = (
    "Encoders that work: wav2vec 2.0, HuBERT, WavLM, wav2vec2-BERT, Whisper (speech); AST, CLAP (any sound); BEATs is "
    "not part of transformers, and a model that brings Python code of its own needs trust_remote_code: true in its "
    "source."
)


@dataclass
class Encoder:
    """What turns a clip into features.

    Attributes:
        features: ``[samples]`` at ``rate`` on the CPU → ``[n, dim]`` float32 on the CPU.
        rate: Hz.
        step: samples that one feature stands for; None: the features spread evenly over the clip, whatever its length.
        revision: commit of the hub that it came from; None for a folder.
    """

    features: Callable[[Tensor], Tensor]
    rate: int
    step: float | None = None
    revision: str | None = None

    def averages(self, wav: Tensor, windows: int) -> Tensor:
        """Averages of the features of ``wav [samples]`` over ``windows`` equal parts of it: ``[windows, dim]``."""
        found = self.features(wav)
        if self.step is None:
            return F.adaptive_avg_pool1d(found.T[None], windows)[0].T
        # the last feature reaches beyond the clip: spread evenly, all would come too early
        edges = torch.arange(len(found) + 1) * self.step
        cuts = torch.linspace(0, len(wav), windows + 1)
        shared = torch.minimum(edges[1:], cuts[1:, None]) - torch.maximum(edges[:-1], cuts[:-1, None])  # [windows, n]
        shared = shared.clamp(min=0)
        return shared @ found / shared.sum(1, keepdim=True)


def load_encoder(path: str, layer: int, device: torch.device, trust_remote_code: bool = False) -> Encoder:
    """The encoder that ``path`` names: ``log-mel``, a folder of codec/train.py (a checkpoint or final/), a folder of
    scripts/train_recogniser.py, else a `transformers_encoder`.

    Raises:
        ConfigError: in one sentence.
    """
    if path == "log-mel":
        return Encoder(log_mel, MEL_RATE, MEL_HOP)
    folder = beside_code(path)
    with refusing(PretrainedError, key="the encoder cannot be taken"):
        said = description(folder) if (folder / "config.json").is_file() else {}
    if said.get("model_type") == ALMTokenizerConfig.model_type:
        return codec_encoder(folder, device)
    if said.get("architecture") == "CTCRecogniser":
        return ctc_encoder(folder, device)
    return transformers_encoder(path, layer, device, trust_remote_code)


MEL_RATE, MEL_HOP, MEL_WINDOW, MEL_BANDS = 16_000, 160, 640, 80


def log_mel(wav: Tensor) -> Tensor:
    """``[samples]`` at 16 kHz → log-mel magnitudes ``[n, 80]``, 100 per second, which need no weights."""
    whole = F.pad(wav, (0, -len(wav) % MEL_HOP))[None]
    filters = torch.from_numpy(mel_filters(MEL_RATE, MEL_WINDOW, MEL_BANDS, area=False))
    return torch.log(spectrum(whole, MEL_WINDOW, MEL_HOP)[0].abs() @ filters.T + 1e-4)


class PatchifyAlone(PreTrainedModel):
    """The patchify of a codec alone, whatever else its folder holds."""

    config_class = ALMTokenizerConfig

    def __init__(self, config: ALMTokenizerConfig) -> None:
        super().__init__(config)
        check_architecture(config)
        if config.patchify == "experts":
            raise ValueError("its patchify hears by experts of its own, and can be none.")
        self.patchify = build_ends(config, config.encoder_dim, config.encoder_dim)[0]  # of no decoder
        self.post_init()


def codec_encoder(folder: Path, device: torch.device) -> Encoder:
    """Frames of a codec, through the MAE encoder where the folder holds one (a training checkpoint)."""
    with refusing(TokenizerError):
        ends = load_whole(PatchifyAlone, folder).eval().to(device)
    c = ends.config
    mae: LocalTransformer | None = None
    if (folder / "objectives.safetensors").is_file():
        with refusing(PretrainedError), telling(folder, "the MAE encoder in "):
            state = load_file(folder / "objectives.safetensors")
            state = {key.removeprefix("mae."): value for key, value in state.items() if key.startswith("mae.")}
            if state:
                state = {key.removeprefix("encoder."): v for key, v in state.items() if key.startswith("encoder.")}
                depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
                mae = LocalTransformer(c.encoder_dim, depth, c.head_dim, c.span).eval()
                mae.load_state_dict(state)
                mae.to(device)

    def features(wav: Tensor) -> Tensor:
        frames = ends.patchify(wav[None, : len(wav) // c.hop * c.hop].to(device))
        return (frames if mae is None else mae(frames, None, 1))[0].float().cpu()

    return Encoder(features, c.sample_rate)


def ctc_encoder(folder: Path, device: torch.device) -> Encoder:
    """What a small CTC recogniser reads characters from, 25 times per second."""
    with refusing(PretrainedError):
        recogniser = CTCRecogniser.load(folder).to(device)

    def features(wav: Tensor) -> Tensor:
        hidden, frames = recogniser.hidden(wav[None].to(device), torch.tensor([len(wav)], device=device))
        return hidden[0, : int(frames)].float().cpu()

    return Encoder(features, SAMPLE_RATE)


def transformers_encoder(path: str, layer: int, device: torch.device, trust_remote_code: bool = False) -> Encoder:
    """Hidden states of ``layer`` (0: the input of the first block) of a transformers audio encoder.

    Args:
        path: a local folder or a hub id, which ORG/NAME@REVISION pins, with the configuration of its feature extractor.
        trust_remote_code: run the Python files that come with the model (MERT, or a BEATs of one's own); one from the
            hub must be pinned to a commit.

    Raises:
        ConfigError: transformers cannot load it, it needs more than audio, it has no such layer, or what it gives
            neither follows the clip's length nor is one of the three kinds above.
    """
    from transformers import AutoFeatureExtractor, AutoModel

    try:
        extractor = load_part(AutoFeatureExtractor, path, trust_remote_code)
        # half-precision checkpoints are run in float32, as their extractors' features come
        model, info = load_model(AutoModel, path, trust_remote_code)
    except PretrainedError as error:
        raise ConfigError(f"the encoder cannot be taken: {error} {KNOWN}") from error
    if unset := [key for key in info["missing_keys"] if "pooler" not in key and "decoder." not in key]:
        raise ConfigError(f"'{path}' lacks weights of {type(model).__name__} ({', '.join(unset[:3])} …). {KNOWN}")
    rate = getattr(extractor, "sampling_rate", None)  # Hz
    kind = model.config.model_type
    if rate is None:
        raise ConfigError(f"'{path}' ({kind}) takes no audio: its {type(extractor).__name__} has no sampling rate.")
    encoder = audio_part(model).eval().to(device)

    def hidden_state(wav: Tensor) -> Tensor:
        inputs = extractor(wav.numpy(), sampling_rate=rate, return_tensors="pt").to(device)
        found = encoder(**inputs, output_hidden_states=True).hidden_states
        if found is None:
            raise ConfigError(f"'{path}' ({kind}) gives no hidden states. {KNOWN}")
        if not -len(found) <= layer < len(found):
            raise ConfigError(f"layer={layer}: '{path}' has layers 0 to {len(found) - 1}.")
        return found[layer].cpu()

    try:
        with torch.inference_mode():
            noise = 0.1 * torch.randn(4 * rate, generator=torch.Generator().manual_seed(0))
            window = window_of(encoder, extractor)
            if window is not None:
                steps = len(window.arrange(hidden_state(noise[: min(len(noise), window.samples)])))
            else:
                short, long = hidden_state(noise[: 2 * rate]), hidden_state(noise)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        said = f"'{path}' ({kind}) gives no features of audio alone: {first_sentence(error)}"
        raise ConfigError(f"{said} {KNOWN}") from error
    if window is not None:
        return Encoder(windowed(hidden_state, window, steps), rate, window.samples / steps, model.revision)
    if long.dim() != 3 or len(long) != 1 or not 1.5 * short.shape[1] < long.shape[1] < 2.5 * short.shape[1]:
        raise ConfigError(
            f"'{path}' ({kind}) gives hidden states {list(short.shape)} for 2 s and {list(long.shape)} for 4 s of "
            f"audio, which cannot be aligned with time. {KNOWN}"
        )
    return Encoder(lambda wav: hidden_state(wav)[0].float(), rate, revision=model.revision)


def first_sentence(error: Exception) -> str:
    """The first sentence of what ``error`` says; the rest of it is advice on transformers."""
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0].split(". ")[0].rstrip(". :") + "."


def audio_part(model: nn.Module) -> nn.Module:
    """The part of a transformers model that hears: audio tower, encoder of an encoder-decoder model, or all of it."""
    for name in ("audio_tower", "audio_model", "speech_encoder"):  # Qwen2-Audio and its like; CLAP; SeamlessM4T
        if isinstance(tower := getattr(model, name, None), nn.Module):
            return tower
    return model.get_encoder() if model.config.is_encoder_decoder else model


@dataclass
class Window:
    """The stretch of audio that an encoder hears.

    Attributes:
        samples: its length; shorter clips are padded to it by the feature extractor.
        arrange: a hidden state of one window → ``[steps, dim]``, in time.
    """

    samples: int
    arrange: Callable[[Tensor], Tensor]


def window_of(encoder: nn.Module, extractor: Any) -> Window | None:
    """The window of the encoders that have one (see the top of this file), else None."""
    from transformers import WhisperFeatureExtractor

    config = encoder.config
    if config.model_type == "audio-spectrogram-transformer":
        # patches every frequency_stride bands and time_stride frames of 10 ms, one frequency after the other
        rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        steps = (config.max_length - config.patch_size) // config.time_stride + 1
        # (a patch reaches a little beyond its step); the two tokens in front are CLS and distillation
        return Window(
            steps * config.time_stride * extractor.sampling_rate // 100,
            lambda hidden: hidden[0, 2:].unflatten(0, (rows, steps)).mean(0),
        )
    if config.model_type == "clap_audio_model":
        # [1, dim, height, width]: height is spec_size / num_mel_bins consecutive parts of the time, each of all bands
        parts = config.spec_size // config.num_mel_bins
        return Window(
            extractor.nb_max_samples,
            lambda hidden: hidden[0].unflatten(1, (parts, -1)).mean(2).flatten(1).T,
        )
    if isinstance(extractor, WhisperFeatureExtractor):
        return Window(extractor.n_samples, lambda hidden: hidden[0])
    return None


def windowed(hidden_state: Callable[[Tensor], Tensor], window: Window, steps: int) -> Callable[[Tensor], Tensor]:
    """Features of clips of any length by an encoder that gives ``steps`` for a window: ``[ceil(length / step), dim]``.

    A clip's last window begins earlier where it would be short: it then hears audio in front instead of padding.
    """

    def features(wav: Tensor) -> Tensor:
        total = -(-len(wav) * steps // window.samples)
        found: list[Tensor] = []
        for first in range(0, total, steps):
            begin = max(0, min(first, total - steps))
            start = begin * window.samples // steps
            heard = window.arrange(hidden_state(wav[start : start + window.samples])).float()
            found.append(heard[first - begin : total - begin])
        return torch.cat(found)

    return features
