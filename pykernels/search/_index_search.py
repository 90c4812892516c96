"""One search of an index: which rows of a view may be found, and the stages that find them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _options
from .._arrays import library, namespace
from . import _metric, _rows, _stages
from ._metric import Ranking
from ._rows import home
from ._stages import Job
from ._table import View
from ._vectors import Vectors


class Kept(NamedTuple):
    """How an index keeps its rows: their dtype, the metric, and where "l2" is measured from, or None."""

    dtype: str
    metric: str
    centre: Any

    @property
    def computed(self) -> str:
        """The dtype of queries."""
        return "float32" if self.dtype in _rows.QUANTIZED else self.dtype


def search(
    view: View, kept: Kept, queries: Any, k: int, allowed: tuple[Any, Any], workspace: int, backend: str
) -> tuple[Any, Any]:
    """Scores and ids (Q, k) of the best rows, as the kind of array that the view has."""
    rows = view.columns["vectors"]
    arrays = namespace(rows)[1]
    scores, ids = (arrays.allocate((len(queries), k), name, rows, "gpu")[0] for name in ("float32", "int64"))
    scores[...], ids[...] = float("inf") if kept.metric == "l2" else float("-inf"), -1
    count = min(k, len(view))
    if len(queries) and count:
        numbers, each = (part if part is None else arrays.raw(part, backend) for part in allowed)
        job = Job(kept.metric, numbers, each, workspace, backend)
        with _metric.ignoring_overflow():
            best, found = _search(view, kept, arrays.cast(home(queries, rows), kept.computed), count, job)
        scores[:, :count] = best
        ids[:, :count] = library(rows).where(found < 0, found, view.columns["ids"][found])
    return scores, ids


def _search(view: View, kept: Kept, queries: Any, count: int, job: Job) -> tuple[Any, Any]:
    """Scores and row numbers (Q, count)."""
    arrays = namespace(queries)[1]
    columns = {name: arrays.raw(column, job.backend) for name, column in view.columns.items()}
    factor = view.columns.get("factor")
    stored = "float8_e4m3fn" if kept.dtype == "e4m3fn" else kept.dtype
    x = Vectors(arrays, view.columns["vectors"], None if factor is None else factor[:, None], stored)
    q = Vectors(arrays, queries, None, kept.computed)
    results = [arrays.allocate((len(queries), count), name, queries, job.backend) for name in ("float32", "int64")]
    scores, rows = (target for _, target in results)
    ranking = _rank(q.raw(job.backend), columns, kept, job.backend)
    _stages.search_ranked(q, x, ranking, job, scores, rows)
    return results[0][0], results[1][0]


def _rank(q: Any, columns: dict[str, Any], kept: Kept, backend: str) -> Ranking:
    scale = columns.get("scale", columns.get("factor"))
    if kept.metric == "cosine":
        q, factor = _metric.unit(q, backend)
        return Ranking(q, scale, None, factor)
    if kept.centre is not None:
        q = q - namespace(kept.centre)[1].raw(kept.centre, backend)
    return Ranking(q, scale, columns.get("bias"), None)


def allowed(view: View, mask: Any, allowed_ids: Any, queries: int) -> tuple[Any, Any]:
    """Numbers of the rows that any query may find and a mask of them for each query; either may be None."""
    like = view.columns["ids"]
    flags = each = None
    if mask is not None:
        mask, kind = namespace(mask)
        _options.dtype_name(kind, mask, ("bool",), "mask")
        if tuple(mask.shape) not in ((len(view),), (queries, len(view))):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}: expected ({len(view)},) or ({queries}, {len(view)}), "
                "a value for each row of the index"
            )
        flags, each = (home(mask, like), None) if mask.ndim == 1 else (None, _spread(view, home(mask, like)))
    if allowed_ids is not None:
        wanted = home(_options.integers("allowed_ids", allowed_ids), like)
        named = library(like).isin(view.column("ids"), wanted)
        flags = named if flags is None else flags & named
    if flags is None:
        return view.numbers, each
    chosen = library(flags).where(flags)[0]
    return (chosen if view.numbers is None else view.numbers[chosen]), each


def _spread(view: View, mask: Any) -> Any:
    """A mask (Q, len(view)) as one of all rows that the view holds."""
    if view.numbers is None:
        return mask
    ids = view.columns["ids"]
    whole = namespace(ids)[1].allocate((len(mask), len(ids)), "bool", ids, "gpu")[0]
    whole[...] = False
    whole[:, view.numbers] = mask
    return whole
