"""UTMOS: predicted naturalness of speech, the "strong" network of UTMOS22 (Saeki et al. 2022).

wav2vec 2.0 base frames, joined with one fixed domain and one fixed judge vector, through a bidirectional LSTM and two
linear layers; the score is the mean over frames times 2 plus 3. It is not clamped: a little outside 1 … 5 is legal.

The network is ours (transformers' wav2vec 2.0 underneath) and reads the public checkpoint
``utmos22_strong_step7459_v1.pt`` (MIT) from a path; nothing is downloaded. Clips are scored one by one at 16 kHz,
because the network knows no padding mask. Ground truth of LibriSpeech test-clean is at 4.09; a set-up that gives 3.2
there runs another predictor. Silence gets a number too: read it with the share of silent clips.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from eval.harness.audio import Wave, check_wave, pieces, resample
from eval.harness.networks import NetworkError, reading_checkpoint
from eval.metrics.clip_metric import ClipMetric
from training.identity import file_hash
from training.pretrained import check_finite

RATE = 16_000
SHORTEST = 0.1  # s
LONGEST = 30.0  # s; longer clips are the mean of equal pieces
# the published names of wav2vec 2.0's parts (fairseq) and ours (transformers)
RENAMED = (
    ("wav2vec2.post_extract_proj.", "wav2vec2.feature_projection.projection."),
    ("wav2vec2.layer_norm.", "wav2vec2.feature_projection.layer_norm."),
    ("wav2vec2.mask_emb", "wav2vec2.masked_spec_embed"),
    ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv.0.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    ("encoder.pos_conv.0.bias", "encoder.pos_conv_embed.conv.bias"),
    (".self_attn_layer_norm.", ".layer_norm."),
    (".self_attn.", ".attention."),
    (".fc1.", ".feed_forward.intermediate_dense."),
    (".fc2.", ".feed_forward.output_dense."),
)


def our_name(published: str) -> str:
    """Our name of a key of the published checkpoint."""
    name = published
    if ".conv_layers." in name:  # conv_layers.3.0.weight is the convolution, conv_layers.0.2.* the normalisation
        head, _, tail = name.partition(".conv_layers.")
        layer, part, kind = tail.split(".")
        return f"{head}.conv_layers.{layer}.{'conv' if part == '0' else 'layer_norm'}.{kind}"
    for old, new in RENAMED:
        if old in name:
            return name.replace(old, new)
    return name


class UTMOS22(nn.Module):
    """The network; ``forward(wav [batch, samples] at 16 kHz)`` → ``[batch]``. Clips of a batch must be equally long.

    Args:
        config: of wav2vec 2.0; the published network is the base size. Tests use a smaller one.
    """

    def __init__(self, config: Wav2Vec2Config | None = None, lstm: int = 512, hidden: int = 2048) -> None:
        super().__init__()
        self.wav2vec2 = Wav2Vec2Model(config or Wav2Vec2Config())
        self.domain_emb = nn.Parameter(torch.zeros(1, 128))
        self.judge_emb = nn.Parameter(torch.zeros(1, 128))
        width = self.wav2vec2.config.hidden_size + 256
        self.blstm = nn.LSTM(width, lstm, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * lstm, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, wav: Tensor) -> Tensor:
        frames = self.wav2vec2(wav).last_hidden_state  # [batch, frames, hidden]
        fixed = torch.cat([self.domain_emb, self.judge_emb], 1).expand(*frames.shape[:2], -1)
        scores = self.projection(self.blstm(torch.cat([frames, fixed], 2))[0])  # [batch, frames, 1]
        return scores.mean(1).squeeze(1) * 2 + 3

    @classmethod
    def load(cls, path: Path, config: Wav2Vec2Config | None = None, lstm: int = 512, hidden: int = 2048) -> UTMOS22:
        """Read a checkpoint in the published layout; every key must be used and none may be missing.

        Raises:
            NetworkError: no such file, or another layout.
        """
        if not path.is_file():
            raise NetworkError(
                f"weights.utmos={path} does not exist: give the path of utmos22_strong_step7459_v1.pt "
                "(release v1.0.0 of github.com/tarepan/SpeechMOS)."
            )
        network = cls(config, lstm, hidden)
        with reading_checkpoint("utmos", path, "UTMOS22-strong"):
            published = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict({our_name(key): value for key, value in published.items()})
            check_finite(network, path)
        return network.eval()


class UTMOS(ClipMetric):
    """Mean UTMOS; ``update(waves, sample_rate=...)`` with float32 ``[samples]`` clips."""

    higher_is_better = True

    def __init__(self, path: Path, device: str = "cpu", network: UTMOS22 | None = None) -> None:
        super().__init__(self.rate)
        self.network = (network or UTMOS22.load(path)).to(device)
        self.path, self.target = path, device

    @torch.inference_mode()
    def rate(self, wav: Wave, sample_rate: int) -> float:
        """The score of one clip.

        Raises:
            CannotScore: no audio, NaN, or shorter than 0.1 s.
        """
        check_wave(wav, sample_rate, SHORTEST)
        parts = pieces(resample(wav, sample_rate, RATE), RATE, LONGEST)
        scores = [float(self.network(torch.from_numpy(part)[None].to(self.target))) for part in parts]
        return sum(scores) / len(scores)

    def how(self) -> dict[str, object]:
        """What a result records about these scores."""
        return {
            "network": "UTMOS22 strong", "sha256": file_hash(self.path), "sample_rate": RATE, "clamped": False,
            "batch": 1, "longest_piece_seconds": LONGEST,
        }  # fmt: skip
