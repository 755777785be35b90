"""Run by test_processes.py, once per rank: the updates of one codebook on this process' half of each batch.

python codebook_worker.py FOLDER RANK: reads FOLDER/updates.pt, writes FOLDER/rank-RANK.pt.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from codec.network.quantizer import Codebook


def updated(book: Codebook, batches: torch.Tensor) -> dict[str, torch.Tensor]:
    """The buffers of ``book`` after one update per batch of ``batches [steps, n, dim]``, and the re-seeded codes."""
    generator = torch.Generator().manual_seed(1)  # the same in all processes
    reseeded = [book.update(x, book.assign(x), generator) for x in batches]
    return {**book.state_dict(), "reseeded": torch.tensor(reseeded)}


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    given = torch.load(folder / "updates.pt")
    book = Codebook(*given["settings"])
    book.load_state_dict(given["book"])
    torch.save(updated(book, given["batches"].chunk(2, dim=1)[rank]), folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
