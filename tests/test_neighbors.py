"""The scikit-learn estimator against scikit-learn's own."""

from __future__ import annotations

import copy
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import pykernels
from pykernels.search import neighbors
from pykernels.search.neighbors import BruteForceNeighbors

RNG = np.random.default_rng(11)
DIGITS, LABELS = load_digits(return_X_y=True)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "ip"])
def test_passes_the_checks_of_scikit_learn(metric, mode):
    check_estimator(BruteForceNeighbors(metric=metric, mode=mode), on_skip=None)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_neighbours_are_those_of_scikit_learn(metric, dtype):
    x, q = RNG.standard_normal((200, 13)).astype(dtype), RNG.standard_normal((31, 13)).astype(dtype)
    ours = BruteForceNeighbors(7, metric=metric).fit(x)
    theirs = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(x.astype(np.float64))
    for queries in (q, None):
        distances, indices = ours.kneighbors(queries)
        expected, numbers = theirs.kneighbors(None if queries is None else queries.astype(np.float64))
        np.testing.assert_array_equal(indices, numbers)
        np.testing.assert_allclose(distances, expected, rtol=1e-12 if dtype == np.float64 else 2e-5, atol=1e-7)
        assert distances.dtype == dtype and indices.dtype == np.int64
        graph, other = (
            ours.kneighbors_graph(queries, mode="distance"),
            theirs.kneighbors_graph(queries, mode="distance"),
        )
        assert graph.format == "csr" and graph.shape == other.shape
        np.testing.assert_allclose(graph.toarray(), other.toarray(), rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(ours.kneighbors(q, 3, return_distance=False), numbers_of(theirs, q, 3))


def numbers_of(estimator, q, k):
    return estimator.kneighbors(q.astype(np.float64), k, return_distance=False)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_graphs_are_those_of_the_transformer(mode):
    x, q = RNG.standard_normal((120, 6)), RNG.standard_normal((9, 6))
    ours, theirs = BruteForceNeighbors(4, mode=mode), KNeighborsTransformer(n_neighbors=4, mode=mode)
    for mine, other in ((ours.fit_transform(x), theirs.fit_transform(x)), (ours.transform(q), theirs.transform(q))):
        assert mine.nnz == other.nnz
        np.testing.assert_allclose(mine.toarray(), other.toarray(), rtol=1e-9, atol=1e-7)
        assert all((np.diff(mine.data[a:b]) >= 0).all() for a, b in zip(mine.indptr, mine.indptr[1:], strict=False))
    assert list(ours.get_feature_names_out()) == [f"bruteforceneighbors{i}" for i in range(120)]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_a_pipeline_predicts_what_scikit_learn_predicts(weights):
    """Digits are small integers: distances are exact in both, and many are equal."""
    train, test = slice(0, 1200), slice(1200, None)
    pipeline = make_pipeline(
        BruteForceNeighbors(n_neighbors=5), KNeighborsClassifier(n_neighbors=5, metric="precomputed", weights=weights)
    ).fit(DIGITS[train], LABELS[train])
    direct = KNeighborsClassifier(n_neighbors=5, algorithm="brute", weights=weights).fit(DIGITS[train], LABELS[train])
    np.testing.assert_array_equal(pipeline.predict(DIGITS[test]), direct.predict(DIGITS[test]))


def test_parameters_can_be_searched_and_estimators_copied():
    pipeline = make_pipeline(BruteForceNeighbors(9), KNeighborsClassifier(metric="precomputed"))
    grid = GridSearchCV(pipeline, {"bruteforceneighbors__metric": ["euclidean", "cosine"]}, cv=3)
    assert grid.fit(DIGITS[:600], LABELS[:600]).best_score_ > 0.8
    fitted = BruteForceNeighbors(3).fit(DIGITS[:50])
    duplicate = copy.deepcopy(fitted)
    np.testing.assert_array_equal(duplicate.kneighbors(DIGITS[:5])[1], fitted.kneighbors(DIGITS[:5])[1])
    assert not hasattr(clone(fitted), "n_samples_fit_")


def test_equal_distances_are_in_the_order_of_the_samples():
    x = np.array([[0.0, 1], [1, 0], [0, 1], [0, -1], [0, 1]])
    distances, indices = BruteForceNeighbors(5).fit(x).kneighbors([[0.0, 0]])
    assert indices.tolist() == [[0, 1, 2, 3, 4]] and distances.tolist() == [[1, 1, 1, 1, 1]]


def test_samples_are_not_their_own_neighbours_even_among_duplicates():
    fitted = BruteForceNeighbors(2).fit(np.ones((6, 3)))
    distances, indices = fitted.kneighbors()
    assert (distances == 0).all() and (indices != np.arange(6)[:, None]).all()
    assert all(len(set(row)) == 2 for row in indices.tolist())


@pytest.mark.parametrize("size", [1e-100, 1e-20, 1e15, 1e100])
def test_values_beyond_float32_are_scaled_into_it(size):
    x = RNG.standard_normal((80, 5))
    expected, numbers = BruteForceNeighbors(3).fit(x).kneighbors(x[:9])
    distances, indices = BruteForceNeighbors(3).fit(x * size).kneighbors(x[:9] * size)
    np.testing.assert_array_equal(indices, numbers)
    np.testing.assert_allclose(distances, expected * size, rtol=1e-9)


def test_inner_products_are_negated():
    x, q = RNG.standard_normal((40, 4)), RNG.standard_normal((6, 4))
    distances, indices = BruteForceNeighbors(3, metric="ip").fit(x).kneighbors(q)
    np.testing.assert_array_equal(indices, np.argsort(-(q @ x.T), 1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(-(q @ x.T), 1)[:, :3], rtol=1e-12)


X = np.arange(12.0).reshape(4, 3)
BAD = {
    "metric": (ValueError, "metric='manhattan'", lambda: BruteForceNeighbors(metric="manhattan").fit(X)),
    "mode": (ValueError, "mode='graph'", lambda: BruteForceNeighbors(mode="graph").fit(X)),
    "k": (ValueError, "n_neighbors=0", lambda: BruteForceNeighbors(0).fit(X)),
    "k type": (TypeError, "n_neighbors=2.5", lambda: BruteForceNeighbors(2.5).fit(X)),
    "k large": (ValueError, "n_neighbors <= n_samples_fit = 4", lambda: BruteForceNeighbors(5).fit(X).kneighbors(X)),
    "k own": (ValueError, "n_samples_fit - 1 = 3", lambda: BruteForceNeighbors(4).fit(X).kneighbors()),
    "features": (ValueError, "3 features", lambda: BruteForceNeighbors(2).fit(X).kneighbors(X[:, :2])),
    "nan": (ValueError, "NaN", lambda: BruteForceNeighbors(2).fit(X * np.nan)),
    "far": (ValueError, "2**100 times", lambda: BruteForceNeighbors(2).fit(X).kneighbors(X + 1e60)),
    "graph": (ValueError, "mode='x'", lambda: BruteForceNeighbors(2).fit(X).kneighbors_graph(mode="x")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_without_scikit_learn_only_the_estimator_is_missing():
    code = """
import sys
sys.modules["sklearn"] = None
from pykernels.search import Index
try:
    import pykernels.search.neighbors
except NotImplementedError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(pykernels.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, cwd="/")
    assert "needs scikit-learn" in done.stdout, done.stderr


def test_doctests():
    assert doctest.testmod(neighbors).failed == 0
