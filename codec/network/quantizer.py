"""Residual vector quantisation with EMA codebooks (paper section 3: 3 levels of 2048 codes).

Each level quantises what the levels before it left over. Codebooks follow their latents by exponential moving
averages (van den Oord et al., 2017; decay 0.99 as EnCodec), start from k-means over tens of thousands of latents
(at 12.5 Hz one batch has a few hundred: initialising from it collapses the deeper levels), and codes that fall far
below uniform usage are re-seeded with current latents. The straight-through gradient passes all levels at once.
A pass changes nothing: :meth:`ResidualQuantizer.finish_step` moves the codebooks when a step's batches are through.

With a semantic prior (paper section 3) the first codebook is frozen: k-means centres of self-supervised features, seen
through a trainable linear map. ``codec/semantic_prior.py`` fits the centres.

The paper does not state the code dimension, the update rule or the dead-code policy: they are ours, and options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.code_space import Whitening
from training.config import ConfigError


@dataclass
class Quantized:
    """What the quantiser returns.

    Attributes:
        latents: ``[batch, windows, dim]`` the quantised latents, straight-through to the input.
        codes: ``[batch, levels, windows]`` int64.
        commitment: scalar, mean squared distance of each level's input to its (detached) code.
        per_level: ``[levels, batch, windows, code_dim]`` each level's dequantised vector (the AR objective reads them).
        inputs: ``[batch, windows, code_dim]`` what was quantised.
        projected: the same before whitening.
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor
    per_level: Tensor
    inputs: Tensor
    projected: Tensor
    prior: Tensor | None = None
    """scalar, mean squared distance of the (detached) latents to the mapped centres of a semantic prior, or None"""


DISTANCES = 1 << 25  # that are computed at once: 128 MiB, however many latents there are


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the closest code (Euclidean) for ``x [n, dim]`` in ``codebook [size, dim]``; float32 throughout."""
    # |x - c|² = |x|² - 2xc + |c|²; |x|² is the same for all codes
    squares, parts = codebook.square().sum(1), x.split(max(1, DISTANCES // len(codebook)))
    return torch.cat([torch.addmm(squares, part, codebook.T, alpha=-2.0).argmin(1) for part in parts])


def kmeans(x: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's k-means of ``x [n, dim]`` → centres ``[size, dim]``; empty clusters restart at random points."""
    if len(x) < size:
        raise ValueError(f"k-means of {size} centres needs at least as many latents, got {len(x)}.")
    centres = x[torch.randperm(len(x), generator=generator)[:size]].clone()
    for _ in range(iterations):
        assigned = nearest(x, centres)
        counts = torch.bincount(assigned, minlength=size).to(x.dtype)
        centres = torch.zeros_like(centres).index_add_(0, assigned, x) / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = x[torch.randint(len(x), (len(empty),), generator=generator)]
    return centres


