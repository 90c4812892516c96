"""Masks for transformers' models: what they mean is what transformers writes out, and they are small."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.4")

from transformers import masking_utils as masking  # noqa: E402

from pykernels.attention._transformers_masks import KEYS, LENGTHS, decoded, make_mask  # noqa: E402

BATCH = 3
CHUNK, WINDOW = 6, 4
NO_LEFT = torch.zeros(BATCH, dtype=torch.int64)
CAUSAL = {
    "causal": (masking.causal_mask_function, None),
    "window": (masking.sliding_window_causal_mask_function(WINDOW), WINDOW),
    "chunks": (masking.chunked_causal_mask_function(CHUNK, NO_LEFT), CHUNK),
}
BIDIRECTIONAL = {
    "everywhere": (masking.bidirectional_mask_function, None),
    "both sides": (masking.sliding_window_bidirectional_mask_function(WINDOW), WINDOW),
}
PLACES = {  # queries, keys, and the positions of the first of each
    "prefill": (9, 9, 0, 0),
    "short prefill": (3, 3, 0, 0),
    "chunk": (4, 9, 5, 0),
    "decode": (1, 9, 8, 0),
    "chunk of a sliding cache": (3, 6, 9, 6),
    "static prefill": (9, 16, 0, 0),
    "static chunk": (4, 16, torch.tensor(5), 0),
    "static decode": (1, 16, torch.tensor(8), 0),
}
PADDING = {"left": (0, 2, 9), "right": (0, -2, -9), "none": (0, 0, 0)}


def padding(kind: str | None, tokens: int) -> torch.Tensor | None:
    if kind is None:
        return None
    mask = torch.ones(BATCH, tokens, dtype=torch.bool)
    for row, count in enumerate(PADDING[kind]):
        if count > 0:
            mask[row, :count] = False
        elif count < 0:
            mask[row, count:] = False
    return mask


def written_out(mask: torch.Tensor | None, causal: bool, q_length: int, kv_length: int) -> torch.Tensor:
    """What attention makes of a mask, (B, 1, queries, keys)."""
    shape = (BATCH, 1, q_length, kv_length)
    if mask is not None and mask.dtype is torch.bool:
        return mask.expand(shape)
    (left, right), keys, lengths = ((-1, 0 if causal else -1), None, None) if mask is None else decoded(mask)
    lengths = torch.full((BATCH,), kv_length) if lengths is None else lengths
    keys_at = torch.arange(kv_length)
    ahead = keys_at - (torch.arange(q_length)[:, None] + lengths[:, None, None] - q_length)
    allowed = (keys_at < lengths[:, None, None]).expand_as(ahead)
    if left >= 0:
        allowed = allowed & (ahead >= -left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    allowed = allowed[:, None]
    return allowed if keys is None else allowed & keys


@pytest.mark.parametrize("kind", [None, *PADDING])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("pattern", CAUSAL)
def test_causal_masks(pattern, place, kind):
    q_length, kv_length, q_offset, kv_offset = PLACES[place]
    function, size = CAUSAL[pattern]
    arguments = {
        "batch_size": BATCH,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "mask_function": function,
        "attention_mask": padding(kind, int(q_offset) + q_length),
        "local_size": size,
        "dtype": torch.float32,
        "use_vmap": False,
    }
    config = SimpleNamespace(attention_chunk_size=CHUNK)
    mask = make_mask(**arguments, config=config)
    want = masking.sdpa_mask(**arguments, allow_is_causal_skip=False)
    assert torch.equal(written_out(mask, True, q_length, kv_length), want)
    moved = int(q_offset) + q_length != kv_offset + kv_length and kind in ("left", "right")
    if pattern != "chunks" and not moved:
        assert mask is None or mask.untyped_storage().nbytes() <= 8 * BATCH * kv_length
    complete = make_mask(**arguments, config=config, allow_is_causal_skip=False)
    assert complete.dtype is torch.bool and torch.equal(complete, want)


@pytest.mark.parametrize("kind", [None, *PADDING])
@pytest.mark.parametrize(("q_length", "kv_length"), [(9, 9), (3, 3), (4, 9)])
@pytest.mark.parametrize("pattern", BIDIRECTIONAL)
def test_bidirectional_masks(pattern, q_length, kv_length, kind):
    function, size = BIDIRECTIONAL[pattern]
    arguments = {
        "batch_size": BATCH,
        "q_length": q_length,
        "kv_length": kv_length,
        "mask_function": function,
        "attention_mask": padding(kind, kv_length),
        "local_size": size,
        "allow_is_causal_skip": False,
    }
    mask = make_mask(**arguments, allow_is_bidirectional_skip=True)
    want = masking.sdpa_mask(**arguments)
    assert torch.equal(written_out(mask, False, q_length, kv_length), want)
    if size is None:
        assert mask is None or mask.untyped_storage().nbytes() <= 8 * BATCH * kv_length
        assert kind != "right" or mask.dtype is LENGTHS


def test_a_compact_mask_cannot_be_combined_with_others_unnoticed():
    mask = make_mask(BATCH, 9, 9, attention_mask=padding("left", 9))
    assert mask.dtype is KEYS
    for combine in (lambda: mask & torch.ones(BATCH, 1, 9, 9, dtype=torch.bool), lambda: ~mask, lambda: 1 - mask):
        with pytest.raises((RuntimeError, NotImplementedError)):
            combine()
