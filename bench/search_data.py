"""Real vectors in their natural order: patches of photographs, and embeddings of sentences and of their tokens."""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

PATCH = 8
QUERY_STRIDE = 997


class Sentences(NamedTuple):
    """Unit vectors of sentences (n, 384); of their tokens, packed; and where each sentence's tokens begin."""

    vectors: Array
    tokens: Array
    offsets: Array


@functools.cache
def photographs() -> tuple[Array, ...]:
    """scikit-learn's two photographs, (427, 640, 3) uint8."""
    return tuple(importlib.import_module("sklearn.datasets").load_sample_images().images)


def patches() -> Array:
    """All overlapping 8 x 8 x 3 patches of both, row by row, (531720, 192) float32 from 0 to 1."""
    return np.concatenate([_patches(photograph) for photograph in photographs()])


def patch_queries(count: int) -> Array:
    """Patches of the mirrored photographs: real ones that are not in the database, (count, 192)."""
    found = np.concatenate([_patches(photograph[:, ::-1])[::QUERY_STRIDE] for photograph in photographs()])
    return np.ascontiguousarray(found[np.linspace(0, len(found) - 1, count, dtype=np.int64)])


def _patches(photograph: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (PATCH, PATCH), axis=(0, 1))
    pixels: Array = windows.reshape(-1, PATCH * PATCH * photograph.shape[2]).astype(np.float32)
    return pixels / 255


def sentences(count: int | None) -> Sentences | None:
    """The first `count` of the docstrings' sentences, or all; None where the encoder is not installed."""
    try:
        import torch

        from pykernels.bench import real_model

        encoder = real_model.Encoder()
    except ImportError:
        return None
    ids = [encoded.ids for encoded in encoder.tokenizer.encode_batch(real_model.sentences()[:count])]
    lengths = np.array([len(each) for each in ids])
    states: list[Array] = [np.empty(0)] * len(ids)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        batch = torch.tensor([ids[member] for member in members])
        with torch.no_grad():
            hidden = encoder.model(input_ids=batch).last_hidden_state.numpy()
        for member, state in zip(members, hidden, strict=True):
            states[member] = state
    means = np.stack([state.mean(0) for state in states])
    return Sentences(_unit(means), _unit(np.concatenate(states)), np.concatenate([[0], np.cumsum(lengths)]))


def _unit(x: Array) -> Array:
    unit: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit
