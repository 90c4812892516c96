"""What one decoder block must move between chips: exact closed forms, for every layout of weights and attention.

The partitionings are those of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102, sections 3.2 to 3.4 and
appendix A). A torus of X x Y x Z chips, n = XYZ; a subscript names the axes over which a dimension is split, the major
one first: in `B_x L E_zy`, each chip has B / X sequences, all L tokens and E / YZ of the width.

| layout | weights at rest | weights in use | activations between blocks |
|---|---|---|---|
| ws1d | E F_zyx | as at rest | B L E_zyx |
| ws2d | E_x F_zy | as at rest | B L E_xzy |
| wgx | E_x F_zy | E F_zy, gathered over x | B_x L E_zy |
| wgxy | E_x F_zy | E F_z, gathered over x and y | B_xy L E_z |
| wgxyz | E_x F_zy | E F, gathered over all | B_xyz L E |

The columns of the projections of queries, keys and values, and the rows of the output projection, are split as F is:
the key of a single head is computed in n parts, not n times. Attention is split over

- "heads": a chip has heads / (n / N) query heads, where N chips share a gather of weights (1 if weight-stationary), and
  the key heads that these look at. Fewer key heads than chips are held by several chips each: with one key head
  (multi-query), every chip of n / N holds all of the cache.
- "batch": an all-to-all brings whole heads of 1 / n of the sequences to each chip, another brings the results back. The
  cache is split n-fold whatever the heads, and lies alike in all layouts: prefill and decode may differ in layout.

**Padding.** What is not divisible by its group is padded with zeros and all counts are of the padded shapes; `padded`
has the sizes. The width and the hidden dimension go to multiples of n, so that one storage serves every layout.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..._options import choice, integer
from ..._remembered import remembered


class Shapes(NamedTuple):
    """One decoder block of width E and hidden dimension F; heads and key heads of `head_dim`; gated (3 E F weights) or
    plain (2 E F) feedforward; parallel (attention and feedforward read one normalised input and are summed) or serial.
    """

    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool = True
    parallel: bool = False


class Layout(NamedTuple):
    """Axes over which weights are gathered (and the batch is split), over which the E of the weights in use is split
    (their products are partial sums over these), and over which their F and heads are split."""

    gathered: str
    contracted: str
    spread: str


class Padded(NamedTuple):
    """Sizes as stored: columns of the queries' projection, and of the keys' (the values' is alike)."""

    width: int
    hidden: int
    heads: int
    kv_heads: int
    query_columns: int
    key_columns: int


class Collective(NamedTuple):
    """One collective of `group` chips along `axes`; `elements` per chip, of the side that is not split:
    the result of an all_gather, the operand of a reduce_scatter, the operand of an all_reduce or an all_to_all.

    `moves` is "activation", "weight" or "statistic" (of a norm), so that bytes follow from dtypes. `elements` and
    `moved` are arrays if the batch is one.
    """

    kind: str
    axes: str
    group: int
    elements: Any
    moves: str
    where: str

    @property
    def moved(self) -> Any:
        """Elements that each chip receives, and sends: of K chips each has 1 / K of them, and the others K - 1."""
        once = self.elements // self.group * (self.group - 1)
        return 2 * once if self.kind == "all_reduce" else once


LAYOUTS = {
    "ws1d": Layout("", "", "zyx"),
    "ws2d": Layout("", "x", "zy"),
    "wgx": Layout("x", "", "zy"),
    "wgxy": Layout("xy", "", "z"),
    "wgxyz": Layout("xyz", "", ""),
}
ATTENTION = ("heads", "batch")


def collectives(
    shapes: Shapes, layout: str, attention: str, torus: tuple[int, int, int], batch: Any, length: int = 1
) -> tuple[Collective, ...]:
    """The collectives of one block that appends `length` tokens to each of `batch` sequences, in their order.

    Decode has `length` 1, prefill the prompt's; `batch` is an integer or an array of integers. Collectives of one chip
    are left out. With N, e and f chips along the gathered, contracted and spread axes (n = N e f), T = B L / N tokens
    on a chip, and C the padded columns of q, k and v together:

    - weights: all_gather over N of all matrices of the sublayer, E (columns) / f elements. Attention has
      2 query_columns + 2 key_columns, the feedforward 3 F (gated) or 2 F.
    - input: all_gather over f of T E_ef to T E_e: T E / e. It is the residual itself; the norm follows it.
    - norm: the mean square of a token needs a sum over e: all_reduce of T numbers, T padded to a multiple of e.
    - qkv, up: products with E_e are partial sums over e: reduce_scatter of T C / f, and of 2 T F / f (gated: gate and
      up are both needed before they are multiplied; the paper's formula has T F / f) or T F / f. Each chip then has
      1 / (e f) of the columns.
    - kv heads (attention over heads): fewer key heads K than chips e f: the r = e f / K chips of a key head
      all_gather its columns, 2 T key_columns / K for keys and values.
    - heads to batch, batch to heads (attention over batch): all_to_all over e f of T C / (e f), and of
      T query_columns / (e f) back; sequences padded to a multiple of n.
    - output, down: all_gather over e of T query_columns / f, and of T F / f: the rows of the next weights.
    - sum: products with F_f are partial sums over f: reduce_scatter of T E / e.

    A serial block has input, norm and sum twice. A parallel block has them once, and attention and feedforward share
    their collectives: the same bytes otherwise, in fewer messages.

    The paper's T_comm for a feedforward is the sum of these without (K - 1) / K: 2 B L E (1D), 2 B L (E / X + F / YZ)
    (2D), 2 E F N / n + 2 B L E / N (gathered).

    >>> palm = Shapes(18432, 73728, 48, 1, 256, gated=True, parallel=True)
    >>> for c in collectives(palm, "ws2d", "batch", (4, 4, 4), 512):
    ...     print(c.kind, c.axes, c.moved, c.where)
    all_gather zy 2211840 input
    all_reduce x 768 norm
    reduce_scatter x 3846144 qkv and up
    all_to_all zyx 100800 heads to batch
    all_to_all zyx 96768 batch to heads
    all_gather x 2064384 output and down
    reduce_scatter zy 2211840 sum

    Raises ValueError or TypeError for an unknown layout or attention, an axis of the torus, a batch or a length below
    1, and shapes that no block can have.
    """
    sizes = padded(shapes, torus, attention)
    gathered, contracted, spread = _layout(layout)
    length = integer("length", length, 1)
    N, e, f = (extent(torus, axes) for axes in (gathered, contracted, spread))
    rows = sequences(layout, attention, torus, batch)
    tokens = rows * length
    inner = spread + contracted
    query, key = sizes.query_columns, sizes.key_columns
    columns = query + 2 * key
    attention_weights, feedforward_weights = 2 * (query + key), (2 + shapes.gated) * sizes.hidden
    up = (1 + shapes.gated) * sizes.hidden
    found: list[Collective] = []

    def add(kind: str, axes: str, group: int, elements: Any, where: str, moves: str = "activation") -> None:
        if group > 1:
            found.append(Collective(kind, axes, group, elements, moves, where))

    def enter(prefix: str, columns: int) -> None:
        add("all_gather", gathered, N, sizes.width * columns // f, prefix + "weights", "weight")
        add("all_gather", spread, f, tokens * (sizes.width // e), prefix + "input")
        add("all_reduce", contracted, e, _up(tokens, e), prefix + "norm", "statistic")

    def leave(prefix: str) -> None:
        add("reduce_scatter", spread, f, tokens * (sizes.width // e), prefix + "sum")

    def attend() -> None:
        group = e * f
        if attention == "heads":
            sharing = max(group // sizes.kv_heads, 1)
            add("all_gather", inner, sharing, tokens * (2 * key // sizes.kv_heads), "kv heads")
        else:
            mixed = _up(rows, group) // group * length
            add("all_to_all", inner, group, mixed * columns, "heads to batch")
            add("all_to_all", inner, group, mixed * query, "batch to heads")

    if shapes.parallel:
        enter("", attention_weights + feedforward_weights)
        add("reduce_scatter", contracted, e, tokens * ((columns + up) // f), "qkv and up")
        attend()
        add("all_gather", contracted, e, tokens * ((query + sizes.hidden) // f), "output and down")
        leave("")
    else:
        enter("attention ", attention_weights)
        add("reduce_scatter", contracted, e, tokens * (columns // f), "qkv")
        attend()
        add("all_gather", contracted, e, tokens * (query // f), "output")
        leave("attention ")
        enter("feedforward ", feedforward_weights)
        add("reduce_scatter", contracted, e, tokens * (up // f), "up")
        add("all_gather", contracted, e, tokens * (sizes.hidden // f), "down")
        leave("feedforward ")
    return tuple(found)


def sequences(layout: str, attention: str, torus: tuple[int, int, int], batch: Any) -> Any:
    """Sequences on a chip outside of attention: all of them, or B / N where weights are gathered over N.

    B is padded to a multiple of N, and of n with attention over batch, which wants whole sequences on every chip.
    """
    if isinstance(batch, np.ndarray):
        if batch.dtype.kind not in "iu" or (batch.size and batch.min() < 1):
            raise ValueError(f"batch has dtype {batch.dtype.name} or a value below 1: expected integers of at least 1")
        batch = batch.astype(np.int64)
    else:
        batch = integer("batch", batch, 1)
    gathered = extent(torus, _layout(layout).gathered)
    return _up(batch, math.prod(torus) if attention == "batch" and gathered > 1 else gathered) // gathered


def cache_elements(
    shapes: Shapes, layout: str, attention: str, torus: tuple[int, int, int], batch: Any, context: int
) -> Any:
    """Elements of the key and value cache of one block on each chip, of `batch` sequences of `context` tokens.

    Heads: 2 (B / N) S ceil(K / (n / N)) D, K the padded key heads. Batch: 2 ceil(B / n) S K D.
    """
    sizes = padded(shapes, torus, attention)
    rows, chips = sequences(layout, attention, torus, batch), math.prod(torus)
    if attention == "batch":
        return 2 * shapes.head_dim * shapes.kv_heads * integer("context", context, 0) * -(-batch // chips)
    held = max(sizes.kv_heads // (chips // extent(torus, _layout(layout).gathered)), 1)
    return 2 * shapes.head_dim * held * integer("context", context, 0) * rows


def weight_elements(shapes: Shapes, attention: str, torus: tuple[int, int, int]) -> int:
    """Elements of the matrices of one block at rest on each chip, in any layout; norms (E, on every chip) apart.

    E (2 query_columns + 2 key_columns + 3 F) / n, or 2 F if not gated. A layout that gathers over N chips holds N times
    one sublayer's (a parallel block's) while it computes.
    """
    sizes = padded(shapes, torus, attention)
    columns = 2 * (sizes.query_columns + sizes.key_columns) + (2 + shapes.gated) * sizes.hidden
    return sizes.width * columns // math.prod(torus)


@remembered
def padded(shapes: Shapes, torus: tuple[int, int, int], attention: str) -> Padded:
    """The sizes of a block as stored on a torus; zeros fill what is more than the `shapes`.

    Over heads, the key heads become a number that divides Z, YZ and XYZ or is a multiple of it, for each of the three,
    so that a chip needs the same number of them in every layout (PaLM's 48 heads on 4 x 4 x 4 chips become 64); the
    query heads of a key head a multiple of the chips that share it; the columns of a key head too. Over batch, heads
    may lie across chips, and only the columns become multiples of n.
    """
    _check(shapes, torus)
    choice("attention", attention, ATTENTION)
    chips = math.prod(torus)
    width, hidden = _up(shapes.width, chips), _up(shapes.hidden, chips)
    if attention == "batch":
        query, key = (_up(heads * shapes.head_dim, chips) for heads in (shapes.heads, shapes.kv_heads))
        return Padded(width, hidden, shapes.heads, shapes.kv_heads, query, key)
    nested = [extent(torus, axes) for axes in ("z", "zy", "zyx")]
    kv_heads = shapes.kv_heads
    while any(kv_heads % parts and parts % kv_heads for parts in nested):
        kv_heads += 1
    sharing = max(chips // kv_heads, 1)
    heads = kv_heads * _up(shapes.heads // shapes.kv_heads, sharing)
    return Padded(width, hidden, heads, kv_heads, heads * shapes.head_dim, kv_heads * _up(shapes.head_dim, sharing))


def extent(torus: tuple[int, int, int], axes: str) -> int:
    """The number of chips along some axes of a torus."""
    return math.prod(torus["xyz".index(axis)] for axis in axes)


def resting(layout: str) -> tuple[str, str]:
    """The axes that split the width, and the hidden dimension (and the columns of heads), of weights at rest."""
    found = _layout(layout)
    return ("x", "zy") if found.gathered else (found.contracted, found.spread)


def _layout(name: str) -> Layout:
    found = LAYOUTS.get(name) if isinstance(name, str) else None
    return found if found is not None else LAYOUTS[choice("layout", name, LAYOUTS)]


def _up(size: Any, multiple: int) -> Any:
    return -(-size // multiple) * multiple


def _check(shapes: Shapes, torus: tuple[int, int, int]) -> None:
    if not isinstance(torus, tuple) or len(torus) != 3:
        raise ValueError(f"torus={torus!r}: expected a tuple (X, Y, Z)")
    for axis, size in zip("XYZ", torus, strict=True):
        integer(f"torus axis {axis}", size, 1)
    for name in ("width", "hidden", "heads", "kv_heads", "head_dim"):
        integer(name, getattr(shapes, name), 1)
    if shapes.heads % shapes.kv_heads:
        raise ValueError(f"kv_heads={shapes.kv_heads}: expected a divisor of the {shapes.heads} heads")
