"""ALMTokenizer: the query-based codec (Yang et al., ICML 2025, arXiv 2504.10344).

::

    wav ─ patchify ─► frames (75 Hz) ─ interleave a query after every w frames ─► encoder ─ keep the queries ─►
    RVQ (3 × 2048) ─► w mask tokens per quantised query ─► decoder ─ keep the mask positions ─► unpatchify ─► wav

w is a run-time choice (2…10, default 6 → 12.5 Hz). The published figure puts the mask tokens before their query; with
plain causal attention window k could then never see token k, so the decoder here is bidirectional (default) or
block-causal within its local attention span. What the paper does not state (width, depth, norms, positions) are keys.
``bottleneck: strided`` (strided.py) is the convolutional baseline; ``patchify: experts`` is in experts.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from codec.interface import Codes, HasLatents, without_autocast
from codec.network.architecture import ALMTokenizerConfig, check_architecture, check_window
from codec.network.ends import build_ends
from codec.network.experts import ExpertPatchify
from codec.network.fingerprint import of_codes, of_decoder
from codec.network.flow_decoder import PIECE, FlowConfig, FlowDecoder, FlowNetwork
from codec.network.patchify import SpectralHead, Synthesis, ToneHead
from codec.network.quantizer import Quantized, ResidualQuantizer
from codec.network.streaming import (
    DecoderState,
    EncoderState,
    Latency,
    decode_long,
    decode_piece,
    encode_long,
    encode_piece,
    latency,
)
from codec.network.strided import StridedDecoder, StridedEncoder
from codec.network.transformer import (
    LocalTransformer,
    RMSNorm,
    WindowPool,
    WindowSpread,
    interleave,
    retrieve_frames,
    retrieve_queries,
    windows_for,
)


@dataclass
class CodecOutput:
    """What a training forward returns: the output of unpatchify and the quantiser's result."""

    synthesis: Synthesis
    quantized: Quantized


