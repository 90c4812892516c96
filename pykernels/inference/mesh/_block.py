"""A decoder block, partitioned."""

from __future__ import annotations

import numpy as np

from ..._options import choice
from ..plan.volumes import ATTENTION, LAYOUTS, Layout, Shapes, padded, sequences
from ._attention import over_batch, over_heads
from ._cache import Cache
from ._mesh import Mesh
from ._plain import normalize, silu, squares
from ._shards import Array, Sharded


def run_block(
    mesh: Mesh,
    layout: str,
    attention: str,
    shapes: Shapes,
    weights: dict[str, Sharded],
    x: Array,
    cache: Cache | None = None,
    *,
    rotary_theta: float | None = None,
) -> Array:
    """`plain_block` on a mesh: the output (B, L, E) for `x` (B, L, E), whose tokens follow those of the `cache`.

    `weights` are those of `place`, the layouts and the collectives those of `pykernels.inference.plan.volumes`. What
    moves is added to `mesh.log`; placing `x` and reading the output are not counted, for blocks follow one another.
    The cache grows. ValueError for an `x` that is not (B, L, E) of at least one token, weights placed for another
    layout, and a cache in another place.

    >>> import numpy as np
    >>> from pykernels.inference.mesh import Mesh, place, random_weights, run_block
    >>> from pykernels.inference.plan.volumes import Shapes
    >>> shapes, mesh = Shapes(width=16, hidden=32, heads=4, kv_heads=1, head_dim=4), Mesh(2, 2, 1)
    >>> weights = place(mesh, "ws2d", "batch", shapes, random_weights(shapes))
    >>> run_block(mesh, "ws2d", "batch", shapes, weights, np.ones((4, 3, 16))).shape
    (4, 3, 16)
    >>> sum(traffic.received for traffic in mesh.log)
    array([5712, 5712, 5712, 5712])
    """
    axes = LAYOUTS[choice("layout", layout, LAYOUTS)]
    attend = {"heads": over_heads, "batch": over_batch}[choice("attention", attention, ATTENTION)]
    if x.ndim != 3 or x.shape[-1] != shapes.width or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}: expected (B, L, {shapes.width}) with at least one token")
    cache = Cache() if cache is None else cache
    rows = sequences(layout, attention, mesh.torus, x.shape[0]) * mesh.chips.extent(axes.gathered)
    width = padded(shapes, mesh.torus, attention).width
    filled = np.pad(x, ((0, rows - x.shape[0]), (0, 0), (0, width - x.shape[2])))
    residual = mesh.split(filled, (axes.gathered, "", axes.contracted + axes.spread))
    block = _Block(mesh, axes, shapes, weights)
    up = ["gate", "up"] if shapes.gated else ["up"]
    if shapes.parallel:
        h, used = block.enter(residual, "", "attention_norm.weight", ["q", "k", "v", *up, "output", "down"])
        q, k, v, *ups = block.project(h, used, ["q", "k", "v", *up], "qkv and up")
        heads = attend(mesh, shapes, [q, k, v], cache, rotary_theta)
        residual = block.leave(residual, [heads, block.activate(ups)], used, ["output", "down"], "output and down", "")
    else:
        h, used = block.enter(residual, "attention ", "attention_norm.weight", ["q", "k", "v", "output"])
        heads = attend(mesh, shapes, block.project(h, used, ["q", "k", "v"], "qkv"), cache, rotary_theta)
        residual = block.leave(residual, [heads], used, ["output"], "output", "attention ")
        h, used = block.enter(residual, "feedforward ", "feedforward_norm.weight", [*up, "down"])
        active = block.activate(block.project(h, used, up, "up"))
        residual = block.leave(residual, [active], used, ["down"], "down", "feedforward ")
    return mesh.join(residual)[: x.shape[0], :, : shapes.width]


class _Block:
    """The steps that attention and feedforward share: input, products, sums."""

    def __init__(self, mesh: Mesh, axes: Layout, shapes: Shapes, weights: dict[str, Sharded]) -> None:
        self.mesh, self.axes, self.shapes, self.weights = mesh, axes, shapes, weights

    def enter(self, residual: Sharded, prefix: str, norm: str, names: list[str]) -> tuple[Sharded, dict[str, Sharded]]:
        """The normalised input, B L E_e, and the weights in use."""
        mesh, (gathered, contracted, spread) = self.mesh, self.axes
        weights = mesh.all_gather([self.weights[name] for name in names], gathered, prefix + "weights")
        (h,) = mesh.all_gather([residual], spread, prefix + "input")
        own = mesh.each(squares, h, spec=(gathered, "", ""), partial=contracted)
        sums = mesh.all_reduce(own, contracted, prefix + "norm")
        scale = mesh.cut(self.weights[norm], (contracted,))
        h = mesh.each(lambda x, s, w: normalize(x, s, self.shapes.width) * w, h, sums, scale, spec=h.spec)
        return h, dict(zip(names, weights, strict=True))

    def project(self, h: Sharded, weights: dict[str, Sharded], names: list[str], where: str) -> list[Sharded]:
        """Products with matrices E_e F_f, summed over e: B L F_fe."""
        _, contracted, spread = self.axes
        return self.mesh.reduce_scatter(
            [self._product(h, weights[name], (contracted, spread), contracted) for name in names], contracted, where
        )

    def activate(self, ups: list[Sharded]) -> Sharded:
        if self.shapes.gated:
            return self.mesh.each(lambda gate, up: silu(gate) * up, *ups, spec=ups[0].spec)
        return self.mesh.each(silu, *ups, spec=ups[0].spec)

    def leave(
        self,
        residual: Sharded,
        inner: list[Sharded],
        weights: dict[str, Sharded],
        names: list[str],
        where: str,
        prefix: str,
    ) -> Sharded:
        """The residual and the products with matrices F_f E_e, summed over f."""
        mesh, (_, contracted, spread) = self.mesh, self.axes
        whole = mesh.all_gather(inner, contracted, where)
        products = [
            self._product(h, weights[name], (spread, contracted), spread) for h, name in zip(whole, names, strict=True)
        ]
        total = mesh.each(lambda *parts: sum(parts[1:], parts[0]), *products, spec=products[0].spec, partial=spread)
        (out,) = mesh.reduce_scatter([total], spread, prefix + "sum")
        return mesh.each(np.add, residual, out, spec=residual.spec)

    def _product(self, h: Sharded, weight: Sharded, split: tuple[str, str], partial: str) -> Sharded:
        if weight.spec != split:
            raise ValueError(
                f"weights are split as {weight.spec}: expected {split}, as place() has them for the layout"
            )
        return self.mesh.each(np.matmul, h, weight, spec=(*h.spec[:-1], split[1]), partial=partial)
