"""What a cache keeps: pages of keys or of values, as they are or quantized, in main memory or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays, _options
from .._arrays import library, like, namespace
from ..quant import decode, encode

Array = np.ndarray[Any, Any]

FLOATS = ("float32", "bfloat16", "float16")
LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0}
DTYPES = (*FLOATS, *LARGEST)

SMALLEST_SCALE = 2.0**-126
"""Below it, codes would be multiplied by numbers of few bits, or by none."""

PIECE = 1 << 14
"""Numbers that the CPU quantizes at a time: they stay in cache with all that is made of them."""


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

    def indices(self, *indices: Array) -> tuple[Any, ...]:
        """Arrays of int64 of one shape, where the pages are, in one transfer."""
        return indices if self.backend == "cpu" else tuple(self.kind.from_numpy(np.stack(indices), self.like))

    def given(self, x: Any) -> Any:
        """An array of the user as the pages are."""
        return self.kind.raw(x, self.backend)

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


class Pool:
    """Pages (pages, Hkv, page, D), written and read by token; indices are those that the place makes."""

    def __init__(self, place: Place, shape: tuple[int, int, int, int], dtype: str) -> None:
        self.place, self.dtype = place, dtype
        self.values = place.zeros(shape, "uint8" if dtype == "float8_e4m3fn" else dtype)
        self.scale = place.zeros(shape[:3], "float32") if dtype in LARGEST else None

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes + (0 if self.scale is None else self.scale.nbytes))

    def encoded(self, x: Any) -> tuple[Any, Any]:
        """What is kept of `x` (n, Hkv, T, D): values, and scales (n, Hkv, T) or None."""
        x = self.place.given(x)
        if self.scale is None:
            return x, None
        pieces = -(-x.size // PIECE) if self.place.backend == "cpu" else 1
        if pieces <= 1:
            return quantized(x, self.dtype)
        axis = 0 if x.shape[0] > x.shape[2] else 2
        parts = [quantized(part, self.dtype) for part in np.array_split(x, min(pieces, x.shape[axis]), axis)]
        return np.concatenate([code for code, _ in parts], axis), np.concatenate([scale for _, scale in parts], axis)

    def write(self, where: tuple[Any, ...], kept: tuple[Any, Any]) -> None:
        """Keep what `encoded` gave, of tokens whose pages and rows are (n, T)."""
        for pages, x in zip((self.values, self.scale), kept, strict=True):
            if pages is not None:
                _by_token(pages)[where] = x.swapaxes(1, 2)

    def copy(self, pages: tuple[Any, ...], rows: int) -> None:
        """Copy the first rows of pages, whose numbers come first, to others."""
        sources, copies = pages
        for x in (self.values, self.scale):
            if x is not None:
                x[copies, :, :rows] = x[sources, :, :rows]

    def read(self, where: tuple[Any, ...]) -> Any:
        """Tokens (Hkv, T, D) whose pages and rows are (T,), of quantized ones what they mean in float32."""
        x = _by_token(self.values)[where].swapaxes(0, 1)
        if self.scale is None:
            return self.place.returned(x)
        x, arrays = namespace(x)
        wide = arrays.cast(x, "float32") if self.dtype == "int8" else decode(x, format="e4m3fn")
        return self.place.returned(wide * _by_token(self.scale)[where].swapaxes(0, 1)[..., None])


def quantized(x: Any, dtype: str) -> tuple[Any, Any]:
    """Codes of `x` (..., D), as bytes if of e4m3fn, and scales (...) such that ``codes * scales`` is close to `x`.

    The largest magnitude of a row becomes the largest code. A row that is not finite gets a scale of NaN.
    """
    x, arrays = namespace(x)
    numbers = library(x)
    x = arrays.cast(x, "float32")
    largest = numbers.amax(numbers.abs(x), -1)
    with np.errstate(invalid="ignore"):
        scale = (largest / LARGEST[dtype]).clip(SMALLEST_SCALE)
        scale = numbers.where(numbers.isfinite(scale), scale, numbers.nan)
        ratio = numbers.where(numbers.isfinite(scale)[..., None], x / scale[..., None], 0.0)
    if dtype == "int8":
        return arrays.cast(numbers.round(ratio), "int8"), scale
    codes, arrays = namespace(encode(ratio, "e4m3fn"))
    return arrays.raw(codes, "gpu"), scale


def _by_token(pages: Any) -> Any:
    """Pages, or their scales, with the row before the head: indexed by page and row, they give tokens."""
    return pages.swapaxes(1, 2)
