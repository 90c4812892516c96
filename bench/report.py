"""Tables and the HTML report of a run, from pytest-benchmark's JSON."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pykernels.bench import plots

Results = Mapping[str, Any]
COLUMNS = ("operation", "case", "ours ms", "best peer ms", "best peer", "ratio", "% of limit", "limit")


@dataclass(frozen=True)
class Row:
    """One operation on one case: medians in seconds; `ratio` is the best peer's time over ours."""

    operation: str
    case: str
    ours: float
    peer: str | None
    peer_seconds: float | None
    limit: str | None
    limit_seconds: float | None
    elements: int
    bytes: int
    flops: int
    sweep: str | None

    @property
    def ratio(self) -> float | None:
        return self.peer_seconds / self.ours if self.peer_seconds else None

    @property
    def percent(self) -> float | None:
        return 100 * self.limit_seconds / self.ours if self.limit_seconds else None

    @property
    def peer_percent(self) -> float | None:
        return 100 * self.limit_seconds / self.peer_seconds if self.limit_seconds and self.peer_seconds else None

    def cells(self) -> tuple[str, ...]:
        """As the table shows it, in the order of `COLUMNS`."""
        return (
            self.operation,
            self.case,
            milliseconds(self.ours),
            milliseconds(self.peer_seconds) if self.peer_seconds else "",
            self.peer or "",
            f"{self.ratio:.{2 if self.ratio < 10 else 1}f}" if self.ratio else "",
            f"{self.percent:.0f}" if self.percent else "",
            self.limit or "",
        )


def milliseconds(seconds: float) -> str:
    """Three significant digits, without an exponent."""
    value = 1e3 * seconds
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 5
    return f"{value:.{digits}f}"


def medians(results: Results) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """(operation, case) -> provider -> its `extra_info` with the ``median`` of its rounds in seconds."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for benchmark in results["benchmarks"]:
        info = {**benchmark["extra_info"], "median": benchmark["stats"]["median"]}
        if "role" in info:
            found.setdefault((info["operation"], info["case"]), {})[info["provider"]] = info
    return found


def rows(results: Results) -> list[Row]:
    """A row for every group in which ours was measured, in the order of the run."""
    return [row for providers in medians(results).values() for row in _row(providers)]


def _row(providers: Mapping[str, Mapping[str, Any]]) -> Iterable[Row]:
    peers = [info for info in providers.values() if info["role"] == "peer"]
    best = min(peers, key=lambda info: float(info["median"]), default=None)
    for info in providers.values():
        if info["role"] == "ours":
            yield Row(
                operation=info["operation"],
                case=info["case"],
                ours=info["median"],
                peer=best["provider"] if best else None,
                peer_seconds=best["median"] if best else None,
                limit=info["limit"],
                limit_seconds=info["roof_seconds"],
                elements=info["elements"],
                bytes=info["bytes"],
                flops=info["flops"],
                sweep=info["sweep"],
            )


def summary(results: Results) -> dict[str, Any]:
    """What is worth keeping of a run: the machine, and for every provider its median, p20 and p80 in seconds."""
    kept = ("median", "p20", "p80", "roof_seconds", "limit", "bytes", "allocation")
    machine = {key: value for key, value in results["machine_info"]["pykernels"].items() if key != "kernel cache"}
    return {
        "machine": machine,
        "conditions": results["pykernels"],
        "groups": [
            {
                "operation": operation,
                "case": case,
                "providers": {name: {key: info[key] for key in kept} for name, info in providers.items()},
            }
            for (operation, case), providers in medians(results).items()
        ],
        "studies": results.get("studies", []),
    }


def notes(results: Results) -> list[str]:
    """What a reader of the table must know: machine, threads, limits, and what was not measured."""
    run = results["pykernels"]
    described = results["machine_info"]["pykernels"]
    roofs = {name: f"{rate / 1e9:.1f} {'GFLOP/s' if name == 'GEMM' else 'GB/s'}" for name, rate in run["roofs"].items()}
    scaling = ", ".join(f"{value:.2f} {name}" for name, value in run["thread scaling"].items())
    lines = [
        f"{described['cpu']} ({described['cpu target']}, {described['vector bits']}-bit vectors), "
        f"{described['numba threads']} threads, {described['threading layer']}; GPU: {described['gpu'] or 'none'}",
        "; ".join(f"{name} {version}" for name, version in described["versions"].items())
        + f"; commit {described['commit'] or 'unknown'}",
        "limits alone: " + ", ".join(f"{name} {rate}" for name, rate in roofs.items()),
        f"speed-up of {described['numba threads']} threads over one on compute-bound work: {scaling}"
        + ("; every worker thread was pinned to a core of its own" if run["pinned"] else ""),
        "medians of interleaved rounds; the limit is measured among them; the copy counts bytes both ways; "
        "product: the matrix product of the search alone, by numpy or torch, whichever is faster",
    ]
    *_, final = run["thread scaling"].values()
    if described["numba threads"] > 1 and final < 0.75 * described["numba threads"]:
        lines.append("WARNING: the threads share cores or the machine is busy: these times are not to be trusted")
    absent = sorted({f"{name.rsplit(': ', 1)[1]}: {reason}" for name, reason in run["missing"].items()})
    lines += [f"not measured: {line}" for line in absent]
    lines += [f"ERROR: {line}" for line in run["errors"]]
    return lines


def write(results: Results, folder: Path) -> Path:
    """The report as one HTML file in `folder`, and its plots beside it; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    images = plots.draw(results, folder)
    file = folder / "index.html"
    file.write_text(_page(results, images), encoding="utf-8")
    return file


def _page(results: Results, images: Mapping[str, Path]) -> str:
    parts = ["<h1>pykernels bench</h1>", _list(notes(results))]
    parts += ["<h2>Times</h2>", _table(COLUMNS, [row.cells() for row in rows(results)])]
    for title, path in images.items():
        encoded = base64.b64encode(path.read_bytes()).decode()
        name = html.escape(title)
        parts += [f"<h2>{name}</h2>", f'<img alt="{name}" src="data:image/png;base64,{encoded}">']
    for study in results.get("studies", []):
        parts += [f"<h2>{html.escape(study['title'])}</h2>", f"<p>{html.escape(study['source'])}</p>"]
        for each in study["tables"]:
            cells = [[cell_text(cell) for cell in row] for row in each["rows"]]
            parts += [f"<h3>{html.escape(each['title'])}</h3>", _table(each["columns"], cells)]
        parts.append(_list(study["notes"]))
    parts += ["<h2>All providers</h2>", _providers(results)]
    return _FRAME.format(body="\n".join(parts))


def cell_text(cell: object) -> str:
    """A cell of the study's tables as text."""
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) >= 1 else f"{cell:.4f}"
    return "" if cell is None else str(cell)


def _providers(results: Results) -> str:
    cells = [
        (*key, name, *(milliseconds(info[field]) for field in ("median", "p20", "p80")), info["allocation"])
        for key, providers in medians(results).items()
        for name, info in providers.items()
    ]
    return _table(("operation", "case", "provider", "median ms", "p20 ms", "p80 ms", "output"), cells)


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


_FRAME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>pykernels bench</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }}
img {{ max-width: 100%; }}
ul {{ padding-left: 1.2rem; font-size: 13px; }}
</style></head><body>
{body}
</body></html>
"""
