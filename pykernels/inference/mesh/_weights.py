"""The weights of a block as chips store them."""

from __future__ import annotations

import numpy as np

from ..plan.volumes import Padded, Shapes, padded, resting
from ._mesh import Mesh
from ._shards import Array, Sharded


def weight_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The weights of a block by name, as `plain_block` takes them."""
    E, F, D = shapes.width, shapes.hidden, shapes.head_dim
    matrices = {
        "qkv.weight": ((shapes.heads + 2 * shapes.kv_heads) * D, E),
        "output.weight": (E, shapes.heads * D),
        "up.weight": ((1 + shapes.gated) * F, E),
        "down.weight": (E, F),
    }
    return matrices | dict.fromkeys(norms(shapes), (E,))


def norms(shapes: Shapes) -> tuple[str, ...]:
    both = ("attention_norm.weight", "feedforward_norm.weight")
    return both[:1] if shapes.parallel else both


def random_weights(shapes: Shapes, seed: int = 0, dtype: str = "float32") -> dict[str, Array]:
    """Weights of a block, as `plain_block` takes them: normal with a variance of 1 / columns, norms around 1."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(shapes).items():
        values = random.normal(size=shape)
        weights[name] = (values / np.sqrt(shape[1]) if len(shape) == 2 else 1 + 0.1 * values).astype(dtype)
    return weights


def place(mesh: Mesh, layout: str, attention: str, shapes: Shapes, weights: dict[str, Array]) -> dict[str, Sharded]:
    """Padded weights of a block, split over the chips as they are at rest: one storage for all layouts but "ws1d".

    Matrices are (columns, rows) in the order of the product, so "up" is E x F and "down" F x E; queries, keys and
    values are apart, and so are the gate and what it gates. Norms are whole on every chip.
    ValueError for weights that are missing, not of the block, or of another shape (named).
    """
    sizes = padded(shapes, mesh.torus, attention)
    width, hidden = resting(layout)
    _check(shapes, weights)
    q_rows, kv_rows = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    q, k, v = np.split(weights["qkv.weight"], [q_rows, q_rows + kv_rows])
    dim = shapes.head_dim if attention == "batch" else sizes.key_columns // sizes.kv_heads
    inward = {"q": _queries(q, shapes, sizes), "k": _keys(k, shapes, dim), "v": _keys(v, shapes, dim)}
    up = np.split(weights["up.weight"], 1 + shapes.gated)
    inward |= dict(zip(("gate", "up") if shapes.gated else ("up",), up, strict=True))
    outward = {"output": _queries(weights["output.weight"].T, shapes, sizes), "down": weights["down.weight"].T}
    columns = {"q": sizes.query_columns, "k": sizes.key_columns, "v": sizes.key_columns, "output": sizes.query_columns}
    placed = {}
    for name, rows in (inward | outward).items():
        matrix = _fill(rows, (columns.get(name, sizes.hidden), sizes.width))
        if name in inward:
            placed[name] = mesh.split(matrix.T, (width, hidden))
        else:
            placed[name] = mesh.split(matrix, (hidden, width))
    for name in norms(shapes):
        placed[name] = mesh.split(_fill(weights[name], (sizes.width,)), ("",))
    return placed


def _queries(rows: Array, shapes: Shapes, sizes: Padded) -> Array:
    """Rows (H D, E) with zeros after the heads of each key head and after the key heads."""
    heads = rows.reshape(shapes.kv_heads, -1, shapes.head_dim, rows.shape[-1])
    return _fill(heads, (sizes.kv_heads, sizes.heads // sizes.kv_heads, *heads.shape[2:])).reshape(-1, rows.shape[-1])


def _keys(rows: Array, shapes: Shapes, dim: int) -> Array:
    """Rows (K D, E) with zeros after each key head, to `dim`."""
    heads = rows.reshape(shapes.kv_heads, shapes.head_dim, rows.shape[-1])
    return _fill(heads, (shapes.kv_heads, dim, rows.shape[-1])).reshape(-1, rows.shape[-1])


def _fill(array: Array, shape: tuple[int, ...]) -> Array:
    return np.pad(array, [(0, size - had) for had, size in zip(array.shape, shape, strict=True)])


def _check(shapes: Shapes, weights: dict[str, Array]) -> None:
    expected = weight_shapes(shapes)
    if set(weights) != set(expected):
        raise ValueError(f"weights has {sorted(weights)}: expected {sorted(expected)}")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ValueError(f"weights[{name!r}] has shape {weights[name].shape}: expected {shape}")
