"""Run by test_processes.py, once per rank: the steps of one quantiser on this process' half of each batch.

python codebook_worker.py FOLDER RANK: reads FOLDER/updates.pt, writes FOLDER/rank-RANK.pt.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from codec.network.quantizer import ResidualQuantizer
from training import processes


def quantizer() -> ResidualQuantizer:
    made = ResidualQuantizer(4, 4, 4, (16,), decay=0.7, dead_below=0.4)
    made.project_in = torch.nn.Identity()
    return made


def updated(rvq: ResidualQuantizer, batches: torch.Tensor) -> dict[str, torch.Tensor]:
    """The codebook's buffers after a step per batch of ``batches [steps, n, dim]``, and the re-seeded codes."""
    generator = torch.Generator().manual_seed(1)  # the same in all processes
    reseeded = [rvq.finish_step([rvq(x[None])], generator, processes.rows) for x in batches]
    return {**rvq.books[0].state_dict(), "reseeded": torch.tensor(reseeded)}


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    given = torch.load(folder / "updates.pt")
    rvq = quantizer()
    rvq.load_state_dict(given["quantizer"])
    torch.save(updated(rvq, given["batches"].chunk(2, dim=1)[rank]), folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
