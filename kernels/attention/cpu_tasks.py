"""Lists of tasks: parts of the work of each head of each sequence."""

from __future__ import annotations

import numpy as np

from .._numba import jit


@jit
def tasks_of(parts, heads):
    """Rows (sequence, head, part) of ``parts[n]`` parts of each head of sequence n."""
    tasks = np.empty((parts.sum() * heads, 3), np.int64)
    task = 0
    for n in range(len(parts)):
        for h in range(heads):
            for part in range(parts[n]):
                tasks[task, 0], tasks[task, 1], tasks[task, 2] = n, h, part
                task += 1
    return tasks


@jit
def heads_of(parts, heads):
    """Rows (sequence, head, first of its tasks, one more than the last)."""
    found = np.empty((len(parts) * heads, 4), np.int64)
    task = 0
    for n in range(len(parts)):
        for h in range(heads):
            row = found[n * heads + h]
            row[0], row[1], row[2], row[3] = n, h, task, task + parts[n]
            task += parts[n]
    return found
