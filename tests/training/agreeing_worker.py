"""Run by test_agreeing.py, by two processes: what processes see differently must not part them.

accelerate launch agreeing_worker.py FOLDER: writes FOLDER/rank-RANK.json. Rank 1 reads FOLDER/disk-1, which has more.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from codec import encode
from codec.interface import AudioTokenizer, Codes
from codec.shards import read_index
from eval.harness.score_cache import ScoreCache
from training.checkpoint import CheckpointError
from training.launch import decide, leave
from training.run_folder import choose_checkpoint


class Loudness(AudioTokenizer):
    """One code per 0.1 s."""

    name, sample_rate, samples_per_frame, codebook_sizes, causal = "toy", 16_000, 1_600, (64,), True
    fingerprint = "ab" * 32

    def encode(self, wav: torch.Tensor, lengths: torch.Tensor | None = None) -> Codes:
        assert lengths is not None
        frames = -(-lengths // 1_600)
        padded = torch.nn.functional.pad(wav, (0, int(frames.max()) * 1_600 - wav.shape[1]))
        return Codes((padded.unflatten(1, (-1, 1_600)).abs().mean(-1) * 63).long()[:, None], frames, lengths)

    def decode(self, codes: Codes) -> torch.Tensor:
        raise NotImplementedError  # what is agreed on here needs codes alone


def seen(rank: int, folder: Path) -> dict[str, object]:
    """What this process found, after each step that processes take together."""
    disk = folder / f"disk-{rank}"
    known = encode._current(folder / "known", encode.TokenizerInfo.of(Loudness()), read_index(folder / "known").corpus)
    found: dict[str, object] = {"decided": decide(lambda: f"as {rank} sees it")}
    try:
        decide(lambda: [][rank])
    except IndexError as error:
        found["refused"] = str(error)
    found["checkpoint"] = str(choose_checkpoint(disk, "auto", print))
    try:
        choose_checkpoint(disk / "damaged", "auto", print)
    except CheckpointError as error:
        found["damaged"] = str(error)
    # rank 1 takes the corpus for encoded, rank 0 does not: both must encode, or neither
    if rank:
        encode._current = lambda *_: known
    summary = encode.encode_corpus(folder / "corpus", Loudness(), folder / "tokens", workers=1, clips_per_shard=1)
    found["encoded"] = [summary.encoded, len(summary.index.rows)]
    found["cached"] = sorted(ScoreCache(disk / "cache", "judge", {}).scores)
    return found


if __name__ == "__main__":
    state = PartialState(cpu=True, timeout=timedelta(seconds=60))
    folder = Path(sys.argv[1])
    found = seen(state.process_index, folder)
    (folder / f"rank-{state.process_index}.json").write_text(json.dumps(found))
    leave()
