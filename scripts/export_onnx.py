"""Our codec as two ONNX graphs, encoder and decoder, for onnxruntime without torch; the decoder takes streams, too.

    python scripts/export_onnx.py checkpoints/codec-mini runs/codec-onnx            # compared and timed beside torch
    python scripts/export_onnx.py checkpoints/codec-mini runs/codec-onnx --int8     # and once more with 8-bit weights

The graphs take clips of any length at the codec's window. `codec/onnx_codec.py` runs them and imports no torch. Needs
`pip install -e ".[onnx]"`. See docs/serving.md.
"""

from __future__ import annotations

import training.help  # noqa: F401
from training.help import REPOSITORY

import argparse
import copy
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.corpus import CorpusError, read_audio, read_corpus
from codec.interface import TokenizerError
from codec.load import load
from codec.model import ALMTokenizer
from codec.network.real_valued import RealUnpatchify, in_real_arithmetic
from codec.network.streaming import sound_reach, stack_reach
from codec.onnx_codec import CARD, FORMAT, OnnxCodec
from eval.metrics.signal import mel_distance
from training.arguments import at_least
from training.checkpoint import save_folder
from training.config import ConfigError, ending_plainly, refusing
from training.lock import hold

OPSET = 20
ROUNDS = 5
PIECE = 6  # windows of a stream's piece


