"""The residual quantiser against brute force, its updates, and the gradient through all levels."""

import pytest
import torch

from codec.network.quantizer import Codebook, Quantized, ResidualQuantizer, kmeans, nearest, usage


def quantizer(levels: int = 3) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(6, 5, 4, (16,) * levels, decay=0.9, dead_below=0.1)


def test_nearest_is_brute_force() -> None:
    x, codebook = torch.randn(50, 4), torch.randn(16, 4)
    assert torch.equal(nearest(x, codebook), torch.cdist(x, codebook).argmin(1))


def test_residual_levels_shrink_the_error_and_lookup_inverts() -> None:
    rvq = quantizer()
    x = torch.randn(2, 40, 6)
    latents = rvq(x, bypass=True).inputs.detach()
    rvq.initialise(latents.flatten(0, 1), 5.0, 10, torch.Generator().manual_seed(0))
    result = rvq(x)
    errors = [(latents - result.per_level[: n + 1].sum(0)).square().mean().item() for n in range(3)]
    assert errors[0] > errors[1] > errors[2]
    torch.testing.assert_close(rvq.lookup(result.codes), result.latents, atol=1e-6, rtol=1e-5)
    assert [rvq(x, levels=n).codes.shape[1] for n in (1, 2)] == [1, 2]


def test_straight_through_gradient_reaches_the_input_through_all_levels() -> None:
    rvq = quantizer()
    x = torch.randn(2, 7, 6, requires_grad=True)
    result = rvq(x)
    direction = torch.randn_like(result.latents)
    (result.latents * direction).sum().backward()
    expected = direction @ rvq.project_out.weight @ rvq.project_in.weight
    torch.testing.assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)


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


def test_embed_is_the_sums_over_laplace_smoothed_counts() -> None:
    book = Codebook(4, 2, decay=0.99, dead_below=0.0)
    # few uses, so that the smoothing shows; one code is hardly used, one never
    book.counts.copy_(torch.tensor([0.08, 1e-4, 0.0, 0.04]))
    book.sums.copy_(torch.tensor([[0.08, 0.16], [1e-4, 1e-4], [0.0, 0.0], [-0.04, 0.02]]))
    x, codes = torch.tensor([[2.0, 2.0], [4.0, 0.0]]), torch.tensor([0, 3])
    book.update(x, codes, torch.Generator())
    counts = torch.tensor([0.0892, 0.99e-4, 0.0, 0.0496], dtype=torch.float64)
    sums = torch.tensor([[0.0992, 0.1784], [0.99e-4, 0.99e-4], [0.0, 0.0], [0.0004, 0.0198]], dtype=torch.float64)
    total = counts.sum()
    smoothed = (counts + 1e-5) / (total + 4 * 1e-5) * total  # van den Oord et al. (2017), appendix A.1
    torch.testing.assert_close(book.embed.double(), sums / smoothed[:, None], atol=0, rtol=2e-5)
    assert torch.isfinite(book.embed).all(), "an unused code divides by the smoothing, not by zero"


def test_a_start_from_enough_latents_uses_all_levels() -> None:
    """Levels that all fit the same latents, not what is left over, would leave few codes in use in the deeper ones."""
    rvq = quantizer()
    x = torch.randn(40 * 16, 6) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.2]))
    latents = rvq(x[None], bypass=True).inputs[0].detach()
    rvq.initialise(latents, 5.0, 15, torch.Generator().manual_seed(0))
    unseen = torch.randn(1, 2000, 6) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.2]))
    codes = rvq(unseen).codes
    for level in range(3):
        share, perplexity = usage(codes[:, level], 16)
        assert share == 1.0 and perplexity > 10, f"level {level}"
    assert all(float(book.counts.sum()) == 5.0 for book in rvq.books), "as if a step had this many latents"


def test_few_latents_for_many_codes_reseed_none() -> None:
    """64 latents per step for 1024 codes: an absolute threshold, 2 uses or even 0.1, would call all codes dead."""
    generator = torch.Generator().manual_seed(0)
    book = Codebook(1024, 4, decay=0.99, dead_below=0.1)
    places = torch.randn(1024, 4, generator=generator)
    book.set_codes(places, 64 / 1024)
    reseeded = 0
    for _ in range(100):
        x = places[torch.randint(1024, (64,), generator=generator)]
        reseeded += book.update(x, book.assign(x), generator)
    assert reseeded == 0
    torch.testing.assert_close(book.embed, places, atol=0.05, rtol=0.05)


