"""Run by `torch.distributed.run`: the gradient of one step on several processes, under DDP or FSDP2, into files.

    python -m torch.distributed.run --nproc_per_node 2 distributed_gradients.py FOLDER FOLDER … -- ddp-legal-chunked …

A case is how (ddp or fsdp2), over what the loss is normalised (legal, vocabulary) and the head (chunked, plain);
<case>.pt is written into each FOLDER, where the model and the batch lie.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from omegaconf import OmegaConf
from torch.nn.parallel import DistributedDataParallel

from codec.shards import read_shards
from lm.model import load_lm
from lm.network.objective import Objective
from lm.recipe.keeping import Sharded, whole
from lm.recipe.validation import Validation
from lm.run_state import OPTIMISER_FILE
from lm.sequences.document_set import render_documents
from tasks.tts import TTS
from training.launch import leave

VALID_CLIPS = (1, 2, 3)  # with one row each: fewer, as many and more than there are processes


def validate(module: torch.nn.Module, source: str, clips: int, rank: int, world: int) -> dict[str, float]:
    """What the validation of ``clips`` clips finds, one row per clip and pass."""
    _, vocabulary, tokenizer = load_lm(source)
    rows = read_shards(f"{source}/tokens")[:clips]
    longest = max(render_documents(rows, TTS(), vocabulary, tokenizer, 1 << 20).lengths)
    validation = Validation(rows, TTS(), vocabulary, tokenizer, int(longest), clips, 0)

    def add_up(sums: torch.Tensor) -> torch.Tensor:
        if world > 1:
            torch.distributed.all_reduce(sums)
        return sums

    return validation.run(module, torch.device("cpu"), 1, rank, world, add_up)


def measure(source: str, how: str, over: str, head: str) -> dict[str, Any]:
    """Gradients by name, validations; under FSDP2 also the weights after a step, whose moments went out and back."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model, vocabulary, _ = load_lm(source)
    batch = torch.load(f"{source}/batch.pt")
    mine = [part[rank::world] for part in batch["parts"]]
    objective = Objective(model, vocabulary, over == "legal", head=head).train()
    names = [name for name, _ in objective.named_parameters()]
    if how == "ddp":
        module = DistributedDataParallel(objective)
    else:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
            cpu_ram_efficient_loading=False,
        )
        accelerator = SimpleNamespace(
            state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", is_main_process=rank == 0, device="cpu"
        )
        module = fsdp2_prepare_model(accelerator, objective)
    # Two micro batches of unequal numbers of targets; gradients are exchanged with the last.
    for number, place in enumerate((slice(0, 1), slice(1, None))):
        if how == "ddp":
            module.require_backward_grad_sync = number == 1
        else:
            module.set_requires_gradient_sync(number == 1)
        loss = module(*[part[place] for part in mine])
        (loss.total * (world / batch["targets"])).backward()
    gradients = {name: whole(parameter.grad) for name, parameter in zip(names, objective.parameters(), strict=True)}
    result: dict[str, Any] = {"gradients": gradients}
    if how == "fsdp2":  # what is saved is whole, and goes back
        optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
        optimiser.step()
        optimiser.zero_grad()
        keeping, place = Sharded(OmegaConf.create()), Path(source)
        moments, result["weights"] = keeping.moments(objective, optimiser), keeping.weights(objective)
        if rank == 0:
            torch.save(moments, place / OPTIMISER_FILE)
        torch.distributed.barrier()
        again = torch.optim.AdamW(objective.parameters(), lr=1e-2)
        keeping.load_optimiser(place, True, objective, again, torch.device("cpu"))
        back = keeping.moments(objective, again)
        if rank == 0:
            first, second = moments["state"], back["state"]
            assert all(torch.equal(first[n]["exp_avg"], second[n]["exp_avg"]) for n in first)
    result["validation"] = [validate(module, source, clips, rank, world) for clips in VALID_CLIPS]
    return result


if __name__ == "__main__":
    end = sys.argv.index("--")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    for folder in sys.argv[1:end]:
        for case in sys.argv[end + 1 :]:
            result = measure(folder, *case.split("-"))
            if torch.distributed.get_rank() == 0:
                torch.save(result, f"{folder}/{case}.pt")
    leave()
