"""The residual quantiser against brute force, its updates, and the gradient through all levels."""

import torch

from codec.quantizer import Codebook, ResidualQuantizer, kmeans, nearest, usage


def quantizer(levels: int = 3) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(6, 5, 4, (16,) * levels, decay=0.9, dead_below=0.1)


def test_nearest_is_brute_force() -> None:
    x, codebook = torch.randn(50, 4), torch.randn(16, 4)
    assert torch.equal(nearest(x, codebook), torch.cdist(x, codebook).argmin(1))


def test_residual_levels_shrink_the_error_and_lookup_inverts() -> None:
    rvq = quantizer()
    x = torch.randn(2, 40, 6)
    latents = rvq(x, bypass=True)[1].detach()
    rvq.initialise(latents.flatten(0, 1), 5.0, 10, torch.Generator().manual_seed(0))
    result, _ = rvq(x)
    errors = [(latents - result.per_level[: n + 1].sum(0)).square().mean().item() for n in range(3)]
    assert errors[0] > errors[1] > errors[2]
    torch.testing.assert_close(rvq.lookup(result.codes), result.latents, atol=1e-6, rtol=1e-5)
    assert [rvq(x, levels=n)[0].codes.shape[1] for n in (1, 2)] == [1, 2]


def test_straight_through_gradient_reaches_the_input_through_all_levels() -> None:
    rvq = quantizer()
    x = torch.randn(2, 7, 6, requires_grad=True)
    result, latents = rvq(x)
    direction = torch.randn_like(result.latents)
    (result.latents * direction).sum().backward()
    expected = direction @ rvq.project_out.weight @ rvq.project_in.weight
    torch.testing.assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)


def test_commitment_gradient_is_residual_minus_code() -> None:
    rvq = quantizer(levels=1)
    x = torch.randn(1, 5, 6)
    result, latents = rvq(x)
    code = rvq.books[0].embed[result.codes[0, 0]]
    torch.testing.assert_close(result.commitment, (latents[0] - code).square().mean())


def test_update_is_the_moving_average_of_its_latents() -> None:
    book = Codebook(4, 2, decay=0.9, dead_below=0.0)
    before_counts, before_sums = book.counts.clone(), book.sums.clone()
    x = torch.randn(30, 2)
    codes = nearest(x, book.embed)
    book.update(x, codes, torch.Generator())
    for k in range(4):
        mine = x[codes == k]
        torch.testing.assert_close(book.counts[k], 0.9 * before_counts[k] + 0.1 * len(mine))
        torch.testing.assert_close(book.sums[k], 0.9 * before_sums[k] + 0.1 * mine.sum(0))


def test_dead_codes_come_back_to_life_and_stay() -> None:
    book = Codebook(8, 2, decay=0.5, dead_below=0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        book.embed[4:] += 1000.0
        book.sums.copy_(book.embed)
    x = torch.randn(200, 2)
    reseeded = 0
    for _ in range(8):
        reseeded += book.update(x, nearest(x, book.embed), generator)
    assert reseeded >= 4
    assert book.embed.abs().max() < 10
    assert len(nearest(x, book.embed).unique()) == 8


def test_padding_changes_nothing() -> None:
    x = torch.randn(1, 10, 6)
    padded = torch.cat((x, torch.full((1, 5, 6), 50.0)), dim=1)
    valid = torch.arange(15)[None] < 10
    a, b = quantizer(), quantizer()
    first = a(x, update=torch.Generator().manual_seed(1))[0]
    second = b(padded, valid=valid, update=torch.Generator().manual_seed(1))[0]
    torch.testing.assert_close(first.commitment, second.commitment)
    for one, two in zip(a.books, b.books, strict=True):
        torch.testing.assert_close(one.embed, two.embed)


def test_kmeans_finds_separated_clusters() -> None:
    truth = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = (truth[:, None] + 0.1 * torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0))).reshape(-1, 2)
    best = min(torch.cdist(truth, kmeans(x, 3, 10, torch.Generator().manual_seed(s))).amin(1).max() for s in range(5))
    assert best < 0.1


def test_usage_of_known_distributions() -> None:
    share, perplexity = usage(torch.arange(8), 16)
    assert share == 0.5 and abs(perplexity - 8) < 1e-6
    share, perplexity = usage(torch.zeros(100, dtype=torch.long), 16)
    assert share == 1 / 16 and abs(perplexity - 1) < 1e-6
