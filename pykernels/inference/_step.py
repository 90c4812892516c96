"""A token of each of few sequences, through all layers of a decoder on the CPU: one program of its kernels.

It does what `Block` does, with the same kernels and to the same bits, without a call and a waking of threads for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import namespace
from .._dispatch import launcher
from ..kernels._program import Given, Program, Room
from ..kernels.attention.problem import Pages, Scoring
from ..kernels.linear.problem import Problem
from ..quant._weight import Weight, prepare
from ._attend import Kept, Rotation
from ._block import Block, Normalization, Product
from ._config import Config

Array = np.ndarray[Any, Any]

PROGRAMS = 16
"""Programs that are kept: of numbers of sequences, and of kinds and sizes of caches."""


class Steps:
    """The programs of a decoder: of its `blocks`, its last norm and its head, without a bias."""

    def __init__(self, config: Config, blocks: list[Block], final_norm: Normalization, head: Any, like: Any):
        """`like` is any of its weights."""
        self._config, self._blocks, self._final_norm, self._head = config, blocks, final_norm, head
        self._like, self._arrays = like, namespace(like)[1]
        self._programs: dict[Any, Program | None] = {}

    def __call__(self, x: Any, rotation: Rotation | None, kept: Kept) -> Any:
        """The logits (n, V) of what follows n tokens, of embeddings (n, E); None where there is no program for it."""
        arrays = self._arrays
        if arrays.device(self._like) != "cpu" or arrays.tracing() or not len(x):
            return None
        c, (cache, grown, _) = self._config, kept
        with cache._step(grown) as (layers, where, own):
            program = self._program(len(x), layers)
            if program is None:
                return None
            counts, given = launcher("attention", "cpu", "arrays_of_step")(own, (c.heads, c.kv_heads, c.head_dim))
            given |= {name: pages for name, pages in zip(Pages._fields, layers, strict=True) if pages is not None}
            logits, target = arrays.allocate((len(x), c.vocab), "float32", self._like, "cpu")
            given |= {"x": arrays.raw(arrays.dense(x), "cpu"), "where": where, "logits": target}
            if rotation is not None:
                cos, sin, positions = (arrays.raw(arrays.dense(table), "cpu") for table in rotation)
                given |= {"cos": cos, "sin": sin, "positions": positions}
            program.run(counts, given)
        return logits

    def _program(self, rows: int, layers: Pages) -> Program | None:
        asked, programs = (rows, layers.k.dtype, layers.k.shape), self._programs
        if asked not in programs:
            writer = _Writer(self._config, rows, layers, self._like)
            written = writer.program(self._blocks, self._final_norm, self._head)
            programs = {**dict(list(programs.items())[1 - PROGRAMS :]), asked: written}
            self._programs = programs  # never written to: other threads may be reading the one before
        return programs[asked]


class _Unfit(Exception):
    """A step that no program has."""


class _Writer:
    """Writes the program for a number of rows and the layers of a cache."""

    def __init__(self, config: Config, rows: int, layers: Pages, like: Any) -> None:
        self._config, self._rows, self._layers, self._like = config, rows, layers, like
        self._arrays = namespace(like)[1]
        self._dtype = np.dtype(self._arrays.raw(like, "cpu").dtype)
        self._program = Program()

    def program(self, blocks: list[Block], final_norm: Normalization, head: Any) -> Program | None:
        try:
            stream, total = self._room(self._config.width), self._room(self._config.width)
            x: Room | Given = Given("x")
            residual: Room | Given | None = None
            free = self._program.free
            for block in blocks:
                self._program.free = free
                residual = self._block(block, x, residual, stream, total)
                x = stream
            normed, _ = self._normalize(final_norm, x, residual, total)
            self._multiply(head, None, None, normed, Given("logits"), np.dtype(np.float32))
        except _Unfit:
            return None
        return self._program

    def _block(
        self, block: Block, x: Room | Given, residual: Room | Given | None, out: Room, total: Room
    ) -> Room | Given:
        """Adds a block, which leaves `out`; what is yet to be added to it."""
        normed, residual = self._normalize(block.attention_norm, x, residual, total)
        attended = self._attention(block, normed)
        if block.feedforward_norm is None:
            self._feedforward(block, normed, out)
            self._sum(attended, out, out, self._config.width, (self._dtype, self._dtype))
            return residual
        normed, residual = self._normalize(block.feedforward_norm, attended, residual, total)
        self._feedforward(block, normed, out)
        return residual

    def _attention(self, block: Block, x: Room) -> Room:
        c, layer = self._config, block.number
        heads, rows = (c.heads, c.kv_heads, c.head_dim), self._rows
        columns = (c.heads + 2 * c.kv_heads) * c.head_dim
        qkv = self._room(columns)
        self._product(block.qkv, x, qkv)
        if c.rotary_theta is not None:
            tables = Given("cos"), Given("sin"), Given("positions")
            shape, turned = (rows, c.heads + 2 * c.kv_heads, c.head_dim), c.heads + c.kv_heads
            launcher("decoder", "cpu", "add_rotary")(self._program, qkv, shape, turned, tables, self._dtype)
        launcher("attention", "cpu", "add_store")(self._program, qkv, rows, heads, self._dtype, self._layers, layer)
        dtype = launcher("attention", "cpu", "query_dtype")(heads, self._dtype, self._layers.k.dtype)
        if dtype is None:
            raise _Unfit
        queries, size = qkv, c.heads * c.head_dim
        found = attended = self._room(size, dtype)
        if dtype != self._dtype:
            queries, attended = self._room(columns, dtype), self._room(size)
            self._sum(qkv, None, queries, columns, (self._dtype, dtype))
        scoring = Scoring(c.head_dim**-0.5, left=-1 if c.window is None else c.window - 1, right=0)
        launcher("attention", "cpu", "add_attend")(
            self._program, queries, found, rows, heads, dtype, self._layers, layer, scoring
        )
        if dtype != self._dtype:
            self._sum(found, None, attended, size, (dtype, self._dtype))
        out = self._room(c.width)
        self._product(block.output, attended, out)
        return out

    def _feedforward(self, block: Block, x: Room, out: Room) -> None:
        hidden = self._config.hidden
        up = self._room(hidden if block.gate is None else 2 * hidden)
        self._product(block.up, x, up)
        if block.gate is not None:
            wide, up = up, self._room(hidden)
            launcher("decoder", "cpu", "add_gated")(
                self._program, wide, up, self._rows, hidden, self._dtype, block.gate
            )
        self._product(block.down, up, out)

    def _normalize(
        self, norm: Normalization, x: Room | Given, residual: Room | Given | None, total: Room
    ) -> tuple[Room, Room | Given]:
        """The norm of the sum of x and residual, and this sum."""
        out = self._room(self._config.width)
        weight, bias = self._raw(norm.weight), self._raw(norm.bias)
        launcher("decoder", "cpu", "add_normalize")(
            self._program, x, residual, weight, bias, total, out, self._rows, self._dtype, norm.norm
        )
        return out, x if residual is None else total

    def _product(self, product: Product, x: Room, out: Room) -> None:
        self._multiply(product.weight, product.bias, product.activation, x, out, self._dtype)

    def _multiply(self, given: Any, bias: Any, activation: str | None, x: Room, out: Room | Given, dtype: Any) -> None:
        weight: Weight = prepare(self._arrays, self._like, given, "cpu")
        problem = Problem(weight.format, weight.block, activation)
        if not launcher("linear", "cpu", "is_step")(self._rows, weight.codes, weight.scale, problem):
            raise _Unfit
        launcher("linear", "cpu", "add_product")(
            self._program,
            x,
            self._rows,
            weight.codes,
            weight.scale,
            self._raw(bias),
            out,
            (self._dtype, dtype),
            problem,
        )

    def _sum(self, x: Room, y: Room | None, out: Room, columns: int, dtypes: tuple[Any, Any]) -> None:
        launcher("decoder", "cpu", "add_sum")(self._program, x, y, out, self._rows * columns, dtypes)

    def _room(self, columns: int, dtype: Any = None) -> Room:
        return self._program.room(self._rows * columns * (dtype or self._dtype).itemsize)

    def _raw(self, x: Any) -> Any:
        return None if x is None else self._arrays.raw(self._arrays.dense(x), "cpu")
