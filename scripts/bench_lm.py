"""Measure training, generation and loading of the language model, beside transformers' own way of doing the same.

    python scripts/bench_lm.py                                  # nano, on whatever is here
    python scripts/bench_lm.py --rounds 5 --mini                # lengths of the embedded corpus
    python scripts/bench_lm.py --cpu-seconds                    # a busy machine: seconds of CPU time, not of the clock
    python scripts/bench_lm.py --preset llama-3.2-1b --peak-tflops 989   # on a GPU: MFU in bf16, random weights

Ours and theirs take turns in one process, so that what else the machine does burdens both; medians are printed.
Training: target tokens per second (padding and prompts do not count) of packed rows with our loss, against
transformers.Trainer with its padding collator, same weights, same optimiser with clipping and a falling learning rate,
about the same ids per step. Our time includes packing the rows, theirs collating them. Utterances last
1 to 30 s, log-normal around 4.5 s: our stand-in for LibriTTS. Generation: 16 prompts together against
`model.generate` one by one with the same legality mask.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lm.generation.frames import generate
from lm.generation.sampling import LegalAudio, Sampling
from lm.network.attention import attention_of, set_attention
from lm.network.objective import Objective
from lm.recipe.data import StepData
from lm.sequences.document_set import DocumentSet
from lm.sequences.vocabulary import AudioVocabulary
from training.arguments import at_least
from training.config import ending_plainly

FRAME_RATE = 12.5
SHAPES: dict[str, dict[str, Any]] = {
    "nano": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 3},
    "small": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "llama-3.2-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
TEXT_ROWS = {"nano": 768, "small": 8192, "llama-3.2-1b": 128_256}


def build(preset: str, device: str) -> tuple[LlamaForCausalLM, AudioVocabulary]:
    """A model of random weights and its vocabulary."""
    vocabulary = AudioVocabulary(TEXT_ROWS[preset], (2048,) * 3, {"name": "bench", "fingerprint": ""})
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary.size, max_position_embeddings=2048, **SHAPES[preset])
    config.tie_word_embeddings = True
    return LlamaForCausalLM(config).to(device), vocabulary


def make_documents(
    count: int, vocabulary: AudioVocabulary, mini: bool, row_length: int
) -> tuple[DocumentSet, list[dict[str, Any]]]:
    """Random documents for our loader and, as lists with labels, for the Trainer."""
    random = np.random.default_rng(0)
    seconds = random.uniform(1.5, 4.5, count) if mini else np.exp(random.normal(np.log(4.5), 0.75, count)).clip(1, 30)
    documents, rows = DocumentSet(), []
    opening = [vocabulary.control_id(name) for name in ("<|tts|>", "<text>")]
    start = [vocabulary.control_id(name) for name in ("</text>", "<|speech|>", "<audio>")]
    for number, duration in enumerate(seconds):
        text = random.integers(3, vocabulary.text_size, max(2, int(duration * 3))).tolist()
        codes = random.integers(0, 2048, (int(duration * FRAME_RATE), 3))
        prompt = [*opening, *text, *start]
        audio = [*vocabulary.codes_to_ids(codes).flatten().tolist(), vocabulary.control_id("</audio>")]
        ids = np.array(prompt + audio, dtype=np.int32)
        if len(ids) > row_length:
            continue
        documents.add(str(number), "tts", 1.0, [[(documents.add_segment(ids, len(prompt)), True)]], row_length)
        rows.append({"input_ids": ids.tolist(), "labels": [-100] * len(prompt) + audio})
    return documents, rows


class Stopwatch(TrainerCallback):
    """Seconds of every step but the first."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the optimiser's step."""
        synchronise()
        self.marks.append(clock())


