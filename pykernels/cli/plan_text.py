"""What ``pykernels plan`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pykernels.cli.table import table
from pykernels.inference.plan import Result, crossovers, draw

_PARTS = ("compute", "memory", "communication")
_PLACE = ("layout", "attention", "torus")
_RANKED = (*_PLACE, "ms", "MFU", "chip-ms/token", *_PARTS, "limit", "GiB/chip", "fits", "longest")
_FRONTIER = ("ms", "chip-ms/token", "MFU", "chips", "batch", "weights", *_PLACE, "limit")
_FORMULAS = {
    "paper": "bytes, the paper's closed forms",
    "block": "bytes, all of a block",
    "searched": "times",
}


def ranking(results: Sequence[Result], top: int) -> str:
    """The table of a plan, why the first is first, where others would be, and what was assumed."""
    rows = [
        (
            *_place(result),
            _ms(result.seconds),
            f"{result.mfu:.1%}",
            _ms(result.cost),
            *(_ms(getattr(result, f"{part}_seconds")) for part in _PARTS),
            result.limit,
            f"{result.bytes / 2**30:.1f}",
            "yes" if result.fits else "no",
            "any" if result.longest_context is None else result.longest_context,
        )
        for result in results[:top]
    ]
    best = results[0]
    lines = [_title(best, f"{best.chips}", f", batch {best.batch}"), "", table(_RANKED, rows), "", *_why(results)]
    if best.chips > 1:
        lines += ["", *_changes(best)]
    return "\n".join([*lines, "", *_assumptions(results[:top])])


def frontier(results: Sequence[Result], path: str | None) -> str:
    """The drawing and the table of a frontier, and what was assumed; the drawing in the file `path` too."""
    rows = [
        (
            _ms(result.seconds),
            _ms(result.cost),
            f"{result.mfu:.1%}",
            result.chips,
            result.batch,
            result.work.weights,
            *_place(result),
            result.limit,
        )
        for result in results
    ]
    title = _title(results[0], f"up to {max(result.chips for result in results)}", "", types=False)
    return "\n".join([title, "", draw(results, path), "", table(_FRONTIER, rows), "", *_assumptions(results)])


def _title(result: Result, chips: str, batch: str, *, types: bool = True) -> str:
    work = result.work
    numbers = f", {work.weights} weights, {work.cache} cache" if types else f", {work.cache} cache"
    return f"{result.model.name}, {work.phase} on {chips} x {result.chip.name}{batch}, context {work.context}{numbers}"


def _place(result: Result) -> tuple[str, str, str]:
    return result.layout, result.attention, str(result.partition.slice)


def _name(result: Result) -> str:
    layout, attention, slice = _place(result)
    return f"{layout} with attention over {attention} on {slice}"


def _why(results: Sequence[Result]) -> Iterator[str]:
    best = results[0]
    seconds = [getattr(best, f"{part}_seconds") for part in _PARTS]
    shares = ", ".join(f"{part} {_ms(took)}" for part, took in zip(_PARTS, seconds, strict=True))
    yield f"{_name(best)}: {best.limit} limits it; of {_ms(best.seconds)} ms: {shares}"
    if best.work.phase == "decode" and best.work.new_tokens > 1:
        yield f"all {best.work.new_tokens} steps: {_ms(best.total_seconds)} ms"
    if len(results) == 1:
        return
    after = results[1]
    if not after.fits:
        yield f"no other fits: {_name(after)} would take {after.bytes / 2**30:.1f} GiB a chip"
        return
    more = {
        part: getattr(after, f"{part}_seconds") - took
        for part, took in zip(_PARTS, seconds, strict=True)
        if abs(getattr(after, f"{part}_seconds") - took) > 0.005 * best.seconds
    }
    parts = ", ".join(f"{part} {'+' if took > 0 else '-'}{_ms(abs(took))} ms" for part, took in more.items())
    yield f"next, {_name(after)}: {after.seconds / best.seconds:.2f} times as long: {parts or 'all but the same'}"


def _changes(best: Result) -> Iterator[str]:
    """Crossovers on the slice of the best."""
    slice, work = best.partition.slice, best.work
    yield f"changes of the fastest layout on {slice}, in tokens of a pass (here {best.batch * work.length:,}), by"
    for formula, name in _FORMULAS.items():
        found = crossovers(
            best.model,
            best.chip,
            slice,
            formula=formula,
            attention=best.attention,
            length=work.length,
            weights=work.weights,
            efficiency=best.efficiency,
            overlap=best.overlap,
        )
        changes = [f"{each.before} -> {each.after} from {each.tokens:,.0f}" for each in found]
        note = f" (batches of {work.length:,})" if formula == "searched" and work.length > 1 else ""
        yield f"  {name}{note}: {', '.join(changes) or 'none'}"


def _assumptions(results: Sequence[Result]) -> Iterator[str]:
    best, chip = results[0], results[0].chip
    rates, slice = best.efficiency, best.partition.slice
    yield (
        f"a lower bound: {chip.rate(best.work.compute) / 1e12:.4g} TFLOP/s, {chip.bandwidth / 1e9:.4g} GB/s, "
        f"{slice.bandwidth / 1e9:.4g} GB/s between chips ({slice.kind}, {slice.links} links), "
        f"{1e6 * slice.latency:g} us a hop; at efficiency {rates.flops:g}, {rates.bandwidth:g}, "
        f"{rates.interconnect:g}, overhead {1e3 * rates.overhead:g} ms, overlap {best.overlap:g}"
    )
    yield "compute and memory: the parts that each limits; longest: the most tokens of each sequence that fit"
    notes: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            places = notes.setdefault(note, [])
            place = f"{result.layout}/{result.attention}"
            if place not in places:
                places.append(place)
    for note, places in notes.items():
        yield f"{note}: {', '.join(places)}"


def _ms(seconds: float) -> str:
    """Milliseconds with four digits, and no exponent."""
    milliseconds = 1e3 * seconds
    if milliseconds >= 1000:
        return f"{milliseconds:.0f}"
    return f"{milliseconds:.4g}" if milliseconds >= 0.001 or milliseconds == 0 else f"{milliseconds:.2g}"
