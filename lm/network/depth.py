"""The paper's own variant: a temporal transformer over steps and a depth transformer over the levels of a step.

One position of the temporal LLaMA holds a text token, a control token, or one step of audio, whose level embeddings are
summed. Text and control tokens are predicted by its own head. The codes of a step are predicted level after level by
a small depth transformer from the temporal state (ALMTokenizer, Yang et al. 2025; Moshi, Défossez et al. 2024): 6
layers, and all levels but the first come one step later (pattern `one_frame_delay`). Its width and heads are our
choice: the paper does not say them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from lm.network.head import Head, backbone_of, head_of
from lm.network.objective import LossParts, Objective, anchor, linear_cross_entropy
from lm.sequences.packing import IGNORE
from lm.sequences.vocabulary import AudioVocabulary
from training.checkpoint import write_file
from training.pretrained import check_numbers, description, refuse_larger

CONFIG_NAME = "depth.json"
WEIGHTS_NAME = "depth.safetensors"


class DepthTransformer(nn.Module):
    """Levels of one step, coarse to fine, given the temporal state.

    Args:
        width: of the temporal model.
        config: options of `transformers.LlamaConfig`, but the vocabulary.
    """

    def __init__(self, width: int, codebook_sizes: tuple[int, ...], audio_start: int, end: int, config: dict[str, Any]):
        super().__init__()
        self.sizes, self.audio_start, self.end = tuple(codebook_sizes), audio_start, end
        # One row per code of each level, one for the end of audio.
        options = LlamaConfig(vocab_size=sum(codebook_sizes) + 1, **config)
        self.model = LlamaModel(options)
        self.state = nn.Linear(width, options.hidden_size, bias=False)
        # Row 0 of the first head is the end of audio; the codes follow.
        rows = [size + (level == 0) for level, size in enumerate(codebook_sizes)]
        self.heads = nn.ModuleList(nn.Linear(options.hidden_size, count, bias=False) for count in rows)
        for layer in [self.state, *self.heads]:
            nn.init.normal_(layer.weight, std=options.initializer_range)

    def forward(self, hidden: Tensor, columns: Tensor) -> Tensor:
        """``hidden [items, width]``, ids ``columns [items, k]`` of the first levels → ``[items, k + 1, depth width]``.

        Columns without a token (negative) add nothing.
        """
        row = torch.where(columns == self.end, sum(self.sizes), columns - self.audio_start)
        known = self.model.embed_tokens(row.clamp(min=0)) * (columns >= 0)[..., None]
        known = torch.cat([known.new_zeros(len(known), 1, known.shape[-1]), known], dim=1)
        return self.model(inputs_embeds=self.state(hidden)[:, None] + known, use_cache=False).last_hidden_state


class DepthLM(nn.Module):
    """Temporal language model and depth transformer; used like a causal LM of transformers where ours are used.

    Args:
        lm: temporal causal LM with the rows of the vocabulary.
        depth: predicts the levels of a step.
    """

    def __init__(self, lm: PreTrainedModel, depth: DepthTransformer) -> None:
        super().__init__()
        self.lm, self.depth = lm, depth

    @property
    def config(self) -> Any:
        """Configuration of the temporal model."""
        return self.lm.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm.device

    def get_output_embeddings(self) -> nn.Module:
        """The head of text and control tokens."""
        return self.lm.get_output_embeddings()

    def get_input_embeddings(self) -> nn.Module:
        """The table of text, control and audio rows."""
        return self.lm.get_input_embeddings()

    def gradient_checkpointing_enable(self) -> None:
        """For the temporal model; the depth transformer's states are short."""
        self.lm.gradient_checkpointing_enable()

    def model(self, input_ids: Tensor, **options: Any) -> Any:
        """The temporal backbone over ``[rows, positions, levels]`` ids; negative ids add nothing."""
        if input_ids.ndim == 2:  # text being written
            return backbone_of(self.lm)(input_ids=input_ids, **options)
        present = (input_ids >= 0)[..., None]
        embedded = (self.get_input_embeddings()(input_ids.clamp(min=0)) * present).sum(2)
        return backbone_of(self.lm)(inputs_embeds=embedded, **options)

    def level_logits(self, hidden: Tensor, columns: Tensor) -> Tensor:
        """Logits of level k given ``hidden [items, width]`` and the ids of the levels before, ``[items, k]``; at level
        0 the end of audio comes first.
        """
        return self.depth.heads[columns.shape[1]](self.depth(hidden, columns)[:, -1])

    def save_pretrained(self, folder: Path) -> None:
        """The temporal model as a transformers folder, the depth transformer beside it."""
        self.lm.save_pretrained(folder)
        options = self.depth.model.config
        kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        data = {
            "codebook_sizes": list(self.depth.sizes),
            "audio_start": self.depth.audio_start,
            "end": self.depth.end,
            "config": {name: getattr(options, name) for name in kept},
        }
        write_file(Path(folder) / CONFIG_NAME, json.dumps(data, indent=1) + "\n")
        save_model(self.depth, str(Path(folder) / WEIGHTS_NAME))


