"""Audio that comes in pieces: the codec with explicit state, for live streams and for clips too long for one pass.

::

    state = None
    for piece in microphone:                                  # [batch, samples], any number of samples
        codes, state = codec.encode_stream(piece, state)      # [batch, levels, windows], possibly none yet
    codes, state = codec.encode_stream(empty, state, last=True)

The result is that of one pass over the whole clip, because nothing reaches far: spectra and convolutions a few frames,
attention ``layers * span`` tokens. A block-causal transformer keeps the keys and values of the last ``span`` tokens and
answers at once; a bidirectional one repeats the tokens within its reach around each piece, and answers when the tokens
after a window are there. Only the phase of the pulses runs through a whole clip: it is part of the state. A flow
decoder, which reaches far, works on a fixed grid of pieces, as experts do.

The functions do not change the state they are given; they return the next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codec.network.flow_decoder import CONTEXT, FADE, PIECE, FlowState
from codec.network.patchify import pulse_phase
from codec.network.strided import StridedStack
from codec.network.transformer import LocalTransformer, Past

if TYPE_CHECKING:
    from codec.model import ALMTokenizer

PIECE_SECONDS = 30.0  # of a long clip: 65 MB in codec=mini
CACHED_TOKENS = 256  # a block-causal transformer takes so many at a time: attention within them is quadratic


@dataclass
class TokenState:
    """Where a transformer stands in its sequence of windows.

    Attributes:
        done: windows handed out.
        tokens: ``[batch, tokens, dim]`` from window ``first`` on, what later windows may still depend on
            (bidirectional).
        pasts: keys and values per block (block-causal).
    """

    done: int = 0
    first: int = 0
    tokens: Tensor | None = None
    pasts: list[Past] | None = None


@dataclass
class EncoderState:
    """``wav [batch, samples]`` from frame ``first`` on; ``done`` frames went on to the transformer."""

    window: int
    wav: Tensor
    first: int = 0
    done: int = 0
    tokens: TokenState = field(default_factory=TokenState)


@dataclass
class DecoderState:
    """``frames [batch, frames, dim]`` from frame ``first`` on; ``done`` frames have become sound.

    ``pulse_start [batch]``: the phase of the pulses at the end of frame ``first`` (cycles); ``tone_start``: the running
    phases ``[batch, bins]`` of the tones at frame ``first``; ``flow``: where a flow decoder stands.
    """

    window: int
    frames: Tensor | None = None
    first: int = 0
    done: int = 0
    pulse_start: Tensor | None = None
    tone_start: Tensor | None = None
    tokens: TokenState = field(default_factory=TokenState)
    flow: FlowState = field(default_factory=FlowState)


@dataclass
class Latency:
    """Algorithmic delay in milliseconds, computation apart.

    Attributes:
        encode: from the first sample of a window to its codes (a window has to be complete, and what follows it as far
            as the encoder looks ahead).
        decode: from the codes of a window to its last sample.
    """

    encode: float
    decode: float


def stack_reach(stack: LocalTransformer | StridedStack, window: int) -> tuple[int, int]:
    """Windows before and after its own that a window's tokens depend on."""
    if isinstance(stack, StridedStack):
        return stack.reach
    reach = math.ceil(len(stack.blocks) * stack.span / (window + 1))
    return reach, 0 if stack.block_causal else reach


def latency(codec: ALMTokenizer) -> Latency:
    """The algorithmic delay of ``codec`` at its window."""
    frame = 1000 * codec.config.hop / codec.sample_rate
    ahead = [stack_reach(stack, codec.window)[1] * codec.window for stack in (codec.encoder, codec.decoder)]
    encode = codec.window + codec.patchify.reach[1] + ahead[0]  # of experts: a piece of their grid, and its context
    decode = sound_reach(codec)[1] + ahead[1]
    if codec.flow is not None:  # the first frame of a cross-fade waits for the piece after it, and for its context
        decode += FADE // 2 + PIECE + CONTEXT - 1
    return Latency(encode * frame, decode * frame)


