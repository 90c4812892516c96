"""Brute-force neighbours as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _options
from ._knn import WORKSPACE, knn

try:
    from scipy.sparse import csr_matrix
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise NotImplementedError(
        "pykernels.search.neighbors needs scikit-learn 1.6, which is not installed here"
    ) from error

Array = np.ndarray[Any, Any]

METRICS = {"euclidean": "l2", "sqeuclidean": "l2", "cosine": "cosine", "ip": "ip"}
MODES = ("distance", "connectivity")

_BLOCK_BYTES = 16 << 20
_LARGEST = 2.0**100


class BruteForceNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest neighbours by brute force, and their graph: a drop-in for `KNeighborsTransformer`.

    Neighbours are found in float32, by `knn`; their distances are then computed in the dtype of the data,
    and put in order. So distances are as exact as scikit-learn's, and only rows whose distances agree
    to float32 rounding can trade places at the end of the list. Equal distances are in the order of the rows.

    Parameters
    ----------
    n_neighbors : neighbours of a sample, at least 1
    metric : "euclidean", "sqeuclidean", "cosine" (one minus the cosine) or "ip" (the inner product, negated)
    mode : what `transform` writes into the graph, "distance" or "connectivity"
        As in scikit-learn, a distance graph has one neighbour more, as training samples find themselves.
    workspace : about how many bytes a search may use beside the data

    Attributes
    ----------
    n_features_in_, feature_names_in_ : as in every estimator
    n_samples_fit_ : the number of fitted samples

    Examples
    --------
    >>> from pykernels.search.neighbors import BruteForceNeighbors
    >>> neighbors = BruteForceNeighbors(n_neighbors=1).fit([[0.0, 0.0], [3.0, 4.0]])
    >>> neighbors.kneighbors([[3.0, 0.0]])
    (array([[3.]]), array([[0]]))
    """

    def __init__(
        self, n_neighbors: int = 5, *, metric: str = "euclidean", mode: str = "distance", workspace: int = WORKSPACE
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.mode = mode
        self.workspace = workspace

    def fit(self, X: Any, y: Any = None) -> BruteForceNeighbors:
        """Keep the samples `X` (n_samples, n_features), finite and dense; `y` is ignored."""
        _options.integer("n_neighbors", self.n_neighbors, 1)
        _options.choice("metric", self.metric, METRICS)
        _options.choice("mode", self.mode, MODES)
        self._fit_X = validate_data(self, X, dtype=[np.float64, np.float32], order="C")
        self._exponent = -int(np.frexp(np.abs(self._fit_X).max())[1])
        self._narrow_X = self._narrow(self._fit_X)
        self.n_samples_fit_ = len(self._fit_X)
        return self

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """The nearest samples.

        Parameters
        ----------
        X : (n_queries, n_features); None for the fitted samples, which are then not their own neighbours
        n_neighbors : None for that of the estimator

        Returns
        -------
        (distances, indices), or the indices alone; both (n_queries, n_neighbors), the nearest first.

        Raises
        ------
        ValueError for more neighbours than there are samples, and for an `X` of other features or with NaN.
        """
        check_is_fitted(self)
        k = _options.integer("n_neighbors", self.n_neighbors if n_neighbors is None else n_neighbors, 1)
        own = X is None
        queries = self._fit_X if own else validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        others = self.n_samples_fit_ - own
        if k > others:
            raise ValueError(
                f"Expected n_neighbors <= {'n_samples_fit - 1' if own else 'n_samples_fit'} = {others}, but "
                f"n_neighbors = {k}, n_samples_fit = {self.n_samples_fit_}, n_samples = {len(queries)}"
            )
        distances, indices = self._search(queries, k + own)
        if own:
            distances, indices = _without(np.arange(len(queries)), distances, indices)
        return (distances, indices) if return_distance else indices

    def kneighbors_graph(self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity") -> Any:
        """The neighbours as a sparse CSR matrix (n_queries, n_samples_fit_), of ones or of distances.

        Parameters are those of `kneighbors` and `transform`. Entries of a row are in the order of distance.
        """
        _options.choice("mode", mode, MODES)
        distances, indices = self.kneighbors(X, n_neighbors)
        queries, k = indices.shape
        entries = np.ones_like(distances) if mode == "connectivity" else distances
        starts = np.arange(0, queries * k + 1, k)
        return csr_matrix((entries.ravel(), indices.ravel(), starts), shape=(queries, self.n_samples_fit_))

    def transform(self, X: Any) -> Any:
        """The graph of `X`, (n_queries, n_samples_fit_), in the estimator's `mode`."""
        check_is_fitted(self)
        extra = self.mode == "distance"
        return self.kneighbors_graph(X, self.n_neighbors + extra, self.mode)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """``fit(X).transform(X)``: every sample is its own neighbour, at distance 0."""
        return self.fit(X).transform(X)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_samples_fit_)

    def _narrow(self, x: Array) -> Array:
        """float32, scaled by the power of two that brings the fitted samples into [-1, 1]."""
        with np.errstate(over="ignore", under="ignore"):
            narrow: Array = np.ldexp(x, self._exponent).astype(np.float32)
        return narrow

    def _search(self, queries: Array, k: int) -> tuple[Array, Array]:
        """Neighbours found in float32, in the order of distances of the data's dtype."""
        narrow = self._narrow(queries)
        if not np.abs(narrow).max(initial=0) < _LARGEST:
            raise ValueError("X has values more than 2**100 times those of the fitted samples: expected similar ones")
        indices = knn(narrow, self._narrow_X, k, metric=METRICS[self.metric], workspace=self.workspace)[1]
        distances = np.empty(indices.shape, np.result_type(queries, self._fit_X))
        block = max(1, _BLOCK_BYTES // max(1, k * queries.shape[1] * distances.itemsize))
        for first in range(0, len(queries), block):
            rows = slice(first, first + block)
            distances[rows] = _distances(queries[rows], self._fit_X[indices[rows]], self.metric)
        order = np.lexsort((indices, distances))
        return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


def _distances(queries: Array, neighbors: Array, metric: str) -> Any:
    """Distances of `queries` (Q, D) to `neighbors` (Q, k, D)."""
    if metric in ("euclidean", "sqeuclidean"):
        squares = ((queries[:, None] - neighbors) ** 2).sum(-1)
        return np.sqrt(squares) if metric == "euclidean" else squares
    products = np.einsum("qd,qkd->qk", queries, neighbors)
    if metric == "ip":
        return -products
    lengths = np.linalg.norm(queries, axis=-1)[:, None] * np.linalg.norm(neighbors, axis=-1)
    return (1 - products / np.where(lengths == 0, 1, lengths)).clip(0, 2)


def _without(own: Array, distances: Array, indices: Array) -> tuple[Array, Array]:
    """Lists without the query itself; without their last where it is not in them (it has many duplicates)."""
    kept = indices != own[:, None]
    kept[kept.all(1), -1] = False
    shape = (len(own), indices.shape[1] - 1)
    return distances[kept].reshape(shape), indices[kept].reshape(shape)
