"""Processes of one machine that each do one job at a time, of which any may die."""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

Job = tuple[Any, ...]


def run(function: Callable[..., Any], jobs: Sequence[Job], workers: int, threads: int) -> Iterator[tuple[int, Any]]:
    """``function(*job)`` of each job in spawned processes, as (number of the job, result), as they finish.

    A result is an exception where the function raised it, or where its process died; another process then
    takes the next job. When the iteration ends early, processes are asked to stop as Ctrl-C would, and waited
    for.
    """
    waiting = iter(enumerate(jobs))
    busy: dict[Any, tuple[int, Any]] = {}
    try:
        for _ in range(min(workers, len(jobs))):
            _give(_start(function, threads), next(waiting, None), busy)
        while busy:
            for connection in cast(list[Any], wait(list(busy))):
                number, process = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    process.join()
                    result = RuntimeError(f"the process died ({_cause(process.exitcode)})")
                    following = next(waiting, None)
                    if following is not None:
                        _give(_start(function, threads), following, busy)
                else:
                    _give((connection, process), next(waiting, None), busy)
                yield number, result
    finally:
        for _, process in busy.values():
            process.terminate()
        for _, process in busy.values():
            process.join()


def _start(function: Callable[..., Any], threads: int) -> tuple[Any, Any]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function, threads), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _give(worker: tuple[Any, Any], job: tuple[int, Job] | None, busy: dict[Any, tuple[int, Any]]) -> None:
    """Have a worker do a job, or end if there is none."""
    connection, process = worker
    with suppress(OSError):  # it died idle; its end of the pipe says so
        connection.send(job and job[1])
    if job is None:
        process.join()
    else:
        busy[connection] = job[0], process


def _work(connection: Connection, function: Callable[..., Any], threads: int) -> None:
    """What a process does: jobs until None comes, or the other end is gone."""
    import numba

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on, once
    signal.signal(signal.SIGTERM, _interrupt)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        while (job := connection.recv()) is not None:
            try:
                result = function(*job)
            except Exception as error:
                result = RuntimeError(f"{type(error).__name__}: {error}")
            connection.send(result)
    except (EOFError, OSError, KeyboardInterrupt):
        pass


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"{signal.Signals(-exitcode).name}; out of memory?" if exitcode == -9 else signal.Signals(-exitcode).name
    return f"exit status {exitcode}"
