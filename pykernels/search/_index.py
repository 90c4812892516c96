"""An index of rows that come and go, with no rebuild."""

from __future__ import annotations

import os
from numbers import Integral
from threading import Lock
from typing import Any

import numpy as np

from .. import _arrays, _options
from .._arrays import namespace
from .._dispatch import choose_backend
from . import _index_search, _metric, _rows
from ._index_search import Kept
from ._knn import SMALLEST_WORKSPACE, WORKSPACE
from ._metric import METRICS
from ._rows import home
from ._table import Table

Array = np.ndarray[Any, Any]

_LARGEST_DIM = (1 << 31) - 1


class Index:
    """Rows with ids, searched exactly; they are added, removed and updated at any time.

    Parameters
    ----------
    dim : length of a vector, at least 1
    metric : "ip", "l2" or "cosine", as for `knn`
    dtype : how rows are kept
        "float32", "float16", "bfloat16", or with a scale for each row, "int8" (symmetric: its largest
        magnitude becomes 127) or "e4m3fn" (`quant.quantize`, granularity "row"). A search is exact for the
        rows as they are kept.
    device : a torch device that keeps the rows; None for NumPy arrays in main memory

    Rows live in a buffer that doubles. A removed row is only skipped from then on, and an updated one is
    skipped and appended again: of equal scores, the row that was added or updated first comes first. When
    more than half of the buffer is skipped the rest moves to a new one, so every operation costs amortised
    O(1) for each row it names.

    Any number of threads may call any methods. A search sees the rows of one moment: all of an `add`,
    `remove` or `update` of another thread or nothing of it, and it keeps nobody waiting. `add`, `remove`
    and `update` do all they are asked or, where they raise an error, nothing.

    Attributes
    ----------
    dim, metric, dtype, device : as above; `d` is another name of `dim`
    ids : int64 array of the ids, in the order in which their rows were added or last updated
    ntotal : the number of rows, also given by ``len``

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.search import Index
    >>> index = Index(2, metric="l2")
    >>> index.add(np.float32([[0, 0], [1, 0], [0, 3]]))
    array([0, 1, 2])
    >>> index.remove([0])
    >>> index.search(np.float32([[0, 0]]), k=3)
    (array([[ 1.,  9., inf]], dtype=float32), array([[ 1,  2, -1]]))
    """

    def __init__(self, dim: int, *, metric: str = "ip", dtype: str = "float32", device: Any = None) -> None:
        self.dim = _options.integer("dim", dim, 1, _LARGEST_DIM)
        self.metric: str = _options.choice("metric", metric, METRICS)
        self.dtype: str = _options.choice("dtype", dtype, _rows.DTYPES)
        self.device = device
        self._like = _arrays.like(device)
        self._lock = Lock()
        self._centre: Any = None
        none = np.zeros((0, self.dim), np.float32)
        self._table = Table({"ids": home(np.zeros(0, np.int64), self._like), **self._columns(none)})

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, Integral) and int(id) in self._table

    def __repr__(self) -> str:
        return f"Index({self.dim}, metric={self.metric!r}, dtype={self.dtype!r}, device={self.device!r}) of {len(self)}"

    @property
    def d(self) -> int:
        return self.dim

    @property
    def ntotal(self) -> int:
        return len(self)

    @property
    def ids(self) -> Array:
        ids: Array = np.array(_rows.numpy(self._table.view().column("ids")))
        return ids

    def add(self, vectors: Any, ids: Any = None) -> Array:
        """Add rows.

        Parameters
        ----------
        vectors : (n, dim) array of float32, float64, float16 or bfloat16, of NumPy or torch; n may be 0
        ids : n distinct integers, at least 0, that are not in the index
            None for consecutive numbers from the first that is above every id there ever was.

        Returns
        -------
        The ids, an int64 array (n,).

        Raises
        ------
        TypeError for another dtype of `vectors` or `ids`. ValueError for vectors of another shape, or that
        hold NaN, Inf, a value beyond the index's dtype or, unless the metric is "ip", values whose squares
        overflow float32; and for ids that are negative, repeated, in the index, or not n.
        """
        columns = self._columns(vectors)
        return self._table.add(None if ids is None else _rows.distinct_ids(ids, len(columns["vectors"])), columns)

    def remove(self, ids: Any) -> None:
        """Remove rows.

        Parameters
        ----------
        ids : distinct integers that are in the index

        Raises
        ------
        TypeError for ids that are no integers; ValueError for repeated and unknown ones.
        """
        self._table.remove(_rows.distinct_ids(ids))

    def update(self, ids: Any, vectors: Any) -> None:
        """Give rows new vectors.

        Parameters
        ----------
        ids : n distinct integers that are in the index
        vectors : (n, dim) array, as for `add`

        Raises
        ------
        What `add` and `remove` raise.
        """
        columns = self._columns(vectors)
        self._table.replace(_rows.distinct_ids(ids, len(columns["vectors"])), columns)

    def reconstruct(self, ids: Any) -> Any:
        """The vectors of rows as they are kept, in float32.

        Parameters
        ----------
        ids : an integer, or distinct integers, that are in the index

        Returns
        -------
        (dim,) or (n, dim) array: of NumPy, or with `device`, a tensor there.

        Raises
        ------
        What `remove` raises.
        """
        single = isinstance(ids, Integral)
        given = _rows.distinct_ids([ids] if single else ids)
        vectors = _rows.values(self._table.select(given), self.dtype)
        return vectors[0] if single else vectors

    def search(
        self,
        queries: Any,
        k: int,
        *,
        recall_target: float = 1.0,
        mask: Any = None,
        allowed_ids: Any = None,
        workspace: int = WORKSPACE,
        backend: str | None = None,
    ) -> tuple[Any, Any]:
        """The k best rows for each query, the best first.

        Parameters
        ----------
        queries : (Q, dim) array of float32, float64, float16 or bfloat16, of NumPy or torch
        k : how many rows to find, at least 0; may exceed the number of rows
        recall_target, workspace, backend : as for `knn`
        mask : bool array, True for rows that may be found, (len(self),) or (Q, len(self)) in the order of `ids`
        allowed_ids : integers; only rows with these ids may be found. Ids that are not in the index do not
            matter, so unlike a mask it stays right while other threads change the index.

        Returns
        -------
        scores : (Q, k) float32, what `knn` gives for the metric: for "l2", squared distances
        ids : (Q, k) int64; -1 where no row is left, with score -Inf, or +Inf for "l2"
            Both of the kind of `queries`, on their device.

        Raises
        ------
        TypeError and ValueError for arguments of another type, dtype or shape, and what `knn` raises.
        """
        q = _rows.check_vectors(queries, self.dim, "queries")
        k = _options.integer("k", k, 0)
        _options.recall_target(recall_target)
        workspace = _options.integer("workspace", workspace, SMALLEST_WORKSPACE)
        backend = choose_backend(namespace(self._like)[1], self._like, backend)
        view = self._table.view()
        allowed = _index_search.allowed(view, mask, allowed_ids, len(q))
        kept = Kept(self.dtype, self.metric, self._centre)
        scores, ids = _index_search.search(view, kept, q, k, allowed, workspace, backend)
        return home(scores, q), home(ids, q)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows there are now to a safetensors file; it replaces one at `path` when it is complete."""
        from . import _index_files

        _index_files.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str], *, device: Any = None) -> Index:
        """An index from a file that `save` wrote, with its rows, ids and metric, kept on `device`.

        Raises
        ------
        ValueError for a file that is damaged or that is not one of an Index, whatever it holds; OSError
        for one that cannot be read; NotImplementedError where safetensors is not installed.
        """
        from . import _index_files

        return _index_files.load(path, device)

    def _columns(self, vectors: Any) -> dict[str, Any]:
        """What the table keeps for some vectors."""
        x = _rows.check_vectors(vectors, self.dim)
        columns = _rows.stored(x, self.dtype, self._like)
        if self.metric == "l2" and self.dtype == "float32" and self._centre is None and len(x):
            self._choose_centre(columns["vectors"])
        return _rows.with_metric(columns, self.metric, self._centre)

    def _choose_centre(self, x: Any) -> None:
        """Measure from the first vectors, if they lie far from the origin; see `_metric.euclidean`."""
        centre = _metric.distant_centre(x)
        with self._lock:
            if self._centre is None:
                self._centre = x[0] * 0 if centre is None else centre