clock = time.perf_counter  # or, with --cpu-seconds, time.process_time


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Ours:
    """Our training, some steps at a time."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        vocabulary: AudioVocabulary,
        documents: DocumentSet,
        row_length: int,
        rows: int,
        legal: bool = True,
        attention: str = "auto",
    ) -> None:
        self.data = StepData(documents, vocabulary, row_length, rows, seed=0)
        self.model = model
        self.objective = Objective(model, vocabulary, legal).to(model.device).train()
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimiser, 1.0, 0.0, 1000)
        self.device, self.step = model.device, 0
        self.attention = attention_of(attention, model.device, compiled=False)

    def run(self, steps: int) -> tuple[int, int, float]:
        """(targets, ids, seconds)."""
        targets = ids = 0
        set_attention(self.model, self.attention)
        self.model.train()
        synchronise()
        start = clock()
        for _ in range(steps):
            batch = self.data.batch(self.step)
            parts = [part.to(self.device) for part in batch.rows.tensors()]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = self.objective(*parts)
            (loss.total / batch.targets).backward()
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self.optimiser.zero_grad()
            self.step, targets, ids = self.step + 1, targets + batch.targets, ids + batch.tokens
        synchronise()
        return targets, ids, clock() - start


class Theirs:
    """transformers.Trainer with its padding collator, some steps at a time."""

    def __init__(self, model: LlamaForCausalLM, rows: list[dict[str, Any]], pad: int, batch: int, folder: Path) -> None:
        self.model, self.rows, self.batch, self.folder, self.calls = model, rows, batch, folder, 0
        pad_like = type("Pad", (), {"padding_side": "right"})()
        pad_like.pad = lambda features, **_: {
            "input_ids": (ids := torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(f["input_ids"]) for f in features], batch_first=True, padding_value=pad
            )),
            "attention_mask": (ids != pad).long(),
            **({"labels": torch.tensor([f["labels"] for f in features])} if "labels" in features[0] else {}),
        }  # fmt: skip
        self.collate = DataCollatorForSeq2Seq(pad_like)

    def run(self, steps: int) -> tuple[int, float]:
        """(targets, seconds)."""
        set_attention(self.model, "sdpa")
        watch, counts = Stopwatch(), []

        def collate(features: list[dict[str, Any]]) -> Any:
            counts.append(sum(label != -100 for f in features for label in f["labels"]))
            return self.collate([dict(f) for f in features])

        options = TrainingArguments(
            str(self.folder), per_device_train_batch_size=self.batch, max_steps=steps + 1, save_strategy="no",
            logging_strategy="no", report_to=[], learning_rate=1e-4, seed=self.calls, disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=torch.cuda.is_available(), remove_unused_columns=False,
            dataloader_num_workers=0,
        )  # fmt: skip
        self.calls += 1
        trainer = Trainer(self.model, options, train_dataset=self.rows, data_collator=collate, callbacks=[watch])
        trainer.train()
        return sum(counts[1 : steps + 1]), watch.marks[-1] - watch.marks[0]


def bench_generation(model: LlamaForCausalLM, vocabulary: AudioVocabulary, frames: int) -> tuple[float, float]:
    """Tokens per second: 16 clips of ``frames`` together, and the first 4 of them one by one by `model.generate`."""
    random = np.random.default_rng(1)
    names = ("</text>", "<|speech|>", "<audio>")
    prompts = [
        [vocabulary.control_id("<|tts|>"), vocabulary.control_id("<text>"), *random.integers(3, 700, length).tolist()]
        + [vocabulary.control_id(name) for name in names]
        for length in random.integers(5, 20, 16)
    ]
    model.eval()
    set_attention(model, "sdpa")
    synchronise()
    start = clock()
    generate(model, vocabulary, prompts, frames, min_frames=frames + 1, sampling=Sampling())
    synchronise()
    ours = 16 * frames * 3 / (clock() - start)
    start = clock()
    for prompt in prompts[:4]:
        model.generate(
            input_ids=torch.tensor([prompt], device=model.device), do_sample=True, top_p=0.9, temperature=0.8,
            logits_processor=LogitsProcessorList([LegalAudio(vocabulary, frames + 1)]), max_new_tokens=frames * 3,
            pad_token_id=vocabulary.control_id("<pad>"), eos_token_id=vocabulary.control_id("</audio>"),
        )  # fmt: skip
    synchronise()
    theirs = 4 * frames * 3 / (clock() - start)
    model.train()
    return ours, theirs


@ending_plainly()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(SHAPES), default="nano", help="shape of the model")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="turns of each side")
    parser.add_argument("--steps", type=at_least(1), default=2, help="steps per turn")
    parser.add_argument("--rows", type=at_least(1), default=2, help="our rows per step")
    parser.add_argument(
        "--row-length",
        type=at_least(1),
        default=1280,
        help="ids per row of ours; longer clips are left out of both sides",
    )
    parser.add_argument("--frames", type=at_least(1), default=40, help="length of generated clips")
    parser.add_argument("--mini", action="store_true", help="utterances of 1.5 to 4.5 s, as in the embedded corpus")
    parser.add_argument(
        "--loss-over",
        choices=("legal", "vocabulary"),
        default="legal",
        help="of our loss; theirs is over the vocabulary",
    )
    parser.add_argument("--attention", default="auto", help="of our training: auto, by_document or sdpa")
    parser.add_argument("--cpu-seconds", action="store_true", help="count CPU time: for machines with other work")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the GPU in bf16, for the MFU")
    options = parser.parse_args(arguments)
    if options.cpu_seconds:
        global clock
        clock = time.process_time
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, vocabulary = build(options.preset, device)
    documents, rows = make_documents(2000, vocabulary, options.mini, options.row_length)
    legal = options.loss_over == "legal"
    ours = Ours(model, vocabulary, documents, options.row_length, options.rows, legal, options.attention)
    mean = float(documents.lengths.mean())
    batch = max(1, round(options.rows * options.row_length / mean))  # about as many ids per step
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{options.preset}: {parameters / 1e6:.1f} M parameters, {device}, {torch.get_num_threads()} threads; "
          f"documents of {mean:.0f} ids on average, {documents.lengths.max()} at most")  # fmt: skip
    ours.run(1)
    speeds: dict[str, list[float]] = {"ours": [], "theirs": [], "ids": [], "speaks": [], "speaks one by one": []}
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(model, rows, vocabulary.control_id("<pad>"), batch, Path(folder))
        for _ in range(options.rounds):
            targets, ids, seconds = ours.run(options.steps)
            speeds["ours"].append(targets / seconds)
            speeds["ids"].append(ids / seconds)
            targets, seconds = theirs.run(options.steps)
            speeds["theirs"].append(targets / seconds)
            for key, value in zip(("speaks", "speaks one by one"),
                                  bench_generation(model, vocabulary, options.frames), strict=True):  # fmt: skip
                speeds[key].append(value)
    median = {key: statistics.median(values) for key, values in speeds.items()}
    start, tokens = clock(), 0
    for step in range(1000, 1100):
        tokens += ours.data.batch(step).tokens
    loader = tokens / (clock() - start)
    packed, padded = median["ours"], median["theirs"]
    together, alone = median["speaks"], median["speaks one by one"]
    factor = 16 * FRAME_RATE * 3 / together
    print(f"training:   {packed:,.0f} target tokens/s packed, {padded:,.0f} padded: {packed / padded:.2f} times")
    print(
        f"generation: {together:,.0f} tokens/s at batch 16, {alone:,.0f} one by one by model.generate: "
        f"{together / alone:.2f} times; real-time factor of each clip {factor:.2f}"
    )
    print(f"loader:     {loader:,.0f} ids/s, {loader / median['ids']:,.0f} times what training takes")
    if options.peak_tflops:
        # 6 operations per parameter and token; attention's products and recomputation are not counted.
        print(f"MFU:        {6 * parameters * median['ids'] / options.peak_tflops / 1e12:.1%} of "
              f"{options.peak_tflops:.0f} TFLOP/s")  # fmt: skip


if __name__ == "__main__":
    main()