class EncoderGraph(nn.Module):
    """``wav [1, windows * samples]`` and the number of valid windows ``[1]`` → codes ``[1, levels, windows]``."""

    def __init__(self, codec: ALMTokenizer) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, wav: Tensor, windows: Tensor) -> Tensor:
        valid = torch.arange(wav.shape[1] // self.codec.samples_per_frame)[None] < windows[:, None]
        return self.codec.quantizer(self.codec.encode_latents(wav, self.codec.window, valid)).codes


class DecoderGraph(nn.Module):
    """Codes of a piece and of what stands around it → its sound, and the phases that the next piece goes on with.

    ``codes [1, levels, windows]``; the number of valid ``windows [1]``; the piece's ``edges [2]``, its first window and
    the first one after it; ``first [1]``, the number of the first window in the clip; ``pulse [1]`` and
    ``tones [1, bins]`` at the first edge → ``wav [1, windows * samples]``, and ``pulse`` and ``tones`` at the second.
    """

    def __init__(self, codec: ALMTokenizer) -> None:
        super().__init__()
        self.codec = codec

    def forward(
        self, codes: Tensor, windows: Tensor, edges: Tensor, first: Tensor, pulse: Tensor, tones: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        codec, window = self.codec, self.codec.window
        valid = torch.arange(codes.shape[2])[None] < windows[:, None]
        frames, valid_frames = codec.decoder_frames(codec.quantizer.lookup(codes) * valid[..., None], window, valid)
        assert valid_frames is not None
        if isinstance(codec.unpatchify, RealUnpatchify):
            offset = first * codec.samples_per_frame
            made = codec.unpatchify.piece(frames, valid_frames, edges * window, pulse, tones, offset)
            return made.wav, made.pulse, made.tones
        return codec.unpatchify(frames, 0, valid_frames).wav, pulse.clone(), tones.clone()


def shortest(codec: ALMTokenizer) -> int:
    """Windows that a graph needs at least, so that attention has a neighbour; shorter clips are padded."""
    return math.ceil(2 * codec.config.span / (codec.window + 1)) + 1


def around(codec: ALMTokenizer) -> tuple[int, int]:
    """Windows before and after a piece that its sound depends on."""
    sides = stack_reach(codec.decoder, codec.window), sound_reach(codec)
    before, after = (stack + math.ceil(sound / codec.window) for stack, sound in zip(*sides, strict=True))
    return before, after


@torch.no_grad()
def write_graphs(codec: ALMTokenizer, folder: Path) -> None:
    """``encoder.onnx``, ``decoder.onnx`` and the card of ``codec`` in ``folder``."""
    fingerprint, sides = codec.fingerprint, around(codec)
    codec = in_real_arithmetic(copy.deepcopy(codec).eval())
    count = torch.export.Dim("windows", min=shortest(codec), max=1 << 20)
    size, n = codec.samples_per_frame, shortest(codec) + 1
    while n * (codec.window + 1) % codec.config.span == 0:
        n += 1  # tokens are padded to whole blocks of attention, and an example that needs no padding traces none
    wav = torch.randn(1, n * size, generator=torch.Generator().manual_seed(0)) / 10
    codes, windows, phases = (
        torch.zeros(1, codec.levels, n, dtype=torch.long),
        torch.tensor([n]),
        torch.zeros(1, codec.config.synthesis_fft // 2 + 1),
    )
    piece = {"codes": codes, "windows": windows, "edges": torch.tensor([0, n]), "first": torch.tensor([0])}
    piece |= {"pulse": phases[:, 0].double(), "tones": phases.double()}
    graphs: dict[str, tuple[nn.Module, dict[str, Tensor], dict[str, Any], list[str]]] = {
        "encoder": (EncoderGraph(codec), {"wav": wav, "windows": windows}, {"wav": {1: size * count}}, ["codes"]),
        "decoder": (DecoderGraph(codec), piece, {"codes": {2: count}}, ["wav", "next_pulse", "next_tones"]),
    }
    for name, (graph, example, shapes, outputs) in graphs.items():
        exported = torch.export.export(
            graph, tuple(example.values()), dynamic_shapes={**dict.fromkeys(example), **shapes}, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        program = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, output_names=outputs, verbose=False)
        assert program is not None
        program.save(folder / f"{name}.onnx")
    card = {
        "format": FORMAT,
        "opset": OPSET,
        "sample_rate": codec.sample_rate,
        "samples_per_frame": size,
        "codebook_sizes": list(codec.codebook_sizes),
        "window": codec.window,
        "shortest": shortest(codec),
        "around": sides,
        "fingerprint": fingerprint,
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def quantise(folder: Path) -> None:
    """Beside each graph the same with 8-bit weights in the matrix products of its transformer.

    The ends stay as they are: what leaves the last layer are logarithms and phases, to which 8 bits do most harm.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises to infer shapes, which it then does itself

    for name in ("encoder", "decoder"):
        model = onnx.load(folder / f"{name}.onnx")
        del model.graph.value_info[:]  # torch's exporter leaves shapes there that contradict those that are inferred
        stack = [
            node.name
            for node in model.graph.node
            if node.op_type == "MatMul" and any(f"'codec.{name}'" in part.value for part in node.metadata_props)
        ]
        quantize_dynamic(
            model, folder / f"{name}.int8.onnx", weight_type=QuantType.QInt8,
            nodes_to_quantize=stack, per_channel=True,
        )  # fmt: skip


def seconds_of(*functions: Callable[[], object]) -> list[float]:
    """Median time of each of ``functions``, in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, taken in zip(functions, times, strict=True):
            begun = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def in_pieces(decode_stream: Callable[[Any, Any, bool], tuple[Any, Any]], codes: Any) -> np.ndarray:
    """The sound of a stream of codes ``[…, windows]``, ``[samples]``."""
    state, parts = None, []
    for start in range(0, codes.shape[-1], PIECE):
        piece, state = decode_stream(codes[..., start : start + PIECE], state, start + PIECE >= codes.shape[-1])
        parts.append(np.asarray(piece).reshape(-1))
    return np.concatenate(parts)


def compare(codec: ALMTokenizer, exported: OnnxCodec, clips: list[np.ndarray], label: str) -> str:
    """Codes, sound, stream and loss of ``exported`` beside torch's on ``clips``, and the times of a ten-second clip."""
    equal, total, peak, rate = 0, 0, 0.0, codec.sample_rate
    apart: dict[str, list[float]] = {"sound": [], "stream": []}
    mel: dict[str, list[float]] = {"torch": [], "here": []}
    for clip in clips:
        codes = codec.encode(torch.from_numpy(clip)[None])
        theirs, same = exported.encode(clip), codes.codes[0].numpy()
        equal, total = equal + int((theirs == same).sum()), total + theirs.size
        ours = codec.decode(codes)[0].numpy()
        apart["sound"].append(float(np.abs(exported.decode(same, len(clip)) - ours).max()))
        apart["stream"].append(float(np.abs(in_pieces(exported.decode_stream, same)[: len(clip)] - ours).max()))
        mel["torch"].append(mel_distance(clip, ours, rate))
        mel["here"].append(mel_distance(clip, exported.decode(theirs, len(clip)), rate))
        peak = max(peak, float(np.abs(ours).max()))
    long = np.resize(np.concatenate(clips), 10 * rate)
    codes = codec.encode(torch.from_numpy(long)[None])
    same = codes.codes[0].numpy()
    times = seconds_of(
        lambda: codec.encode(torch.from_numpy(long)[None]), lambda: exported.encode(long),
        lambda: codec.decode(codes), lambda: exported.decode(same),
        lambda: in_pieces(codec.decode_stream, codes.codes), lambda: in_pieces(exported.decode_stream, same),
    )  # fmt: skip
    encode, decode, stream = (there / here for here, there in zip(times[::2], times[1::2], strict=True))
    graphs = exported.folder.glob("*.int8.onnx" if label == "int8" else "??coder.onnx")
    size = sum(path.stat().st_size for path in graphs)
    return (
        f"{label:8s} {size / 1e6:5.1f} MB   equal codes {equal / total:.4f}   sound within {max(apart['sound']):.1e}, "
        f"as a stream {max(apart['stream']):.1e} of {peak:.2f}   mel distance to the recordings "
        f"{np.mean(mel['here']):.3f}, torch's {np.mean(mel['torch']):.3f}   time per torch's: encode {encode:.2f}, "
        f"decode {decode:.2f}, stream {stream:.2f}"
    )


@ending_plainly()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("codec", help="folder or hub id of an ALMTokenizer")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--window", type=int, help="frames per query, 2 to 10 (default: the codec's)")
    parser.add_argument("--int8", action="store_true", help="also with 8-bit weights")
    parser.add_argument("--clips", type=at_least(0), default=20, help="test clips to compare on (default: 20)")
    parser.add_argument("--corpus", default=str(REPOSITORY / "data/mini"), help="their corpus (default: data/mini)")
    options = parser.parse_args(argv)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export_onnx.py needs {error.name}: pip install -e '.[onnx]'") from None
    with refusing(TokenizerError, CorpusError, ValueError):
        codec = load(options.codec, window=options.window)
        clips = [clip for clip in read_corpus(options.corpus)[0] if clip.split == "test"][: options.clips]
    if not isinstance(codec, ALMTokenizer):
        raise ConfigError(f"{options.codec} is a {codec.name}: only our own codec has an ONNX form here.")
    if codec.config.patchify == "experts":
        raise ConfigError(f"{options.codec} hears by experts, which have no ONNX form here.")
    if codec.flow is not None:
        raise ConfigError(f"{options.codec} decodes by a flow, which has no ONNX form here.")
    if options.out.is_dir() and any(options.out.iterdir()) and not (options.out / CARD).is_file():
        raise ConfigError(f"{options.out} holds something else than an exported codec: choose another folder.")
    hold(options.out, "out", replaced=True)

    def write(folder: Path) -> None:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names torchvision, which nothing here needs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch's own exporter
            write_graphs(codec, folder)
        if options.int8:
            quantise(folder)

    save_folder(options.out, write)
    waves = [read_audio(clip.path, codec.sample_rate) for clip in clips]
    beside = f"beside torch on {len(waves)} clips, {torch.get_num_threads()} threads"
    print(f"{options.out}: opset {OPSET}, window {codec.window}; {beside}")
    for label in ("float32", "int8")[: 1 + options.int8] if waves else ():
        exported = OnnxCodec(options.out, int8=label == "int8", threads=torch.get_num_threads())
        print(compare(codec, exported, waves, label))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
