"""Decoder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _options
from .._arrays import Array, dtype_of, namespace
from ..attention import KVCache
from ..kernels.fp8.formats import SCALED_FORMATS
from ..kernels.linear.problem import FLOATS
from ..quant import QuantizedTensor, linear
from . import _weights
from ._arguments import check_length, check_range, to_append
from ._attend import Attention, Kept, Rotation
from ._block import Block, Normalization
from ._config import Config
from ._positions import RotaryTables
from ._step import Steps


class Decoder:
    """A transformer decoder: from tokens to the logits of the tokens that follow.

    Parameters
    ----------
    config : Config
    weights : dict of names to NumPy arrays, or torch tensors on one device, without a gradient
        ======================================  ===================================================================
        embedding                               (V, E)
        positions                               (learned_positions, E)
        layers.{i}.attention_norm.weight        (E,), of the only norm of a parallel block; .bias of a layer norm
        layers.{i}.qkv.weight                   (Hq * D + 2 * Hkv * D, E), the rows of q, k and v; .bias
        layers.{i}.output.weight                (E, Hq * D); .bias
        layers.{i}.feedforward_norm.weight      (E,), of a serial block; .bias
        layers.{i}.up.weight                    (2 * F, E), the rows of the gate first, or (F, E) without; .bias
        layers.{i}.down.weight                  (E, F); .bias
        final_norm.weight                       (E,); .bias
        head.weight                             (V, E), unless tied
        ======================================  ===================================================================

        float32, bfloat16 or float16, the same of all; weights of products may be a QuantizedTensor, the embedding
        only with a scale for each row.

    Activations have the weights' dtype, sums are float32. Norms and biases are kept in float32. A decoder does not
    change, nor must its weights; any number of threads may call it. On the CPU, a token of each of up to eight
    sequences is one parallel region, if the dimension of a head is a multiple of 16: the same bits, sooner.

    Raises ValueError that names all missing, extra and misshapen weights; TypeError for dtypes and kinds of arrays.

    Attributes
    ----------
    config, weights : as given
    dtype : the name of the dtype of activations
    device : None of NumPy arrays, or a torch device
    nbytes : bytes of the weights

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.inference import Config, Decoder
    >>> config = Config(vocab=100, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    >>> decoder = Decoder.random(config, seed=1)
    >>> cache = decoder.cache(max_sequences=2, max_length=16)
    >>> a, b = cache.new(), cache.new()
    >>> logits = decoder([[3, 1, 4], [1, 5, 9]], cache, [a, b], last_only=True)
    >>> logits = decoder(logits.argmax(-1)[:, None], cache, [a, b], last_only=True)
    >>> logits.shape, cache.lengths([a, b])
    ((2, 100), array([4, 4]))
    """

    def __init__(self, config: Config, weights: Mapping[str, Any]) -> None:
        if not isinstance(config, Config):
            raise TypeError(f"config is a {type(config).__name__}: expected a Config")
        self.config = config
        self.weights, self._kind = _weights.checked(config, weights)
        self._like = self.weights["final_norm.weight"]
        self.dtype: str = self._kind.dtype_name(self._like)
        self.device = None if isinstance(self._like, np.ndarray) else self._like.device
        self._blocks = [Block(config, self.weights, number) for number in range(config.layers)]
        self._final_norm = Normalization(config, self.weights, "final_norm")
        self._head = self.weights["embedding" if config.tied else "head.weight"]
        self._steps = Steps(config, self._blocks, self._final_norm, self._head, self._like)
        self._scale = None
        if config.embedding_scale != 1:
            self._scale = self._kind.from_numpy(np.full(1, config.embedding_scale, dtype_of(self.dtype)), self._like)
        self._tables = None if config.rotary_theta is None else RotaryTables(config.rotary_theta, config, self._like)

    @classmethod
    def random(cls, config: Config, *, seed: int = 0, dtype: Any = "float32", device: Any = None) -> Decoder:
        """A decoder with normal weights of variance 1 / columns; the same numbers on any machine.

        `dtype` is float32, bfloat16 or float16; `device` None for NumPy arrays, or a torch device.
        """
        number = _options.integer("seed", seed, 0)
        name = _options.floating_name(dtype, "float32", "dtype", FLOATS)
        return cls(config, _weights.random(config, number, name, device))

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, dtype: Any = None, weights: str | None = None, device: Any = None
    ) -> Decoder:
        """The decoder of a folder that `save` wrote, or of a Hugging Face checkpoint: config.json and safetensors.

        Families: Llama, Mistral, Gemma, Qwen2 and GPTBigCode. Logits are those of Hugging Face's implementation to
        rounding.

        Parameters
        ----------
        folder : path
        dtype : None for that of the embedding in the checkpoint, or float32, bfloat16 or float16
        weights : None, or the format that products are quantized to, row by row and tensor by tensor as they are read:
            "int8" or one of fp8; see `quantize`
        device : None for NumPy arrays, or a torch device

        Raises FileNotFoundError for missing files; ValueError for files that are broken, and naming all tensors that
        are missing, extra or misshapen; NotImplementedError naming a family, an option of the config or a scaling of
        rotary positions that is not supported, and without the package safetensors.
        """
        from . import _checkpoint

        if dtype is not None:
            dtype = _options.floating_name(dtype, "", "dtype", FLOATS)
        if weights is not None:
            _options.choice("weights", weights, SCALED_FORMATS)
        return cls(*_checkpoint.load(folder, dtype, weights, device))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, by the names above, quantized weights as they are, for `load`."""
        from . import _saved

        _saved.save(folder, self.config, self.weights)

    def quantize(self, format: str, granularity: Any = "row") -> Decoder:
        """This decoder with the weights of products quantized to "int8" or a format of fp8.

        They are those of blocks and of the head; a tied embedding is quantized row by row whatever the granularity
        (see `pykernels.quant.quantize`). Weights that are quantized already stay as they are, and shared.
        """
        _options.choice("format", format, SCALED_FORMATS)
        named = self.weights.items()
        return Decoder(self.config, {k: _weights.quantized(self.config, k, x, format, granularity) for k, x in named})

    @property
    def nbytes(self) -> int:
        return sum(
            x.codes.nbytes + x.scale.nbytes if isinstance(x, QuantizedTensor) else x.nbytes
            for x in self.weights.values()
        )

    def __repr__(self) -> str:
        return f"Decoder of {self.config.parameters:,} parameters, {self.dtype}, device {self.device}, {self.config}"

    def cache(self, max_sequences: int, max_length: int, *, dtype: Any = None, page_size: int | None = None) -> KVCache:
        """A cache for this decoder, of up to `max_sequences` sequences of up to `max_length` tokens.

        Contiguous, or with a `page_size` paged, with pages for as many tokens; `dtype` is that of activations,
        "int8" or "float8_e4m3fn".
        """
        sequences = _options.integer("max_sequences", max_sequences, 1)
        length = _options.integer("max_length", max_length, 1)
        c = self.config
        options: dict[str, Any] = {
            "layers": c.layers,
            "dtype": self.dtype if dtype is None else dtype,
            "device": self.device,
        }
        if page_size is None:
            return KVCache.contiguous(sequences, length, c.kv_heads, c.head_dim, **options)
        size = _options.integer("page_size", page_size, 1)
        return KVCache.paged(sequences * -(-length // size), size, c.kv_heads, c.head_dim, **options)

    def __call__(self, tokens: Any, cache: KVCache, sequences: Any, *, last_only: bool = False) -> Any:
        """Append T tokens to each of n sequences of a cache, and return the logits of what follows each of them.

        Parameters
        ----------
        tokens : (n, T) integers from 0 to V - 1, of NumPy or torch
        cache : of `cache`, or another of as many layers, heads and dimensions
        sequences : n distinct numbers of sequences of the cache
        last_only : whether only the logits of the last tokens are wanted

        Returns
        -------
        float32 logits (n, T, V), or (n, V) with `last_only`, of the kind of the weights

        Raises TypeError and ValueError for tokens, sequences and caches that do not fit, and for a sequence that would
        exceed the configuration's max_length; MemoryError if the cache has no room. The cache is as before then.
        """
        given = self._tokens(tokens)
        self._check_cache(cache)
        numbers, before = to_append(self.config, tuple(given.shape), cache, sequences, last_only)
        grown = cache.grow(numbers, given.shape[1])
        try:
            return self._logits(given, grown.positions, Kept(cache, grown, numbers), last_only)
        except BaseException:
            for number, kept in zip(numbers.tolist(), before.tolist(), strict=True):
                cache.truncate(number, kept)
            raise

    def logits(self, tokens: Any) -> Any:
        """The logits (n, T, V), in float32, of what follows each token of sequences (n, T), without a cache."""
        given = self._tokens(tokens)
        n, length = given.shape
        check_length(self.config, length)
        return self._logits(given, np.arange(length)[None].repeat(n, 0), None, False)

    def _logits(self, tokens: Any, positions: Array, kept: Kept | None, last_only: bool) -> Any:
        n, length = tokens.shape
        places = self._kind.from_numpy(positions, self._like)
        x, residual = self._embedded(tokens, places).reshape(-1, self.config.width), None
        rotation = None
        if self._tables is not None and positions.size:
            rotation = Rotation(*self._tables.reaching(int(positions.max()) + 1), places)
        if kept is not None and length == 1:
            out = self._steps(x, rotation, kept)
            if out is not None:
                return out if last_only else out[:, None]
        attend = Attention(self.config, (n, length), rotation, kept)
        for block in self._blocks:
            x, residual = block(x, residual, attend)
        if last_only:
            x, residual = (y if y is None else y.reshape(n, length, self.config.width)[:, -1] for y in (x, residual))
        normed = self._final_norm(x, residual)[1]
        out = linear(normed, self._head, out_dtype="float32")
        return out if last_only else out.reshape(n, length, self.config.vocab)

    def _embedded(self, tokens: Any, positions: Any) -> Any:
        table = self.weights["embedding"]
        if isinstance(table, QuantizedTensor):
            x = QuantizedTensor(table.codes[tokens], table.scale[tokens], "row").dequantize(self.dtype)
        else:
            x = table[tokens]
        if self._scale is not None:
            x = x * self._scale
        return x if "positions" not in self.weights else x + self.weights["positions"][positions]

    def _tokens(self, tokens: Any) -> Any:
        """`tokens` as int64 (n, T) of the kind of the weights, and on their device."""
        given, kind = namespace(tokens)
        if not kind.dtype_name(given).startswith(("int", "uint")):
            raise TypeError(f"tokens has dtype {kind.dtype_name(given)}: expected integers")
        if len(given.shape) != 2:
            raise ValueError(f"tokens has shape {tuple(given.shape)}: expected (n, T)")
        if 0 not in given.shape and not kind.capturing(given):
            check_range(self.config, int(given.min()), int(given.max()))
        wide = kind.cast(given, "int64")
        if kind is self._kind:
            return wide if self.device is None else wide.to(self.device)
        return self._kind.from_numpy(np.ascontiguousarray(kind.to_numpy(wide)), self._like)

    def _check_cache(self, cache: Any) -> None:
        if not isinstance(cache, KVCache):
            raise TypeError(f"cache is a {type(cache).__name__}: expected a KVCache")
        c = self.config
        fields = ("layers", "kv_heads", "head_dim", "value_dim")
        expected = dict(zip(fields, (c.layers, c.kv_heads, c.head_dim, c.head_dim), strict=True))
        given = {name: getattr(cache, name) for name in expected}
        if given != expected:
            raise ValueError(f"cache has {_listed(given)}: expected {_listed(expected)}")
        if cache.device != self.device:
            raise ValueError(f"cache is on device {cache.device}: expected {self.device}, as the weights")
        if cache.dtype in FLOATS and cache.dtype != self.dtype:
            raise TypeError(f"cache has dtype {cache.dtype}: expected {self.dtype}, int8 or float8_e4m3fn")


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())