def add_depth(lm: PreTrainedModel, vocabulary: AudioVocabulary, config: dict[str, Any]) -> DepthLM:
    """A new depth transformer on ``lm``.

    Raises:
        ValueError: a pattern whose steps do not all begin with level 0.
    """
    if max(vocabulary.order.delays(vocabulary.levels)) > 1:
        raise ValueError(f"the depth variant cannot use lm.pattern={vocabulary.pattern}: take flat or one_frame_delay.")
    start, end = vocabulary.block(0).start, vocabulary.control_id("</audio>")
    return DepthLM(
        lm, DepthTransformer(lm.config.get_text_config().hidden_size, vocabulary.codebook_sizes, start, end, config)
    )


def load_depth(lm: PreTrainedModel, folder: Path) -> DepthLM:
    """The depth transformer that `DepthLM.save_pretrained` wrote, on its temporal model.

    Raises:
        PretrainedError: ``depth.json`` describes more than the weights hold.
    """
    data = description(folder, CONFIG_NAME)
    check_numbers(data, folder)
    width, sizes = lm.config.get_text_config().hidden_size, tuple(data["codebook_sizes"])
    options = (width, sizes, data["audio_start"], data["end"], data["config"])
    with torch.device("meta"):
        shape = DepthTransformer(*options)
    refuse_larger(shape, (Path(folder) / WEIGHTS_NAME).stat().st_size, folder, CONFIG_NAME)
    depth = DepthTransformer(*options)
    load_model(depth, str(Path(folder) / WEIGHTS_NAME))
    return DepthLM(lm, depth)


class DepthObjective(Objective):
    """`lm.network.objective.Objective` of the depth variant.

    Codes are normalised over their level (level 0 with the end of audio), texts over the text rows: there is nothing
    else to normalise over.
    """

    def forward(self, input_ids: Tensor, position_ids: Tensor, targets: Tensor) -> LossParts:
        """``[rows, length, levels]`` ids and targets, ``[rows, length]`` positions."""
        hidden = backbone_of(self.lm)(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        learnt = targets != IGNORE  # [rows, length, levels]
        place = learnt.any(-1)
        hidden, wanted, learnt = hidden[place], targets[place], learnt[place]
        losses = torch.zeros(wanted.shape, dtype=torch.float32, device=hidden.device)
        correct = torch.zeros(wanted.shape, dtype=torch.bool, device=hidden.device)
        level = torch.bucketize(wanted, self.edges, right=True) - 1
        level = torch.where(level < 0, self.levels, level)
        shares = self.kind_weights[level]
        depth, head = self.lm.depth, head_of(self.lm, self.form)
        total = hidden.new_zeros((), dtype=torch.float32) + anchor(head)
        # Parameters that this batch does not need still get a gradient, of zero: processes exchange all of them.
        total = total + 0.0 * sum(parameter.flatten()[0] for parameter in depth.parameters())
        text = learnt[:, 0] & (level[:, 0] == self.levels) & (wanted[:, 0] != self.end)
        if text.any():
            rows = self.legal_rows[-1].to(hidden.device)
            places = torch.searchsorted(rows, wanted[text, 0])
            part, losses[text, 0], correct[text, 0] = linear_cross_entropy(
                hidden[text], head.rows(rows), places, shares[text, 0], self.head
            )
            total = total + part
        audio = ~text
        if audio.any():
            ids = wanted[audio]
            states = depth(hidden[audio], ids[:, :-1].masked_fill(ids[:, :-1] == IGNORE, -1))
            for k in range(self.levels):
                here = learnt[audio, k]
                if not here.any():
                    continue
                codes = ids[here, k] - self.edges[k]
                if k == 0:
                    codes = torch.where(ids[here, 0] == self.end, 0, codes + 1)
                where = audio.nonzero()[here, 0]
                part, part_losses, part_correct = linear_cross_entropy(
                    states[here, k], Head(depth.heads[k].weight), codes, shares[where, k], self.head
                )
                total = total + part
                losses[where, k], correct[where, k] = part_losses, part_correct
        losses, level, correct = losses[learnt], level[learnt], correct[learnt]
        kinds = torch.nn.functional.one_hot(level, self.levels + 1).double()
        return LossParts(total, losses.double() @ kinds, correct.double() @ kinds, kinds.sum(0), losses.detach())
