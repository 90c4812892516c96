"""Workloads of the benchmarks of halo attention: forward, and forward with the gradients of everything."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pykernels import attention
from pykernels.bench import attention_peers, halo_peers
from pykernels.bench.halo_peers import Inputs
from pykernels.bench.harness import MIN_ROUNDS, OURS, Disagreement, Group, Workload
from pykernels.kernels.attention import reference
from pykernels.kernels.attention.problem import Window

Array = np.ndarray[Any, Any]

TOLERANCE, GRADIENT = 2e-5, 1e-4
"""Greatest error, over the greatest magnitude: of the output, and of a gradient."""


class Image(NamedTuple):
    """`batch` square images of `side` pixels and `heads` heads, in float32."""

    side: int
    batch: int = 1
    heads: int = 8
    dim: int = 16
    block: int = 8
    halo: int = 3

    @property
    def pixels(self) -> int:
        return self.batch * self.heads * self.side**2

    @property
    def flops(self) -> int:
        """Of the two products; the tables come at a tenth of it or less, and are not counted."""
        return 4 * self.pixels * (self.block + 2 * self.halo) ** 2 * self.dim

    @property
    def rest(self) -> str:
        """All but the size."""
        return f"B={self.batch}, H={self.heads}, D={self.dim}, block {self.block}, halo {self.halo}"

    def __str__(self) -> str:
        return f"fp32 {self.side}x{self.side}, {self.rest}"


def forward(image: Image, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """The output, with relative positions and zeros around the image."""

    def build() -> Workload:
        given = inputs(image)
        calls: dict[str, Any] = {OURS: functools.partial(ours, image, given)}
        if names := _here(peer_names):
            tensors = Inputs(*map(attention_peers.tensor, given))
            calls |= {name: halo_peers.halo(name, tensors, image.block, image.halo) for name in names}
        right = _last_head(image, given)

        def verify(provider: str, result: Any) -> None:
            _near("the output", np.asarray(result)[:, -1:], right, TOLERANCE)

        return Workload(calls, verify, _missing(peer_names), allocation="fresh", limits=_product(image.flops))

    return _group("halo forward", image, peer_names, build, image.flops, rounds)


def training(image: Image, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """The output, and by torch's autograd the gradients of q, k, v and both tables. Needs torch."""

    def build() -> Workload:
        given = inputs(image)
        grad = np.random.default_rng(1).standard_normal(given.q.shape, np.float32)
        tensors = Inputs(*(attention_peers.tensor(x).requires_grad_() for x in given))
        upstream = attention_peers.tensor(grad)
        makers: dict[str, Callable[[], Any]] = {OURS: functools.partial(ours, image, tensors)}
        makers |= {name: halo_peers.halo(name, tensors, image.block, image.halo) for name in _here(peer_names)}
        calls: dict[str, Any] = {
            name: functools.partial(gradients, make, tensors, upstream) for name, make in makers.items()
        }
        right = exact_gradients(image, given, grad)

        def verify(provider: str, result: Any) -> None:
            for name, found, expected in zip(("the output", *Inputs._fields), result, right, strict=True):
                tolerance = TOLERANCE if name == "the output" else GRADIENT
                _near(name, found.detach().numpy(), expected, tolerance)

        limits = _product(_with_gradients(image.flops))
        return Workload(calls, verify, _missing(peer_names), allocation="fresh", limits=limits)

    return _group("halo forward, gradients", image, peer_names, build, _with_gradients(image.flops), rounds)


def inputs(image: Image) -> Inputs:
    draw = np.random.default_rng(0)
    shape = image.batch, image.heads, image.side, image.side, image.dim
    pixels = [draw.standard_normal(shape, np.float32) for _ in range(3)]
    offsets = 2 * (image.block + image.halo) - 1
    tables = [draw.standard_normal((offsets, image.dim), np.float32) * np.float32(image.dim**-0.5) for _ in range(2)]
    return Inputs(*pixels, *tables)


def ours(image: Image, given: Inputs) -> Any:
    q, k, v, rel_height, rel_width = given
    return attention.halo_attention(
        q, k, v, block=image.block, halo=image.halo, rel_height=rel_height, rel_width=rel_width, pad="zero"
    )


def gradients(make: Callable[[], Any], tensors: Inputs, upstream: Any) -> tuple[Any, ...]:
    out = make()
    return out, *importlib.import_module("torch").autograd.grad(out, tensors, upstream)


def exact_gradients(image: Image, given: Inputs, grad: Array) -> tuple[Array, ...]:
    """The output and the gradients of all inputs, by autograd in float64: the reference would take a minute."""
    tensors = Inputs(*(attention_peers.tensor(x).double().requires_grad_() for x in given))
    gathered = halo_peers.halo(halo_peers.PRODUCTS, tensors, image.block, image.halo)
    found = gradients(gathered, tensors, attention_peers.tensor(grad).double())
    return tuple(x.detach().numpy() for x in found)


def _last_head(image: Image, given: Inputs) -> Array:
    """Its output by the reference."""
    q, k, v, rel_height, rel_width = (x.astype(np.float64) for x in given)
    out: Array = np.empty_like(v[:, -1:])
    lse = np.empty(v[:, -1:].shape[:-1])
    window = Window(image.block, image.halo)
    reference.halo(q[:, -1:], k[:, -1:], v[:, -1:], rel_height, rel_width, window, image.dim**-0.5, out, lse)
    return out


def _near(what: str, found: Array, right: Array, tolerance: float) -> None:
    error = float(np.abs(found - right).max() / np.abs(right).max())
    if not error <= tolerance:
        raise Disagreement(f"{what} differs from float64 by {error:.2g}, more than {tolerance:.2g}")


_product = functools.partial(attention_peers.product_alone, "float32")


def _with_gradients(flops: int) -> int:
    """Two products forward, and five backward, of which one repeats the scores."""
    return 7 * flops // 2


def _group(
    operation: str,
    image: Image,
    peer_names: Sequence[str],
    build: Callable[[], Workload],
    flops: int,
    rounds: int,
) -> Group:
    moved = 4 * 4 * image.pixels * image.dim
    return Group(
        operation,
        str(image),
        (OURS, *peer_names),
        build,
        image.pixels,
        moved,
        attention_peers.PRODUCT,
        flops,
        None,
        rounds,
    )


def _here(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in halo_peers.absent()]


def _missing(names: Sequence[str]) -> dict[str, str]:
    return {name: reason for name, reason in halo_peers.absent().items() if name in names}
