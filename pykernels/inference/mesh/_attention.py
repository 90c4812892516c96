"""Attention in the mesh: from projected columns, split over chips, to attended columns that are split alike."""

from __future__ import annotations

import numpy as np

from ..plan.volumes import Shapes, padded
from ._cache import Cache
from ._mesh import Mesh
from ._plain import attention, rotate
from ._shards import Array, Sharded


def over_heads(mesh: Mesh, shapes: Shapes, qkv: list[Sharded], cache: Cache, theta: float | None) -> Sharded:
    """Each chip attends with its query heads; neighbours gather the columns of a key head that they share."""
    q, k, v = qkv
    axes, kv_heads = q.spec[-1], padded(shapes, mesh.torus, "heads").kv_heads
    columns = k.shape[-1] // kv_heads
    k, v = mesh.share([k, v], axes, max(mesh.chips.extent(axes) // kv_heads, 1), "kv heads")
    return _attend(mesh, [q, k, v], shapes.head_dim, columns, None, cache, theta)


def over_batch(mesh: Mesh, shapes: Shapes, qkv: list[Sharded], cache: Cache, theta: float | None) -> Sharded:
    """All columns of some sequences go to each chip, which attends with whole heads; the results go back."""
    batch_axes, _, axes = qkv[0].spec
    rows = qkv[0].shards[0].shape[0]
    padding = ((0, -rows % mesh.chips.extent(axes)), (0, 0), (0, 0))
    filled = [mesh.each(lambda x: np.pad(x, padding), x, spec=x.spec) for x in qkv]
    moved = mesh.all_to_all(filled, "".join(sorted(axes)), 0, 2, "heads to batch")
    attended = _attend(mesh, moved, shapes.head_dim, shapes.head_dim, shapes, cache, theta)
    (back,) = mesh.all_to_all([attended], axes, 2, 0, "batch to heads")
    return mesh.each(lambda x: x[:rows], back, spec=(batch_axes, "", axes))


def _attend(
    mesh: Mesh, qkv: list[Sharded], dim: int, columns: int, whole: Shapes | None, cache: Cache, theta: float | None
) -> Sharded:
    """Local attention: heads of `dim`, in `columns` of keys and values each; the `whole` block's heads, or a share."""
    q, k, v = qkv
    start = cache.length

    def split(x: Array, columns: int, count: int | None) -> Array:
        count = x.shape[-1] // columns if count is None else count
        return x[..., : count * columns].reshape(*x.shape[:2], count, columns)[..., :dim]

    def keys(x: Array, theta: float | None) -> Array:
        return rotate(split(x, columns, whole and whole.kv_heads), start, theta).reshape(*x.shape[:2], -1)

    k = mesh.each(lambda x: keys(x, theta), k, spec=k.spec, sharing=k.sharing)
    v = mesh.each(lambda x: keys(x, None), v, spec=v.spec, sharing=v.sharing)
    k, v = cache.append(mesh, k, v)

    def attend(q: Array, k: Array, v: Array) -> Array:
        queries = rotate(split(q, dim, whole and whole.heads), start, theta)
        out = attention(queries, split(k, dim, None), split(v, dim, None)).reshape(*q.shape[:2], -1)
        return np.pad(out, ((0, 0), (0, 0), (0, q.shape[-1] - out.shape[-1])))

    return mesh.each(attend, q, k, v, spec=q.spec)