class ALMTokenizer(PreTrainedModel, HasLatents):
    """The codec; ``save_pretrained`` / ``from_pretrained`` as any transformers model."""

    config_class = ALMTokenizerConfig
    base_model_prefix = "almtokenizer"
    main_input_name = "wav"
    one_pass_seconds = 60.0  # longer clips are encoded and decoded in pieces, with the same result

    def __init__(self, config: ALMTokenizerConfig) -> None:
        super().__init__(config)
        check_architecture(config)
        self.patchify, self.unpatchify = build_ends(config, config.encoder_dim, config.decoder_dim)
        if config.patchify == "experts":
            self.patchify = ExpertPatchify.of(config)
        self.query = self.mask = self.pool = self.spread = None
        self.encoder: LocalTransformer | StridedEncoder
        self.decoder: LocalTransformer | StridedDecoder
        encoder = (config.encoder_dim, config.encoder_layers)
        decoder = (config.decoder_dim, config.decoder_layers)
        if config.bottleneck == "queries":
            self.query = nn.Parameter(torch.zeros(config.encoder_dim))
            self.mask = nn.Parameter(torch.zeros(config.decoder_dim))
            stack: dict[str, Any] = dict(head_dim=config.head_dim, span=config.span, ffn=config.ffn)
            if config.window_basis:
                self.pool = WindowPool(config.encoder_dim, config.window_basis)
                self.spread = WindowSpread(config.decoder_dim, config.window_basis)
            self.encoder = LocalTransformer(*encoder, block_causal=config.encoder_block_causal, **stack)
            self.decoder = LocalTransformer(*decoder, block_causal=config.decoder_block_causal, **stack)
        else:
            self.encoder = StridedEncoder(*encoder, config.window, config.encoder_block_causal)
            self.decoder = StridedDecoder(*decoder, config.window, config.decoder_block_causal)
        self.quantizer = ResidualQuantizer(
            config.encoder_dim,
            config.decoder_dim,
            config.code_dim,
            tuple(config.codebook_sizes),
            config.codebook_decay,
            config.dead_code_share,
            config.semantic_dim,
            config.whiten,
        )
        self.flow = None if config.flow is None else FlowDecoder(FlowConfig.of(config.flow), config, self.unpatchify)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (SpectralHead, ToneHead, FlowNetwork)):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            fan_in = module.in_channels * module.kernel_size[0] / (module.stride[0] if module.transposed else 1)
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif module is self and self.query is not None and self.mask is not None:
            nn.init.normal_(self.query, std=0.02)
            nn.init.normal_(self.mask, std=0.02)

    @classmethod
    def from_pretrained(cls, *args: Any, **settings: Any) -> Any:
        """As of any transformers model, but in float32 where no ``dtype`` is named: weights may be saved as bf16."""
        return super().from_pretrained(*args, **{"dtype": torch.float32, **settings})

    # ---- AudioTokenizer ----------------------------------------------------------------------------------------
    name = "almtokenizer"

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        return self.config.sample_rate

    @property
    def codebook_sizes(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.config.codebook_sizes)

    @property
    def causal(self) -> bool:  # type: ignore[override]
        delay, frame = self.stream_latency, 1000 / self.frame_rate
        return delay.encode <= frame + 1e-6 and delay.decode <= frame + 1e-6

    @property
    def window(self) -> int:
        """Frames per query, 2…10."""
        return self.config.window

    def set_window(self, window: int) -> None:
        """Choose another frame rate (75 Hz / window) from the same weights."""
        check_window(window)
        if self.config.bottleneck == "strided" and window != self.config.window:
            raise ValueError(
                f"this codec has no queries: its window is {self.config.window} and cannot be {window}; give "
                f"tokenizer.window={self.config.window}."
            )
        self.config.window = window

    def set_levels(self, levels: int) -> None:
        """Keep the first levels of the quantiser only: a lower bit rate from the same weights."""
        if not 1 <= levels <= self.levels:
            raise ValueError(f"levels={levels}: this codec has levels 1 to {self.levels}.")
        self.config.codebook_sizes = self.config.codebook_sizes[:levels]
        self.quantizer.books = self.quantizer.books[:levels]

    @property
    def samples_per_frame(self) -> int:
        return self.config.hop * self.config.window

    @property
    def one_pass_windows(self) -> float:
        """Windows of the longest clip that is decoded in one pass: of a flow decoder, one piece of its grid."""
        if self.flow is not None:
            return PIECE / self.window
        return self.one_pass_seconds * self.sample_rate / self.samples_per_frame

    @property
    def fingerprint(self) -> str:
        return of_codes(self.config, self.state_dict())

    @property
    def decoder_fingerprint(self) -> str:
        if self.flow is None:
            return self.fingerprint
        return of_decoder(self.fingerprint, self.config, self.flow.sampling, self.state_dict())

    def describe(self) -> dict[str, object]:
        """As of any tokenizer; of a flow decoder also what it is and how it samples."""
        found = super().describe()
        if self.flow is not None:
            found |= {"decoder_fingerprint": self.decoder_fingerprint, "flow": asdict(self.flow.sampling)}
        return found

    @torch.inference_mode()
    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:  # type: ignore[override]
        device = self.device
        wav, lengths = wav.to(device), lengths.to(device)
        if int(lengths.max()) > self.one_pass_seconds * self.sample_rate:
            return self._encode_each(wav, lengths)
        windows = torch.div(lengths + self.samples_per_frame - 1, self.samples_per_frame, rounding_mode="floor")
        samples = int(windows.max()) * self.samples_per_frame
        wav = nn.functional.pad(wav, (0, max(0, samples - wav.shape[1])))[:, :samples]
        valid = torch.arange(samples // self.samples_per_frame, device=device) < windows[:, None]
        codes = self.quantizer.codes_of(self.encode_latents(wav, self.window, valid))
        return Codes((codes * valid[:, None]).cpu(), windows.cpu(), lengths.cpu())

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        device = self.device
        lengths = codes.lengths.to(device)
        if int(lengths.max()) > self.one_pass_windows:
            return self._decode_each(codes)
        valid = torch.arange(codes.codes.shape[2], device=device) < lengths[:, None]
        latents = self.quantizer.lookup(codes.codes.to(device)) * valid[..., None]
        wav = self.decode_latents(latents, self.window, valid).wav
        samples = codes.samples.to(device) if codes.samples is not None else lengths * self.samples_per_frame
        wav = wav[:, : int(samples.max())]
        return wav * (torch.arange(wav.shape[1], device=device) < samples[:, None])

    def _encode_each(self, wav: Tensor, lengths: Tensor) -> Codes:
        """As :meth:`encode`, clip by clip, long ones in pieces."""
        parts = []
        for i, length in enumerate(lengths.tolist()):
            clip = wav[i : i + 1, :length]
            long = length > self.one_pass_seconds * self.sample_rate
            parts.append(encode_long(self, clip) if long else self.encode(clip).codes)
        codes = Codes.from_clips([part[0].T for part in parts])
        return Codes(codes.codes, codes.lengths, lengths.cpu())

    def _decode_each(self, codes: Codes) -> Tensor:
        """As :meth:`decode`, clip by clip, long ones in pieces."""
        lengths = codes.lengths.tolist()
        samples = [n * self.samples_per_frame for n in lengths] if codes.samples is None else codes.samples.tolist()
        wav = torch.zeros(len(codes), max(samples), device=self.device)
        for i, (length, wanted) in enumerate(zip(lengths, samples, strict=True)):
            clip = codes.codes[i : i + 1, :, :length]
            long = length > self.one_pass_windows
            part = decode_long(self, clip) if long else self.decode(Codes(clip, codes.lengths[i : i + 1]))
            wav[i, :wanted] = part[0, :wanted]
        return wav

    # ---- the space that is quantised -----------------------------------------------------------------------------
    def latents_of_clip(self, wav: Tensor) -> Tensor:
        wav = nn.functional.pad(wav, (0, -wav.shape[1] % self.samples_per_frame))
        valid = torch.ones(1, wav.shape[1] // self.samples_per_frame, dtype=torch.bool, device=wav.device)
        return self.quantizer.project(self.encode_latents(wav, self.window, valid))[1][0]

    def quantise(self, z: Tensor) -> Tensor:
        return self.quantizer.assign(z)

    def vectors(self, codes: Tensor) -> Tensor:
        return self.quantizer.vectors(codes.to(self.device))

    def sound_of_latents(self, z: Tensor) -> Tensor:
        valid = torch.ones(1, len(z), dtype=torch.bool, device=z.device)
        return self.decode_latents(self.quantizer.project_out(z)[None], self.window, valid).wav

    # ---- streams -----------------------------------------------------------------------------------------------
    @without_autocast
    def encode_stream(
        self, wav: Tensor, state: EncoderState | None = None, last: bool = False
    ) -> tuple[Tensor, EncoderState]:
        """The next samples ``[batch, samples]`` → codes ``[batch, levels, windows]`` and the state to go on from."""
        return encode_piece(self, wav, state, last)

    @without_autocast
    def decode_stream(
        self, codes: Tensor, state: DecoderState | None = None, last: bool = False
    ) -> tuple[Tensor, DecoderState]:
        """The next codes ``[batch, levels, windows]`` → ``wav [batch, samples]`` and the state to go on from."""
        return decode_piece(self, codes, state, last)

    @property
    def stream_latency(self) -> Latency:
        """Algorithmic delay in ms at the present window."""
        return latency(self)

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Set input normalisation and output level from training audio, each ``[batch, windows * w * hop]``."""
        self.patchify.calibrate(batches)
        self.unpatchify.calibrate(batches)

    # ---- the network -------------------------------------------------------------------------------------------
    def encode_latents(self, wav: Tensor, window: int, valid: Tensor | None = None) -> Tensor:
        """``wav [batch, windows * w * hop]`` → query latents ``[batch, windows, dim]``; ``valid [batch, windows]``."""
        frames = self.patchify(wav, None if valid is None else valid.repeat_interleave(window, dim=1))
        tokens = self.encoder_tokens(frames, window)
        if isinstance(self.encoder, StridedEncoder):
            return self.encoder(tokens, valid)
        return self.encoded(self.encoder(tokens, token_mask(valid, window), window), window)

    def encoder_tokens(self, frames: Tensor, window: int) -> Tensor:
        """Frames ``[batch, windows * w, dim]`` beside a query per window → ``[batch, windows * (w + 1), dim]``.

        Without queries the frames themselves.
        """
        if self.query is None:
            return frames
        queries = self.query.expand(len(frames), windows_for(frames.shape[1], window), -1)
        if self.pool is not None:
            queries = queries + self.pool(frames, window)
        return interleave(frames, queries, window)

    def encoded(self, output: Tensor, window: int) -> Tensor:
        """The encoder's output → query latents ``[batch, windows, dim]``."""
        return output if self.query is None else retrieve_queries(output, window)

    def decoder_tokens(self, latents: Tensor, window: int) -> Tensor:
        """Latents ``[batch, windows, dim]`` beside w mask tokens each → ``[batch, windows * (w + 1), dim]``.

        Without queries the latents themselves.
        """
        if self.mask is None:
            return latents
        masks = self.mask.expand(len(latents), latents.shape[1] * window, -1)
        if self.spread is not None:
            masks = masks + self.spread(latents, window)
        return interleave(masks, latents, window, query_first=self.config.decoder_query_first)

    def decoded(self, output: Tensor, window: int) -> Tensor:
        """The decoder's output → frames ``[batch, windows * w, dim]``."""
        if self.mask is None:
            return output
        return retrieve_frames(output, window, query_first=self.config.decoder_query_first)

    def decode_latents(
        self, latents: Tensor, window: int, valid: Tensor | None = None, noise_offset: int = 0
    ) -> Synthesis:
        """Quantised latents ``[batch, windows, dim]`` → ``wav [batch, windows * w * hop]`` and what it was made of.

        A flow decoder takes at most one piece of its grid; what is longer goes through :meth:`decode`.
        """
        frames, frames_valid = self.decoder_frames(latents, window, valid)
        if self.flow is not None:
            frames = torch.cat((frames, self.flow.sample(frames, frames_valid)), dim=-1)
        return self.synthesise(frames, noise_offset=noise_offset, valid=frames_valid)

    def decoder_frames(self, latents: Tensor, window: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Quantised latents → what the decoder stack makes of them, ``[batch, windows * w, dim]``, and its mask."""
        tokens = self.decoder_tokens(latents, window)
        if isinstance(self.decoder, StridedDecoder):
            frames = self.decoder(tokens, valid)
        else:
            frames = self.decoded(self.decoder(tokens, token_mask(valid, window), window), window)
        return frames, None if valid is None else valid.repeat_interleave(window, dim=1)

    def synthesise(self, frames: Tensor, **how: Any) -> Synthesis:
        """``frames [batch, n, dim]``, with the values of a flow beside them if there is one → ``wav [batch, n * hop]``.

        Args:
            how: ``noise_offset``, ``valid``, ``pulse_start``, ``tone_start`` of :class:`STFTUnpatchify`.
        """
        if self.flow is None:
            return self.unpatchify(frames, **how)
        own = self.config.decoder_dim
        return self.flow.target.render(frames[..., own:], frames[..., :own], self.unpatchify, **how)

    @contextmanager
    def without_flow(self) -> Iterator[None]:
        """The codec decodes as it did before its flow decoder inside the ``with`` block."""
        flow, self.flow = self.flow, None
        try:
            yield
        finally:
            self.flow = flow

    def forward(
        self,
        wav: Tensor,
        window: int | None = None,
        levels: int | None = None,
        bypass: bool = False,
        noise_offset: int = 0,
        unquantised: Tensor | None = None,
    ) -> CodecOutput:
        """Training pass over crops of whole windows.

        Args:
            wav: ``[batch, windows * w * hop]``.
            levels: use only the first levels (level dropout).
            bypass: leave the quantiser out (warm-up).
            unquantised: ``[batch]`` bool, clips whose latents are not quantised.
        """
        window = window or self.window
        latents = self.encode_latents(wav, window)
        quantized = self.quantizer(latents, levels=levels, bypass=bypass, unquantised=unquantised)
        synthesis = self.decode_latents(quantized.latents, window, noise_offset=noise_offset)
        return CodecOutput(synthesis, quantized)


def token_mask(valid: Tensor | None, window: int) -> Tensor | None:
    """``[batch, windows]`` → ``[batch, windows * (w + 1)]``: a window's tokens are valid or padding together."""
    return None if valid is None else valid.repeat_interleave(window + 1, dim=1)


AutoConfig.register("almtokenizer", ALMTokenizerConfig, exist_ok=True)
AutoModel.register(ALMTokenizerConfig, ALMTokenizer, exist_ok=True)
