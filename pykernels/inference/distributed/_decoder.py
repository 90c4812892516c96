"""ShardedDecoder."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch

from ... import _options
from ..._arrays import Array, namespace
from ...attention import KVCache
from ...kernels.fp8.formats import SCALED_FORMATS
from ...kernels.linear.problem import FLOATS
from .._arguments import check_length, check_range, to_append
from .._attend import Kept
from .._decoder import Decoder
from . import _sources
from ._cache import ShardedCache, grow, owners_of
from ._model import Model
from ._placement import check_layouts
from ._sources import Source
from ._torus import Torus, connect, sizes

Tensor = torch.Tensor


class ShardedDecoder:
    """A `Decoder` whose weights and cache processes of torch.distributed share among them.

    All processes make it and call it with the same arguments, and all get the same logits, bit for bit; they are those
    of one process but for the order of sums. Layouts and collectives are those of `pykernels.inference.plan.volumes`,
    where `collectives` tells what a call moves.

    Parameters
    ----------
    decoder : a `Decoder`, the same on all processes, of which each copies its part; `load` reads no more than that part
        Weights are floats or quantized row by row.
    mesh : sizes (X, Y, Z), chip (x, y, z) being process (x Y + y) Z + z of the group; or a torch DeviceMesh of up to
        three dimensions
    layout : of feedforward and projections, "ws1d", "ws2d", "wgx", "wgxy" or "wgxyz"
    attention : "heads" or "batch", over which attention and the cache are split; "batch" saves most with few key heads
    prefill : None, or another layout for calls with more than one token of each sequence, in which weights and caches
        lie alike: among all but "ws1d" with attention over batch
    group : the process group of a mesh given by sizes, None for all processes
        With NCCL tensors are on the current GPU of each process, with Gloo on CPUs.
    timeout : seconds after which a collective fails for the other processes if one stays away. A process that ends
        makes Gloo fail at once; NCCL ends the other processes after this time

    What does not divide is padded with zeros (`plan.volumes.padded`). Vocabulary and learned positions are split over
    all processes; norms and biases are on every one.

    Raises ValueError and TypeError for arguments that do not fit or differ between processes, NotImplementedError for
    weights quantized otherwise. Where one process raises an error about its arguments, here and in calls, the others
    raise RuntimeError. RuntimeError naming the collective and the processes if one of these ends or stays away;
    processes cannot go on together after that.

    Attributes
    ----------
    config, dtype, device : as of a `Decoder`; results are tensors on `device`
    mesh : (X, Y, Z)
    nbytes : bytes of the matrices and tables that this process keeps
    received : a Counter of the bytes that this process received, by the names that `plan.volumes.collectives` has,
        "embedding", "head" and "logits"

    Examples
    --------
    >>> import os, tempfile
    >>> from torch import distributed
    >>> from pykernels.inference import Config, Decoder
    >>> from pykernels.inference.distributed import ShardedDecoder
    >>> file = os.path.join(tempfile.mkdtemp(), "store")
    >>> distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    >>> config = Config(vocab=100, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    >>> decoder = ShardedDecoder(Decoder.random(config), (1, 1, 1), "ws1d")
    >>> cache = decoder.cache(max_sequences=2, max_length=16)
    >>> sequences = [cache.new(), cache.new()]
    >>> decoder([[3, 1, 4], [1, 5, 9]], cache, sequences, last_only=True).shape
    torch.Size([2, 100])
    >>> distributed.destroy_process_group()
    """

    def __init__(
        self,
        decoder: Decoder,
        mesh: Any,
        layout: str = "ws2d",
        attention: str = "heads",
        *,
        prefill: str | None = None,
        group: Any = None,
        timeout: float = 60.0,
    ) -> None:
        def source() -> Source:
            if not isinstance(decoder, Decoder):
                raise TypeError(f"decoder is a {type(decoder).__name__}: expected a Decoder")
            return _sources.of_decoder(decoder)

        self._make(source, None, mesh, (layout, attention, prefill), group, timeout)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        mesh: Any,
        layout: str = "ws2d",
        attention: str = "heads",
        *,
        prefill: str | None = None,
        dtype: Any = None,
        weights: str | None = None,
        group: Any = None,
        timeout: float = 60.0,
    ) -> ShardedDecoder:
        """The decoder of a folder that `Decoder.load` takes; each process reads only its part of every tensor.

        `folder`, `dtype` and `weights` are as there, and so are the errors. Quantizing takes the largest magnitude of
        every row from the processes that have parts of it.
        """
        made: ShardedDecoder = cls.__new__(cls)
        with ExitStack() as files:

            def source() -> Source:
                name = None if dtype is None else _options.floating_name(dtype, "", "dtype", FLOATS)
                if weights is not None:
                    _options.choice("weights", weights, SCALED_FORMATS)
                return _sources.of_folder(folder, name, files)

            made._make(source, weights, mesh, (layout, attention, prefill), group, timeout)
        return made

    def _make(
        self,
        source: Callable[[], Source],
        format: str | None,
        mesh: Any,
        named: tuple[str, str, str | None],
        group: Any,
        timeout: float,
    ) -> None:
        peers = connect(mesh, group, timeout)
        made: list[Source] = []

        def describe() -> tuple[int, dict[str, int]]:
            torus = sizes(mesh, peers.size)
            check_layouts(*named)
            made.append(source())
            described: dict[str, Any] = {"the mesh": torus, "layout, attention and prefill": named, "weights": format}
            described |= {"the configuration": made[0].config, "dtype": made[0].dtype}
            return 0, {f"{name} (checksum)": zlib.crc32(repr(value).encode()) for name, value in described.items()}

        peers.agree(describe)
        layout, self.attention, prefill = named
        self.layout, self.prefill = layout, layout if prefill is None else prefill
        self.config, self.dtype, self.mesh = made[0].config, made[0].dtype, sizes(mesh, peers.size)
        self.device, self._peers = peers.device, peers
        self._torus = Torus(peers, self.mesh, timeout)
        layouts = tuple(dict.fromkeys((self.layout, self.prefill)))
        self._model = Model(made[0], self._torus, layouts, self.attention, format)
        self._where = self._model.where[layout]
        self._owners = self._torus.extent(self._where.axes)

    @property
    def nbytes(self) -> int:
        return self._model.nbytes

    @property
    def received(self) -> Counter[str]:
        return self._torus.received

    def __repr__(self) -> str:
        x, y, z = self.mesh
        return f"ShardedDecoder on {x} x {y} x {z}, {self.layout}, attention over {self.attention}, of {self.config}"

    def cache(
        self, max_sequences: int, max_length: int, *, dtype: Any = None, page_size: int | None = None
    ) -> KVCache | ShardedCache:
        """A cache for up to `max_sequences` sequences of up to `max_length` tokens of all processes together.

        Options are those of `Decoder.cache`. If every process keeps some heads of all sequences (attention over heads
        in "ws1d" and "ws2d"), it is a `KVCache`, with which `generate`, `stream` and `Engine` work too: the same calls
        on all processes. Otherwise it is a `ShardedCache`, each owner having room for its share of the sequences.
        """
        total = _options.integer("max_sequences", max_sequences, 1)
        length = _options.integer("max_length", max_length, 1)
        heads, count = self._where.local, -(-total // self._owners)
        options: dict[str, Any] = {
            "layers": heads.layers,
            "dtype": self.dtype if dtype is None else dtype,
            "device": self.device,
        }
        if page_size is None:
            local = KVCache.contiguous(count, length, heads.kv_heads, heads.head_dim, **options)
        else:
            size = _options.integer("page_size", page_size, 1)
            local = KVCache.paged(count * -(-length // size), size, heads.kv_heads, heads.head_dim, **options)
        if self._owners == 1:
            return local
        return ShardedCache(local, self._torus.rank(self._where.axes), self._owners, None if page_size else count)

    def __call__(
        self, tokens: Any, cache: KVCache | ShardedCache, sequences: Any, *, last_only: bool = False
    ) -> Tensor:
        """Append T tokens to each of n sequences of a cache, and return the logits of what follows each of them.

        As a `Decoder` does, with the same arguments on all processes; logits are tensors. Where a process refuses
        its arguments or has no room, none changes its cache.
        """
        undo: list[Callable[[], None]] = []
        calls: list[tuple[Array, Array, Array, Kept]] = []

        def describe() -> tuple[int, dict[str, int]]:
            given = self._tokens(tokens)
            self._check_cache(cache)
            numbers, before = to_append(self.config, given.shape, cache, sequences, last_only)
            n, length = given.shape
            kept = grow(cache, numbers, length)
            undo.extend(partial(cache.truncate, *pair) for pair in zip(numbers.tolist(), before.tolist(), strict=True))
            calls.append((given, before[:, None] + np.arange(length), owners_of(cache, numbers), kept))
            shared = {"tokens": given, "sequences": numbers, "lengths of sequences": before}
            sums = {f"{name} (checksum)": zlib.crc32(array.tobytes()) for name, array in shared.items()}
            return 0, {"the number of sequences": n, "the number of tokens": length, "last_only": last_only, **sums}

        try:
            self._peers.agree(describe)
            (call,) = calls
            layout = self.prefill if call[0].shape[1] > 1 else self.layout
            return self._model.logits(layout, *call, last_only)
        except BaseException:
            for step in undo:
                step()
            raise

    def logits(self, tokens: Any) -> Tensor:
        """The logits (n, T, V), in float32, of what follows each token of sequences (n, T), without a cache."""
        calls: list[Array] = []

        def describe() -> tuple[int, dict[str, int]]:
            calls.append(self._tokens(tokens))
            n, length = calls[0].shape
            check_length(self.config, length)
            checksum = zlib.crc32(calls[0].tobytes())
            return 0, {"the number of sequences": n, "the number of tokens": length, "tokens (checksum)": checksum}

        self._peers.agree(describe)
        n, length = calls[0].shape
        owners = np.arange(n) % self._torus.extent(self._model.where[self.prefill].axes)
        return self._model.logits(self.prefill, calls[0], np.arange(length)[None].repeat(n, 0), owners, None, False)

    def _tokens(self, tokens: Any) -> Array:
        """`tokens` as int64 (n, T), in main memory."""
        given, kind = namespace(tokens)
        numbers = np.asarray(kind.to_numpy(given))
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"tokens has dtype {numbers.dtype.name}: expected integers")
        if numbers.ndim != 2:
            raise ValueError(f"tokens has shape {numbers.shape}: expected (n, T)")
        if numbers.size:
            check_range(self.config, int(numbers.min()), int(numbers.max()))
        return np.ascontiguousarray(numbers, np.int64)

    def _check_cache(self, cache: Any) -> None:
        if not isinstance(cache, KVCache | ShardedCache):
            raise TypeError(f"cache is a {type(cache).__name__}: expected what cache() of this decoder returns")
        owners = (cache.owner, cache.owners) if isinstance(cache, ShardedCache) else (0, 1)
        local = cache.local if isinstance(cache, ShardedCache) else cache
        heads = self._where.local
        own = self._torus.rank(self._where.axes), self._owners
        expected = (*own, heads.layers, heads.kv_heads, heads.head_dim, heads.head_dim, self.device)
        given = (*owners, local.layers, local.kv_heads, local.head_dim, local.value_dim, local.device)
        if given != expected:
            names = "owner, owners, layers, kv_heads, head_dim, value_dim, device"
            raise ValueError(f"cache has {names} {given}: expected {expected}, as cache() of this decoder has")
        if local.dtype in FLOATS and local.dtype != self.dtype:
            raise TypeError(f"cache has dtype {local.dtype}: expected {self.dtype}, int8 or float8_e4m3fn")
