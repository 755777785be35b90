"""Probes: small networks on frozen features that tell what the features hold.

`LinearProbe` is multinomial logistic regression on one vector per clip (the mean over time, as ARCH does): convex, so
its result does not depend on a seed. `CTCProbe` is one bidirectional LSTM with a CTC head on the sequence, for speech
recognition. Neither ever changes the features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from codec.network.ctc import ALPHABET, BLANK, ids_to_text, text_to_ids
from training.progress import progress

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the weights, chosen on the validation clips
HIDDEN = 128  # units of the CTC probe's LSTM, per direction
# its steps per frame: CTC needs at least as many as characters, and tokens are slow (12.5 Hz; speech has 15 a second)
STRETCH = 4


class LinearProbe:
    """Logistic regression with a weight decay.

    Args:
        decay: of the squared weights, relative to the mean loss of a clip.
        iterations: of L-BFGS.
    """

    def __init__(self, decay: float, iterations: int = 100) -> None:
        self.decay, self.iterations = decay, iterations

    def fit(self, features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> LinearProbe:
        """Learn from ``features [clips, d]`` and ``labels [clips]``; features are standardised by these clips."""
        x = torch.from_numpy(features.astype(np.float64))
        self.mean, self.scale = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-8)
        x, y = (x - self.mean) / self.scale, torch.from_numpy(labels)
        self.weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
        self.bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=self.iterations, line_search_fn="strong_wolfe", history_size=20
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = functional.cross_entropy(x @ self.weight + self.bias, y)
            value = value + self.decay * self.weight.square().sum() / x.shape[1]
            value.backward()
            return value

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The most probable class of each clip."""
        with torch.no_grad():
            x = (torch.from_numpy(features.astype(np.float64)) - self.mean) / self.scale
            return (x @ self.weight + self.bias).argmax(1).numpy()


def choose_decay(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    valid: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: int,
) -> float:
    """The decay with the highest accuracy on the validation clips; of equal ones the strongest."""
    if not len(valid[1]):
        return 1e-2
    scores = [(float((LinearProbe(d).fit(*train, classes).predict(valid[0]) == valid[1]).mean()), d) for d in DECAYS]
    return max(scores)[1]


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur among ``labels``."""
    scores = []
    for label in np.unique(labels):
        hits = int(((predicted == label) & (labels == label)).sum())
        scores.append(2 * hits / max(1, int((predicted == label).sum() + (labels == label).sum())))
    return float(np.mean(scores))


class CTCProbe(nn.Module):
    """Sequences of features to characters.

    Args:
        width: of a feature vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.lstm = nn.LSTM(width, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, STRETCH * (len(ALPHABET) + 1))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``[batch, frames, width]``, ``[batch]`` → log-probabilities ``[batch, frames × STRETCH, characters + 1]``."""
        packed = nn.utils.rnn.pack_padded_sequence(
            (features - self.mean) / self.scale, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        scores = self.head(hidden).unflatten(2, (STRETCH, -1)).flatten(1, 2)
        return scores.log_softmax(-1), lengths * STRETCH

    @torch.inference_mode()
    def transcribe(self, clips: Sequence[NDArray[np.float32]]) -> list[str]:
        """Greedy transcripts of features ``[frames, width]``."""
        self.eval()
        texts = []
        for clip in clips:
            scores, _ = self(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
            texts.append(ids_to_text(scores[0].argmax(-1).tolist()))
        return texts


def train_ctc(
    clips: Sequence[NDArray[np.float32]],
    texts: Sequence[str],
    steps: int,
    seed: int,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
) -> CTCProbe:
    """Train a `CTCProbe` on features ``[frames, width]`` and normalised texts.

    Texts with characters outside a–z, apostrophe and space cannot be learnt; leave those clips out before.
    """
    torch.manual_seed(seed)
    probe = CTCProbe(clips[0].shape[1])
    everything = torch.from_numpy(np.concatenate(clips))
    probe.mean.copy_(everything.mean(0))  # type: ignore[operator]
    probe.scale.copy_(everything.std(0).clamp(min=1e-6))  # type: ignore[operator]
    targets = [torch.tensor(text_to_ids(text)) for text in texts]
    optimiser = torch.optim.AdamW(probe.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    generator = np.random.default_rng(seed)
    order: list[int] = []
    probe.train()
    for _ in progress(range(steps), desc="CTC probe"):
        while len(order) < batch_size:
            order += generator.permutation(len(clips)).tolist()
        chosen, order = order[:batch_size], order[batch_size:]
        lengths = torch.tensor([len(clips[i]) for i in chosen])
        batch = nn.utils.rnn.pad_sequence([torch.from_numpy(clips[i]) for i in chosen], batch_first=True)
        scores, frames = probe(batch, lengths)
        sizes = torch.tensor([len(targets[i]) for i in chosen])
        loss = functional.ctc_loss(
            scores.transpose(0, 1), torch.cat([targets[i] for i in chosen]), frames, sizes, BLANK, zero_infinity=True
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return probe.eval()
