"""What a cache keeps: pages of keys or of values, as they are or quantized, in main memory or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays, _options
from .._arrays import like, namespace
from .._dispatch import launcher
from ..kernels.attention.problem import Pages
from ..quant import decode

Array = np.ndarray[Any, Any]

FLOATS = ("float32", "bfloat16", "float16")
CODES = ("int8", "float8_e4m3fn")
DTYPES = (*FLOATS, *CODES)


def stored_dtype(dtype: Any) -> str:
    """The name of a dtype that a cache may have, given as a name or as a dtype of NumPy, ml_dtypes or torch."""
    name = dtype if isinstance(dtype, str) else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    name = "float8_e4m3fn" if name == "e4m3fn" else name
    if name not in DTYPES:
        raise TypeError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    return name


class Place:
    """Where pages are, and the kind of array that users give and get: NumPy, or torch on a device.

    In main memory pages are NumPy arrays for both kinds: the launchers there take these, and assigning few tokens
    costs less than in torch.
    """

    def __init__(self, device: Any) -> None:
        """`device` is None for NumPy."""
        self.like = like(device)
        self.kind = namespace(self.like)[1]
        self.device = None if isinstance(self.like, np.ndarray) else self.like.device
        self.backend = "cpu" if self.kind.device(self.like) == "cpu" else "gpu"

    def checked(self, name: str, x: Any, dtypes: tuple[str, ...]) -> Any:
        """`x` as an array, of the kind of this place, on its device and of one of `dtypes`."""
        x, arrays = namespace(x)
        if arrays is not self.kind:
            raise TypeError(f"{name} is a {type(x).__name__}: expected a {type(self.like).__name__}, as the cache")
        _options.dtype_name(arrays, x, dtypes, name)
        if self.device is not None and x.device != self.device:
            raise ValueError(f"{name} is on device {x.device}: expected {self.device}, as the cache")
        return x

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        if self.backend == "cpu":
            return np.zeros(shape, _arrays.dtype_of(dtype))
        return self.like.new_zeros(shape, dtype=self.kind.dtype_of(dtype))

    def sent(self, indices: Array) -> Any:
        """An array of int64 where the pages are."""
        return indices if self.backend == "cpu" else self.kind.from_numpy(indices, self.like)

    def given(self, x: Any) -> Any:
        """An array of the user as launchers take it, next to the pages."""
        return self.kind.strided(x, self.backend)

    def store(self, k: Any, v: Any, pages: Pages, where: Any) -> None:
        """The launcher of `store`, where the pages are."""
        launcher("attention", self.backend, "store")(k, v, pages, where)

    def returned(self, x: Any) -> Any:
        """An array like the pages as the user gets it."""
        x, arrays = namespace(x)
        return arrays.dense(x) if arrays is self.kind else self.kind.from_numpy(arrays.dense(x), self.like)

    def launched(self, x: Any, backend: str) -> Any:
        """An array like the pages as the launchers of a backend take it; no copy but for "reference" of a GPU's."""
        x, arrays = namespace(x)
        if backend != "gpu":
            return arrays.to_numpy(x)
        return self.kind.from_numpy(x, self.like) if self.backend == "cpu" else x


class Pools:
    """Pages of keys and values (layers, pages, Hkv, page, D), written and read by token."""

    def __init__(self, place: Place, shape: tuple[int, int, int, int], widths: tuple[int, int], dtype: str) -> None:
        """`shape` (layers, pages, Hkv, page); `widths` D and Dv."""
        self.place, self.dtype = place, dtype
        stored = "uint8" if dtype == "float8_e4m3fn" else dtype
        scales = [place.zeros(shape, "float32") if dtype in CODES else None for _ in widths]
        self.whole = Pages(*(place.zeros((*shape, width), stored) for width in widths), *scales)
        self.layers = [Pages(*(x if x is None else x[i] for x in self.whole)) for i in range(shape[0])]

    @property
    def nbytes(self) -> int:
        return sum(int(x.nbytes) for x in self.whole if x is not None)

    def write(self, layer: int, k: Any, v: Any, where: Any) -> None:
        """Keep tokens (n, Hkv, T, D) and (n, Hkv, T, Dv) of the user, of pages and rows (2, n, T)."""
        if k.dtype != v.dtype:
            k, v = (self.place.kind.cast(x, "float32") for x in (k, v))
        self.place.store(self.place.given(k), self.place.given(v), self.layers[layer], where)

    def copy(self, sources: Array, copies: Array, rows: int) -> None:
        """Copy the first rows of pages of all layers to others."""
        given, taken = self.place.sent(np.stack([sources, copies]))
        for x in self.whole:
            if x is not None:
                x[:, taken, :, :rows] = x[:, given, :, :rows]

    def read(self, layer: int, where: Any) -> tuple[Any, Any]:
        """Keys and values (Hkv, T, D) of pages and rows (2, T), of quantized ones what they mean in float32."""
        kept = self.layers[layer]
        return self._read(kept.k, kept.k_scale, where), self._read(kept.v, kept.v_scale, where)

    def _read(self, pages: Any, scale: Any, where: Any) -> Any:
        x = _by_token(pages)[where[0], where[1]].swapaxes(0, 1)
        if scale is None:
            return self.place.returned(x)
        x, arrays = namespace(x)
        wide = arrays.cast(x, "float32") if self.dtype == "int8" else decode(x, format="e4m3fn")
        return self.place.returned(wide * _by_token(scale)[where[0], where[1]].swapaxes(0, 1)[..., None])


def _by_token(pages: Any) -> Any:
    """Pages, or their scales, with the row before the head: indexed by page and row, they give tokens."""
    return pages.swapaxes(1, 2)
