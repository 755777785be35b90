"""Interleaving: identity for every window and ragged length, and the published order of tokens."""

import pytest
import torch

from codec.network.transformer import interleave, retrieve_frames, retrieve_queries, windows_for


@pytest.mark.parametrize("window", range(2, 11))
@pytest.mark.parametrize("frames", [1, 5, 6, 7, 59, 60, 61])
@pytest.mark.parametrize("query_first", [False, True])
def test_retrieve_undoes_interleave(window: int, frames: int, query_first: bool) -> None:
    x = torch.randn(2, frames, 3)
    windows = windows_for(frames, window)
    padded = torch.nn.functional.pad(x, (0, 0, 0, windows * window - frames))
    queries = torch.randn(2, windows, 3)
    tokens = interleave(padded, queries, window, query_first)
    assert tokens.shape == (2, windows * (window + 1), 3)
    assert torch.equal(retrieve_frames(tokens, window, query_first)[:, :frames], x)
    assert query_first or torch.equal(retrieve_queries(tokens, window), queries)


def test_order_is_that_of_the_figure() -> None:
    frames = torch.arange(6.0).view(1, 6, 1)
    queries = torch.tensor([[[100.0], [200.0]]])
    assert interleave(frames, queries, 3).flatten().tolist() == [0, 1, 2, 100, 3, 4, 5, 200]
    assert interleave(frames, queries, 3, query_first=True).flatten().tolist() == [100, 0, 1, 2, 200, 3, 4, 5]


def test_ragged_input_is_refused() -> None:
    with pytest.raises(ValueError, match="pad them with zeros"):
        interleave(torch.zeros(1, 7, 2), torch.zeros(1, 2, 2), 3)
    with pytest.raises(ValueError, match="windows"):
        retrieve_frames(torch.zeros(1, 7, 2), 3)