def sound_reach(codec: ALMTokenizer) -> tuple[int, int]:
    """Frames before and after its own that a frame of the waveform depends on."""
    return codec.unpatchify.reach if codec.flow is None else codec.flow.target.reach


def transform(
    transformer: LocalTransformer | StridedStack, new: Tensor, state: TokenState, window: int, last: bool
) -> tuple[Tensor, TokenState]:
    """``new [batch, windows * (w + 1), dim]`` → the tokens of the windows that nothing later can change any more."""
    if isinstance(transformer, StridedStack):
        return convolve(transformer, new, state, last)
    size = window + 1
    if transformer.block_causal:
        parts, pasts, position = [], state.pasts, state.done * size
        step = max(1, CACHED_TOKENS // size) * size
        for start in range(0, new.shape[1], step):
            part, pasts = transformer.extend(new[:, start : start + step], pasts, window, position + start)
            parts.append(part)
        output = torch.cat(parts, dim=1) if parts else new
        return output, replace(state, done=state.done + new.shape[1] // size, pasts=pasts)
    tokens = new if state.tokens is None else torch.cat((state.tokens, new), dim=1)
    reach = stack_reach(transformer, window)[1]
    ready = state.first + tokens.shape[1] // size - (0 if last else reach)
    if ready <= state.done:
        return new[:, :0], replace(state, tokens=tokens)
    output = transformer(tokens, None, window, start=state.first * size)
    output = output[:, (state.done - state.first) * size : (ready - state.first) * size]
    # attention is computed in blocks of ``span`` tokens: a piece starts where the whole sequence has a block's edge
    edge = transformer.span // math.gcd(transformer.span, size)
    first = max(0, ready - reach) // edge * edge
    return output, TokenState(ready, first, tokens[:, (first - state.first) * size :])


def convolve(stack: StridedStack, new: Tensor, state: TokenState, last: bool) -> tuple[Tensor, TokenState]:
    """``new [batch, windows * stack.inputs, dim]`` → the outputs that nothing later can change any more."""
    tokens = new if state.tokens is None else torch.cat((state.tokens, new), dim=1)
    before, after = stack.reach
    ready = state.first + tokens.shape[1] // stack.inputs - (0 if last else after)
    if ready <= state.done:
        return new[:, :0], replace(state, tokens=tokens)
    output = stack(tokens)
    output = output[:, (state.done - state.first) * stack.outputs : (ready - state.first) * stack.outputs]
    first = max(0, ready - before)
    return output, TokenState(ready, first, tokens[:, (first - state.first) * stack.inputs :])


@torch.inference_mode()
def encode_piece(
    codec: ALMTokenizer, wav: Tensor, state: EncoderState | None = None, last: bool = False
) -> tuple[Tensor, EncoderState]:
    """The next samples ``[batch, samples]`` of a stream → codes ``[batch, levels, windows]`` as they become certain.

    Args:
        last: nothing follows; the rest is padded with zeros to a whole window and comes out.
    """
    codec.use_float32()
    wav = codec.check_wav(wav)[0].to(codec.device)
    if state is None:
        state = EncoderState(codec.window, wav[:, :0])
    window, hop = state.window, codec.config.hop
    wav = torch.cat((state.wav, wav), dim=1)
    if last:
        wav = torch.nn.functional.pad(wav, (0, -(state.first * hop + wav.shape[1]) % (hop * window)))
    ends, whole = codec.patchify, state.first + wav.shape[1] // hop
    ready = (whole if last else ends.certain(whole)) // window * window
    state = replace(state, wav=wav)
    tokens = wav.new_zeros(len(wav), 0, codec.config.encoder_dim)
    if ready > state.done:
        frames = ends.hear(wav[:, : (whole - state.first) * hop], state.first)
        frames = frames[:, state.done - state.first : ready - state.first]
        tokens = codec.encoder_tokens(frames, window)
        first = ends.needed(ready)
        rest = wav[:, (first - state.first) * hop :].clone()  # a view would keep the whole piece alive
        state = replace(state, wav=rest, first=first, done=ready)
    output, following = transform(codec.encoder, tokens, state.tokens, window, last)
    if output.shape[1] == 0:
        codes = torch.zeros(len(wav), codec.levels, 0, dtype=torch.long)
    else:
        codes = codec.quantizer.codes_of(codec.encoded(output, window)).cpu()
    return codes, replace(state, tokens=following)


@torch.inference_mode()
def decode_piece(
    codec: ALMTokenizer, codes: Tensor, state: DecoderState | None = None, last: bool = False
) -> tuple[Tensor, DecoderState]:
    """The next codes ``[batch, levels, windows]`` of a stream → ``wav [batch, samples]`` as it becomes certain.

    Args:
        last: nothing follows; the rest comes out.
    """
    if codes.ndim != 3:
        raise ValueError(f"codes must be [batch, levels, windows], got shape {tuple(codes.shape)}.")
    codec.check_codes(codes)
    codec.use_float32()
    if state is None:
        state = DecoderState(codec.window)
    window, hop = state.window, codec.config.hop
    tokens = torch.zeros(len(codes), 0, codec.config.decoder_dim, device=codec.device)
    if codes.shape[2]:
        tokens = codec.decoder_tokens(codec.quantizer.lookup(codes.to(codec.device)), window)
    output, following = transform(codec.decoder, tokens, state.tokens, window, last)
    new = codec.decoded(output, window) if output.shape[1] else output
    if codec.flow is not None:
        new, flow = codec.flow.extend(new, state.flow, last)
        state = replace(state, flow=flow)
    frames = new if state.frames is None else torch.cat((state.frames, new), dim=1)
    before, after = sound_reach(codec)
    ready = state.first + frames.shape[1] - (0 if last else after)
    state = replace(state, frames=frames, tokens=following)
    if ready <= state.done:
        return frames.new_zeros(len(codes), 0, dtype=torch.float32), state
    starts = {"pulse_start": state.pulse_start, "tone_start": state.tone_start}
    sound = codec.synthesise(frames, noise_offset=state.first * hop, **starts)
    wav = sound.wav[:, (state.done - state.first) * hop : (ready - state.first) * hop]
    first, pulse_start, tone_start = max(0, ready - before), state.pulse_start, state.tone_start
    if first > state.first and sound.frequency is not None and not last:
        phase = pulse_phase(sound.frequency, hop, codec.sample_rate, pulse_start)[1]
        pulse_start = phase[:, (first - state.first + 1) * hop - 1].clone()
    if first > state.first and sound.tone_phase is not None:
        tone_start = sound.tone_phase[:, first - state.first].clone()
    kept = frames[:, first - state.first :].clone()
    return wav, replace(state, frames=kept, first=first, done=ready, pulse_start=pulse_start, tone_start=tone_start)


def encode_long(codec: ALMTokenizer, wav: Tensor) -> Tensor:
    """``wav [1, samples]`` of any length → codes ``[1, levels, windows]`` in bounded memory."""
    step = int(PIECE_SECONDS * codec.sample_rate)
    state, parts = None, []
    for start in range(0, wav.shape[1], step):
        codes, state = encode_piece(codec, wav[:, start : start + step], state, start + step >= wav.shape[1])
        parts.append(codes)
    return torch.cat(parts, dim=2)


def decode_long(codec: ALMTokenizer, codes: Tensor) -> Tensor:
    """``codes [1, levels, windows]`` → ``wav [1, windows * w * hop]`` in memory bounded but for the result."""
    step = max(1, int(PIECE_SECONDS * codec.sample_rate / codec.samples_per_frame))
    wav = torch.empty(1, codes.shape[2] * codec.samples_per_frame)
    state, filled = None, 0
    for start in range(0, codes.shape[2], step):
        piece, state = decode_piece(codec, codes[:, :, start : start + step], state, start + step >= codes.shape[2])
        wav[:, filled : filled + piece.shape[1]] = piece
        filled += piece.shape[1]
    return wav.to(codec.device)