def test_a_code_is_dead_when_it_falls_below_its_share_of_uniform_usage() -> None:
    """However few or many latents a step has: 0.9²² is the first power below 0.1."""
    for per_step in (8, 800):
        book = Codebook(8, 2, decay=0.9, dead_below=0.1)
        places = torch.stack((torch.arange(8.0), torch.zeros(8)), dim=1)
        book.set_codes(places, per_step / 8)
        x = places[:7].repeat_interleave(per_step // 8, dim=0)  # never the last one
        x = torch.cat((x, places[0].expand(per_step - len(x), 2)))  # as many latents as the start says
        counts = [book.update(x, book.assign(x), torch.Generator().manual_seed(0)) for _ in range(22)]
        assert counts == [0] * 21 + [1], per_step


def test_reseeded_codes_take_current_latents_and_count_as_used() -> None:
    book = Codebook(4, 2, decay=0.5, dead_below=0.1)
    book.counts.copy_(torch.tensor([10.0, 10.0, 0.0, 0.0]))
    book.sums.copy_(book.embed * book.counts[:, None])
    x = torch.randn(20, 2)
    assert book.update(x, torch.arange(20) % 2, torch.Generator().manual_seed(0)) == 2
    uniform = book.counts[:2].sum() / 4  # the total of the moment of the decision
    for k in (2, 3):
        assert (x == book.embed[k]).all(1).any(), "one of the latents of this step"
        torch.testing.assert_close(book.counts[k], uniform)
        torch.testing.assert_close(book.sums[k], book.embed[k] * uniform)


@pytest.mark.parametrize("semantic_dim", [0, 8])
def test_codes_under_bf16_autocast_are_those_of_float32(semantic_dim: int) -> None:
    """Distances of bf16 have eight bits, and codes lie closer together than that."""

    def made(dtype: torch.dtype, autocast: bool) -> tuple[ResidualQuantizer, Quantized]:
        torch.manual_seed(0)
        rvq = ResidualQuantizer(6, 5, 4, (256, 256), decay=0.9, dead_below=0.1, semantic_dim=semantic_dim)
        x = (torch.randn(2, 300, 6) + 3).bfloat16().to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = rvq(x)
        rvq.finish_step([result], torch.Generator().manual_seed(1))
        return rvq, result

    plain, expected = made(torch.float32, False)
    for dtype in (torch.float32, torch.bfloat16):
        mixed, result = made(dtype, True)
        assert torch.equal(result.codes, expected.codes) and result.latents.dtype == dtype
        torch.testing.assert_close(result.commitment, expected.commitment)
        for one, two in zip(plain.buffers(), mixed.buffers(), strict=True):
            assert two.dtype == torch.float32 and torch.equal(one, two), "statistics are of float32, too"
    # bf16 distances would have given others
    latents = plain.project_in(torch.randn(600, 6) + 3).detach()
    book = plain.books[1]
    with torch.autocast("cpu", torch.bfloat16):
        coarse = nearest(latents.bfloat16(), book.embed.bfloat16())
    assert (coarse != nearest(latents, book.embed)).any()


def test_dropped_levels_neither_learn_nor_cost() -> None:
    rvq = quantizer()
    before = [book.embed.clone() for book in rvq.books]
    x = torch.randn(2, 30, 6, requires_grad=True)
    result = rvq(x, levels=2)
    assert all(torch.equal(book.embed, old) for book, old in zip(rvq.books, before, strict=True)), (
        "a pass moves nothing"
    )
    rvq.finish_step([result], torch.Generator().manual_seed(0))
    assert result.codes.shape == (2, 2, 30) and result.per_level.shape == (2, 2, 30, 4)
    moved = [not torch.equal(book.embed, old) for book, old in zip(rvq.books, before, strict=True)]
    assert moved == [True, True, False]
    first = (result.inputs - result.per_level[0]).square().mean()
    second = (result.inputs - result.per_level.sum(0)).square().mean()
    torch.testing.assert_close(result.commitment, first + second)
    # what the dropped level would have added is missing, yet the gradient passes as if nothing had been quantised
    direction = torch.randn_like(result.latents)
    (result.latents * direction).sum().backward()
    torch.testing.assert_close(x.grad, direction @ rvq.project_out.weight @ rvq.project_in.weight, atol=1e-5, rtol=1e-4)
    for levels in (0, 4, -1):
        with pytest.raises(ValueError, match=f"levels={levels}: this quantiser has levels 1 to 3"):
            rvq(x, levels=levels)


def test_the_batches_of_a_step_move_the_codes_once_as_one_large_batch_does() -> None:
    whole, parts = (ResidualQuantizer(6, 5, 4, (16, 16), 0.9, 0.1, whiten=True) for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    for seed in (0, 1):
        x = torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(seed))
        counts = [
            rvq.finish_step([rvq(part) for part in batches], torch.Generator().manual_seed(seed))
            for rvq, batches in ((whole, [x]), (parts, x.split(1)))
        ]
        assert counts[0] == counts[1]
    for one, two in zip(whole.buffers(), parts.buffers(), strict=True):
        torch.testing.assert_close(one, two)


def test_left_out_the_quantiser_passes_its_input_and_learns_nothing() -> None:
    rvq = quantizer()
    before = [buffer.clone() for buffer in rvq.buffers()]
    x = torch.randn(1, 20, 6)
    result = rvq(x, bypass=True)
    rvq.finish_step([result], None)
    torch.testing.assert_close(result.latents, rvq.project_out(rvq.project_in(x)))
    assert result.commitment == 0 and result.codes.shape == (1, 3, 20)
    assert all(torch.equal(old, new) for old, new in zip(before, rvq.buffers(), strict=True))