class Codebook(nn.Module):
    """One level: ``size`` codes of ``dim`` numbers, learnt by moving averages (buffers, not parameters)."""

    embed: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float, dead_below: float) -> None:
        super().__init__()
        self.size, self.decay, self.dead_below = size, decay, dead_below
        self.register_buffer("embed", torch.randn(size, dim) * dim**-0.5)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", self.embed.clone())

    def assign(self, x: Tensor) -> Tensor:
        """``[n, dim]`` → codes ``[n]``."""
        return nearest(x, self.embed)

    @property
    def begun(self) -> bool:
        """Whether codes were ever set: they and their statistics are no longer what the constructor drew."""
        return not (bool((self.counts == 1).all()) and torch.equal(self.sums, self.embed))

    def forget(self) -> None:
        """Begin anew, as the constructor does: codes that no k-means has set."""
        self.counts.fill_(1)
        self.sums.copy_(self.embed)

    def set_codes(self, embed: Tensor, uniform: float) -> None:
        """Start from ``embed [size, dim]`` as if each code had been used ``uniform`` times per step."""
        self.embed.copy_(embed)
        self.counts.fill_(uniform)
        self.sums.copy_(embed * uniform)

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move towards a step's latents ``x [n, dim]`` with ``codes [n]``; returns the number of re-seeded codes.

        Args:
            generator: chooses the seeds; in the same state in all processes.
        """
        counts = torch.bincount(codes, minlength=self.size).to(x.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, x)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + 1e-5) / (total + self.size * 1e-5) * total
        self.embed.copy_(self.sums / smoothed[:, None])
        uniform = total / self.size
        dead = (self.counts < self.dead_below * uniform).nonzero()[:, 0]
        if len(dead) and len(x):
            seeds = x[torch.randint(len(x), (len(dead),), generator=generator, device="cpu").to(x.device)]
            # the sum and the count move with the code, or the next update would undo the replacement
            self.embed[dead] = seeds
            self.counts[dead] = uniform
            self.sums[dead] = seeds * uniform
        return len(dead)


class SemanticCodebook(nn.Module):
    """A frozen codebook of semantic centres behind a trainable linear map (the form is LLM-Codec's, same author).

    Lookup compares directions: ``k = argmin ‖norm(x) − norm(P c_k)‖``; the code vector is the unnormalised ``P c_k``.
    The centres never change; P follows the latents by the ``prior`` loss.

    Args:
        centre_dim: dimension of the centres, which is that of the features they were fitted to.
    """

    centres: Tensor

    def __init__(self, size: int, dim: int, centre_dim: int) -> None:
        super().__init__()
        self.size = size
        self.mapped = False  # whether the map came with the centres, and is not to be guessed by `align`
        self.register_buffer("centres", torch.randn(size, centre_dim) * centre_dim**-0.5)
        self.map = nn.Linear(centre_dim, dim)

    @property
    def embed(self) -> Tensor:
        """The code vectors ``[size, dim]``, differentiable with respect to the map."""
        return self.map(self.centres)

    def assign(self, x: Tensor) -> Tensor:
        """``[n, dim]`` → codes ``[n]``: the closest direction."""
        with torch.no_grad():
            directions = F.normalize(self.embed, dim=1).T
            parts = F.normalize(x, dim=1).split(max(1, DISTANCES // self.size))
            return torch.cat([(part @ directions).argmax(1) for part in parts])

    @torch.no_grad()
    def set_centres(self, centres: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """Install the fitted centres ``[size, centre_dim]``, and the map ``[dim, centre_dim]``, ``[dim]`` if fitted."""
        self.centres.copy_(centres)
        if weight is not None and bias is not None:
            self.map.weight.copy_(weight)
            self.map.bias.copy_(bias)
            self.mapped = True

    @torch.no_grad()
    def align(self, latents: Tensor) -> None:
        """Start the map where the centres spread as ``latents [n, dim]`` do: principal axes onto principal axes.

        A random map leaves most directions without latents near them, and few codes are ever used.
        """
        to_axes, to_spread, to_mean = principal_axes(latents)
        axes, spread, mean = principal_axes(self.centres)
        rank = min(axes.shape[1], to_axes.shape[1])
        gain = to_spread[:rank] / spread[:rank].clamp(min=1e-6 * float(spread[0]))
        self.map.weight.copy_((to_axes[:, :rank] * gain) @ axes[:, :rank].T)
        self.map.bias.copy_(to_mean - self.map.weight @ mean)


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Axes ``[dim, dim]`` (columns, widest first), standard deviations along them, and mean of ``x [n, dim]``."""
    mean = x.mean(0)
    variance, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return axes.flip(1), variance.flip(0).clamp(min=0).sqrt(), mean


class ResidualQuantizer(nn.Module):
    """Projection to the code space, residual levels, projection back.

    Args:
        dim_in, dim_out: widths of the encoder and of the decoder.
        code_dim: dimension of the code vectors.
        sizes: codes per level.
        dead_below: a code used less than this share of uniform usage is re-seeded.
        semantic_dim: dimension of the semantic centres that make the first codebook; 0 for an ordinary one.
        whiten: quantise latents of unit variance on all axes (:class:`codec.network.code_space.Whitening`).
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        code_dim: int,
        sizes: tuple[int, ...],
        decay: float,
        dead_below: float,
        semantic_dim: int = 0,
        whiten: bool = False,
    ) -> None:
        super().__init__()
        self.project_in = nn.Linear(dim_in, code_dim)
        self.whitening = Whitening(code_dim, decay) if whiten else None
        self.project_out = nn.Linear(code_dim, dim_out)
        books: list[nn.Module] = [Codebook(size, code_dim, decay, dead_below) for size in sizes[bool(semantic_dim) :]]
        if semantic_dim:
            books.insert(0, SemanticCodebook(sizes[0], code_dim, semantic_dim))
        self.books = nn.ModuleList(books)

    def forward(
        self,
        x: Tensor,
        levels: int | None = None,
        bypass: bool = False,
        unquantised: Tensor | None = None,
    ) -> Quantized:
        """Quantise ``x [batch, windows, dim]``.

        Args:
            levels: use only the first ``levels`` codebooks; None: all.
            bypass: return the projected latents without quantising (warm-up); codes are computed all the same.
            unquantised: ``[batch]`` bool, clips whose latents pass as they are; their codes count all the same.
        """
        if levels is not None and not 1 <= levels <= len(self.books):
            raise ValueError(f"levels={levels}: this quantiser has levels 1 to {len(self.books)}.")
        with torch.autocast(x.device.type, enabled=False):  # distances in bf16 pick wrong codes
            projected, latents = self.project(x)
            residual = latents.flatten(0, 1)
            total = torch.zeros_like(residual)
            codes, vectors, commitment, prior = [], [], residual.new_zeros(()), None
            for book in list(self.books)[:levels]:
                index = book.assign(residual.detach())
                vector = book.embed[index]
                if isinstance(book, SemanticCodebook):
                    # zero while the quantiser is left out; the map stays in the graph, as several processes demand
                    prior = (residual.detach() - vector).square().mean() * (0.0 if bypass else 1.0)
                    vector = vector.detach()
                if not bypass:
                    commitment = commitment + (residual - vector).square().mean()
                codes.append(index)
                vectors.append(vector)
                total = total + vector
                residual = residual - vector
            shape = latents.shape[:2]
            quantized = latents if bypass else latents + (total.view_as(latents) - latents).detach()
            if unquantised is not None:
                quantized = torch.where(unquantised[:, None, None], latents, quantized)
            return Quantized(
                latents=self.project_out(quantized).to(x.dtype),
                codes=torch.stack(codes).view(-1, *shape).transpose(0, 1),
                commitment=commitment,
                per_level=torch.stack(vectors).view(-1, *shape, latents.shape[2]),
                inputs=latents,
                projected=projected,
                prior=prior,
            )

    def codes_of(self, x: Tensor) -> Tensor:
        """Codes ``[batch, levels, windows]`` of a trained encoder's ``x [batch, windows, dim]``.

        Raises:
            ConfigError: latents are not finite, which codes do not show.
        """
        found = self(x)
        if not bool(torch.isfinite(found.inputs).all()):
            raise ConfigError(
                "the codec's encoder gives latents that are NaN or infinite, so there are no codes: its weights, or "
                "those of its experts, are damaged; take others."
            )
        return found.codes

    @torch.no_grad()
    def finish_step(
        self,
        batches: Sequence[Quantized],
        generator: torch.Generator | None,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> int:
        """Move the codebooks and the whitening towards the latents of a training step; returns the re-seeded codes.

        Args:
            batches: what came of the step's batches, all with as many levels: they move the codes once, as one large
                batch would.
            generator: chooses the seeds, in the same state in all processes; None: the codebooks stay (warm-up).
            gather: the rows ``[n, ...]`` of all processes of those of this one: statistics of their own would let the
                replicas drift apart.
        """
        if self.whitening is not None:
            self.whitening.observe(gather(torch.cat([batch.projected.flatten(0, 1) for batch in batches])))
        if generator is None:
            return 0
        reseeded = 0
        residual = torch.cat([batch.inputs.flatten(0, 1) for batch in batches])
        codes = torch.cat([batch.codes.transpose(1, 2).flatten(0, 1) for batch in batches])  # [n, levels]
        vectors = torch.cat([batch.per_level.flatten(1, 2) for batch in batches], dim=1)  # [levels, n, code_dim]
        for book, index, vector in zip(self.books, codes.T, vectors, strict=False):
            if isinstance(book, Codebook):
                reseeded += book.update(gather(residual), gather(index.contiguous()), generator)
            residual = residual - vector
        return reseeded

    @property
    def begun(self) -> bool:
        """Whether all levels have codes; without, the quantiser is that of a warm-up, which leaves it out."""
        return all(book.begun for book in self.books if isinstance(book, Codebook))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [..., dim]`` in the code space ``[..., code_dim]``: before whitening, and what is quantised."""
        projected = self.project_in(x.float())
        return projected, projected if self.whitening is None else self.whitening(projected)

    def assign(self, latents: Tensor) -> Tensor:
        """Codes ``[n, levels]`` of ``latents [n, code_dim]``."""
        codes, residual = [], latents
        for book in self.books:
            codes.append(book.assign(residual))
            residual = residual - book.embed[codes[-1]]
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor) -> Tensor:
        """``codes [..., levels]`` → ``[..., code_dim]``; fewer levels than trained are legal."""
        total = sum(book.embed[codes[..., i]] for i, book in zip(range(codes.shape[-1]), self.books, strict=False))
        assert isinstance(total, Tensor)
        return total

    def lookup(self, codes: Tensor) -> Tensor:
        """``codes [batch, levels, windows]`` → ``[batch, windows, dim]``; fewer levels than trained are legal."""
        return self.project_out(self.vectors(codes.transpose(1, 2)))

    @torch.no_grad()
    def initialise(self, latents: Tensor, per_step: float, iterations: int, generator: torch.Generator) -> None:
        """k-means of ``latents [n, code_dim]``, level after level on what the levels before leave over.

        Args:
            per_step: latents per training step, which sets the counts that the moving averages start from.
        """
        residual = latents.float()
        for book in self.books:
            if isinstance(book, SemanticCodebook):
                if not book.mapped:
                    book.align(residual)
            else:
                book.set_codes(kmeans(residual, book.size, iterations, generator), per_step / book.size)
            residual = residual - book.embed[book.assign(residual)]


def usage(codes: Tensor, size: int) -> tuple[float, float]:
    """Share of the ``size`` codes that occur in ``codes``, and the perplexity of their distribution."""
    counts = torch.bincount(codes.flatten(), minlength=size).double()
    p = counts / counts.sum().clamp(min=1)
    entropy = -(p * p.clamp(min=1e-12).log()).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
