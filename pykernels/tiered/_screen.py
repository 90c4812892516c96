"""screen: conformations of many ligands in one pocket."""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _options
from . import _workers
from ._ensemble import in_place
from ._generate import Report, _silent, generate
from ._ligand import records

_OWN = ("protein", "ligand", "out", "resume", "progress", "ligand_index")
_OPTIONS = tuple(name for name in inspect.signature(generate).parameters if name not in _OWN)
_COLUMNS = ("number", "name", "file", "index", "status", "kept", "total", "ligand_rmsd", "seconds", "poses", "message")


def screen(
    protein: Any,
    ligands: Any,
    *,
    out: Any,
    workers: int | None = None,
    engine: Any = None,
    progress: Report | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Run `generate` for many ligands, each posed in the pocket of one protein.

    Each ligand gets its own files in the folder `out`, named by its number and name, and a row in
    ``screen.csv`` there. Called again with the same `out`, it skips ligands that are finished and goes on
    with those that are not. A ligand that fails is reported in the table, and tried again by the next call.

    Parameters
    ----------
    protein : a file, as for `read_complex`
    ligands : a file of one or more molecules, or a list of such files
    out : a folder; it is made if it is not there
    workers : how many processes share the ligands, which share the processor's cores; None for one a core. A
        process that dies (killed, out of memory) costs the ligand it worked on, at most the batch since the
        last save. Scripts need ``if __name__ == "__main__":`` around the call, as for all of multiprocessing
    engine : None for processes of this machine; or a Dask `Client`, or any object whose
        ``submit(function, *arguments)`` returns futures with ``result()``. Files must then be visible to all
        its machines under the same names. For Ray::

            class Ray:
                def submit(self, function, *arguments):
                    return ray.remote(function).remote(*arguments).future()
    progress : called with ligands done, ligands in all, and the last one's name
    options : as for `generate`; forcefield "builtin" only

    Returns
    -------
    The rows of the table, a dict for each ligand in order: its `status` is "done" or "failed", with a
    `message`; energies are those of the lowest conformation. Rows of ligands that an interrupt left undone
    are not in the table.

    Raises
    ------
    ValueError, TypeError for options and files that cannot be used; not for a single ligand's faults.

    Examples
    --------
    >>> from pykernels.tiered import screen
    >>> rows = screen("protein.pdb", "ligands.sdf", out="screened", n=20)  # doctest: +SKIP
    >>> sorted((row["total"], row["name"]) for row in rows if row["status"] == "done")  # doctest: +SKIP
    """
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise TypeError(f"{unknown[0]}={options[unknown[0]]!r}: expected one of the options {', '.join(_OPTIONS)}")
    if options.get("forcefield", "builtin") != "builtin":
        raise ValueError(f"forcefield={options['forcefield']!r}: expected 'builtin', as each ligand needs its own")
    cores = os.cpu_count() or 1
    workers = cores if workers is None else _options.integer("workers", workers, 1)
    if engine is not None and not hasattr(engine, "submit"):
        raise TypeError(f"engine is a {type(engine).__name__}: expected an object with submit(function, *arguments)")
    folder = Path(out)
    jobs = _jobs(Path(protein), ligands, folder, options)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {number: row for number, job in enumerate(jobs) if (row := _finished(job))}
    left = [number for number in range(len(jobs)) if number not in rows]
    report = progress or _silent
    report(len(rows), len(jobs), f"{len(rows)} were finished before")
    todo = [jobs[number] for number in left]
    results = _submitted(engine, todo) if engine else _workers.run(one, todo, workers, max(1, cores // workers))
    try:
        for place, result in results:
            number = left[place]
            rows[number] = _failed(jobs[number], result) if isinstance(result, BaseException) else result
            _write_table(folder, rows)
            report(len(rows), len(jobs), rows[number]["name"])
    finally:
        if hasattr(results, "close"):
            results.close()
        _write_table(folder, rows)
    return [rows[number] for number in sorted(rows)]


def one(job: dict[str, Any]) -> dict[str, Any]:
    """The row of one ligand, whose files are written."""
    begin = time.perf_counter()
    stem = Path(job["stem"])
    ensemble = generate(
        job["protein"],
        job["file"],
        ligand_index=job["index"],
        out=stem.with_name(stem.name + ".pdb"),
        resume=True,
        **job["options"],
    )
    row = _row(job, "done", seconds=round(time.perf_counter() - begin, 1), poses=stem.name + ".pdb")
    if ensemble.kept:
        best = ensemble.kept[0]
        row.update({name: float(values[best]) for name, values in ensemble.terms.items()})
        row.update(total=float(ensemble.total[best]), ligand_rmsd=float(ensemble.ligand_rmsd[best]))
    row["kept"] = len(ensemble.kept)
    saved = json.dumps({"digest": job["digest"], "row": row}, indent=1)
    in_place(_json(job), lambda path: path.write_text(saved + "\n"))
    return row


def _jobs(protein: Path, ligands: Any, folder: Path, options: dict[str, Any]) -> list[tuple[dict[str, Any]]]:
    files = [ligands] if isinstance(ligands, str | Path) else list(ligands)
    if not files:
        raise ValueError("ligands is empty: expected a file, or a list of files")
    found: list[tuple[dict[str, Any]]] = []
    target = protein.read_bytes()
    for file in files:
        for index, record in enumerate(records(file)):
            name = record.name or f"ligand {len(found)}"
            stem = folder / f"{len(found):05d}_{re.sub(r'[^A-Za-z0-9-]+', '_', name)[:40]}"
            contents = json.dumps([record.text, options], sort_keys=True, default=_plain).encode()
            digest = hashlib.sha256(target + contents).hexdigest()
            job = dict(protein=str(protein), file=str(file), index=index, number=len(found), name=name)
            found.append((dict(job, stem=str(stem), digest=digest, options=options),))
    return found


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


def _json(job: dict[str, Any]) -> Path:
    return Path(job["stem"] + ".json")


def _finished(job: tuple[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of a ligand that an earlier call finished with the same files and options."""
    path = _json(job[0])
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
        return dict(saved["row"]) if saved["digest"] == job[0]["digest"] else None
    except (ValueError, KeyError):
        return None


def _submitted(engine: Any, jobs: Sequence[tuple[dict[str, Any]]]) -> Iterator[tuple[int, Any]]:
    futures = [engine.submit(one, *job) for job in jobs]
    for number, future in enumerate(futures):
        try:
            yield number, future.result()
        except Exception as error:
            yield number, error


def _row(job: dict[str, Any], status: str, **more: Any) -> dict[str, Any]:
    return {name: job[name] for name in ("number", "name", "file", "index")} | {"status": status, "message": ""} | more


def _failed(job: tuple[dict[str, Any]], error: BaseException) -> dict[str, Any]:
    return _row(job[0], "failed", message=str(error))


def _write_table(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    terms = [name for row in rows.values() for name in row if name not in _COLUMNS]
    names = [*_COLUMNS[:6], *dict.fromkeys(terms), *_COLUMNS[6:]]

    def write(path: Path) -> None:
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, names, restval="")
            table.writeheader()
            table.writerows(rows[number] for number in sorted(rows))

    in_place(folder / "screen.csv", write)
