"""Our attention over pages beside the definition of attention, one query at a time."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")

BATCH, HEADS, KEY_HEADS, WIDTH, PAGE, PAGES = 3, 6, 2, 16, 256, 12
LENGTHS = (0, 255, 600)


@pytest.mark.parametrize("queries", [1, 5, 40])
@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (30, 0.0), (-1, 20.0)])
@pytest.mark.parametrize("stored", [False, True])
def test_attention_is_what_it_is_defined_as(queries: int, window: int, softcap: float, stored: bool) -> None:
    import torch

    from inference.exllama.paged import flash_attn_with_kvcache

    chance = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    k_cache, v_cache = drawn(PAGES, PAGE, KEY_HEADS, WIDTH), drawn(PAGES, PAGE, KEY_HEADS, WIDTH)
    table = torch.randperm(PAGES, generator=chance).reshape(BATCH, -1).int()
    q, k, v = drawn(BATCH, queries, HEADS, WIDTH), *(drawn(BATCH, queries, KEY_HEADS, WIDTH) for _ in range(2))
    lengths = torch.tensor(LENGTHS).int()
    if stored:
        for row, length in enumerate(LENGTHS):
            for at in range(queries):
                page, place = table[row, (length + at) // PAGE], (length + at) % PAGE
                k_cache[page, place], v_cache[page, place] = k[row, at], v[row, at]
    found = flash_attn_with_kvcache(
        q,
        k_cache,
        v_cache,
        None if stored else k,
        None if stored else v,
        cache_seqlens=lengths + queries if stored else lengths,
        block_table=table,
        softmax_scale=WIDTH**-0.5,
        window_size=(window, window),
        softcap=softcap,
    )
    for row, length in enumerate(LENGTHS):
        keys, values = (cache[table[row].long()].reshape(-1, KEY_HEADS, WIDTH) for cache in (k_cache, v_cache))
        assert torch.equal(keys[length : length + queries], k[row])
        assert torch.equal(values[length : length + queries], v[row])
        for head in range(HEADS):
            shared = head // (HEADS // KEY_HEADS)
            for at in range(0, queries, 7):
                last = length + at + 1
                first = max(0, last - 1 - window) if window >= 0 else 0
                scores = (keys[first:last, shared] @ q[row, at, head]) * WIDTH**-0.5
                scores = softcap * torch.tanh(scores / softcap) if softcap else scores
                expected = torch.softmax(scores, 0) @ values[first:last, shared]
                torch.testing.assert_close(found[row, at, head], expected, atol=1e-5, rtol=1e-4)


def test_large_numbers_stay_within_what_float16_holds() -> None:
    import torch

    from inference.exllama.paged import flash_attn_with_kvcache

    cache = torch.full((1, PAGE, 1, 128), 40.0, dtype=torch.float16)
    found = flash_attn_with_kvcache(
        torch.full((1, 1, 1, 128), 40.0, dtype=torch.float16),
        cache,
        torch.ones_like(cache),
        cache_seqlens=torch.tensor([3]).int(),
        block_table=torch.tensor([[0]]).int(),
        softmax_scale=128**-0.5,
    )
    assert torch.equal(found, torch.ones_like(found))


@pytest.mark.parametrize("queries", [1, 40])
def test_what_is_beyond_a_sequence_is_not_looked_at(queries: int) -> None:
    import torch

    from inference.exllama.paged import flash_attn_with_kvcache

    k_cache, v_cache = (torch.full((2, PAGE, 1, WIDTH), float("nan")) for _ in range(2))
    found = flash_attn_with_kvcache(
        *(torch.ones(1, queries, 1, WIDTH), k_cache, v_cache),
        *(torch.ones(1, queries, 1, WIDTH) for _ in range(2)),
        cache_seqlens=torch.tensor([0]).int(),
        block_table=torch.tensor([[1, 0]]).int(),
        softmax_scale=1.0,
    )
    torch.testing.assert_close(found, torch.ones_like(found))
