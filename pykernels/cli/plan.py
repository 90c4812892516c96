"""``pykernels plan``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pykernels.inference.plan import Chip, Model, Result, Slice

_TYPES = ("bf16", "int8", "fp8")


def add_command(commands: Any) -> None:
    """Add the command to argparse's `commands`."""
    command = commands.add_parser(
        "plan",
        help="how to lay out a large decoder on many chips, and what it takes at least",
        description="Rank the ways to lay out a decoder on chips by the time that a prefill or a step of a decode "
        'takes at least: the model of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102).',
    )
    command.add_argument("--model", required=True, metavar="NAME|config.json", help="an unknown name lists the known")
    command.add_argument("--chip", default="tpu-v4", help='or "here", as measured now (default: %(default)s)')
    command.add_argument("--chips", type=int, metavar="N", help="default: those of --torus")
    command.add_argument("--torus", metavar="XxYxZ", help="default: every factorisation of --chips")
    command.add_argument("--batch", type=int, default=1, help="sequences (default: %(default)s)")
    command.add_argument("--context", type=int, default=2048, help="tokens of each (default: %(default)s)")
    command.add_argument("--phase", choices=("prefill", "decode"), default="decode", help="default: %(default)s")
    command.add_argument("--new-tokens", type=int, default=1, metavar="N", help="steps of a decode (%(default)s)")
    command.add_argument("--cached", type=int, default=0, metavar="N", help="tokens before a prefill (%(default)s)")
    command.add_argument("--weights", choices=_TYPES, help="default: bf16; with --pareto bf16 and int8")
    command.add_argument("--cache", choices=_TYPES, default="bf16", help="default: %(default)s")
    command.add_argument("--compute", choices=_TYPES, default="bf16", help="type of the products (%(default)s)")
    command.add_argument("--efficiency", type=float, default=1.0, metavar="F", help="of all rates (%(default)s)")
    command.add_argument("--overlap", type=float, default=0.0, metavar="F", help="hidden communication (%(default)s)")
    command.add_argument("--interconnect", type=float, metavar="GB/s", help="out of a chip; default: its own links")
    command.add_argument("--links", choices=("pooled", "axes"), default="pooled", help="of a torus (%(default)s)")
    command.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table (default: %(default)s)")
    command.add_argument(
        "--pareto",
        nargs="?",
        const="",
        metavar="FILE.png",
        help="the frontier of latency against cost over batches and chips up to --chips; FILE.png needs matplotlib",
    )
    command.add_argument("--json", metavar="FILE|-", help="also write the results as JSON; - for only that")


def plan(options: argparse.Namespace) -> int:
    """Print the ranked table or the frontier; 1 if it cannot be."""
    try:
        if options.top < 1:
            raise ValueError(f"--top {options.top}: expected at least 1")
        results, text = (_ranking if options.pareto is None else _frontier)(options)
        if options.json:
            _write(options.json, results)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        print(f"pykernels plan: {error}", file=sys.stderr)
        return 1
    if options.json != "-":
        print(text)
    return 0


def _ranking(options: argparse.Namespace) -> tuple[list[Result], str]:
    from pykernels.cli.plan_text import ranking
    from pykernels.inference.plan import plan

    model, chip, chips = _asked(options)
    weights = options.weights or "bf16"
    results = plan(model, chip, chips, batch=options.batch, weights=weights, **_knobs(options))
    return results, ranking(results, options.top)


def _frontier(options: argparse.Namespace) -> tuple[list[Result], str]:
    from pykernels.cli.plan_text import frontier
    from pykernels.inference.plan import pareto

    model, chip, chips = _asked(options)
    counts = sorted({2**i for i in range(chips.bit_length())} | {chips}) if isinstance(chips, int) else chips
    results = pareto(model, chip, counts, weights=options.weights or ("bf16", "int8"), **_knobs(options))
    return results, frontier(results, options.pareto or None)


def _asked(options: argparse.Namespace) -> tuple[Model, Chip, int | Slice]:
    """The model, the chip, and how many of it or how they are connected."""
    from pykernels.inference.plan import Chip, Model, Slice

    path = Path(options.model)
    is_path = path.suffix == ".json" or path.exists()
    model = Model.from_config(path) if is_path else Model.named(options.model)
    chip = Chip.here() if options.chip == "here" else Chip.named(options.chip)
    if options.torus is None:
        if options.chips is None:
            raise ValueError("expected --chips N or --torus XxYxZ")
        if options.chips < 1:
            raise ValueError(f"--chips {options.chips}: expected at least 1")
        return model, _connected(chip, options.interconnect, options.chips), options.chips
    shape = options.torus.lower().split("x")
    if len(shape) != 3 or not all(size.isdecimal() and int(size) for size in shape):
        raise ValueError(f"--torus {options.torus}: expected three positive integers, as 4x4x4")
    x, y, z = map(int, shape)
    if options.chips not in (None, x * y * z):
        raise ValueError(f"--torus {options.torus} has {x * y * z} chips: expected {options.chips}, as --chips")
    chip = _connected(chip, options.interconnect, x * y * z)
    return model, chip, Slice.of(chip, (x, y, z), links=options.links)


def _connected(chip: Chip, gigabytes: float | None, chips: int) -> Chip:
    """The chip with a network of that bandwidth between all `chips`, or with its own links."""
    if gigabytes is None:
        return chip
    return replace(chip, interconnect=1e9 * gigabytes, reach=max(chip.reach, chips))


def _knobs(options: argparse.Namespace) -> dict[str, Any]:
    names = ("context", "phase", "new_tokens", "cached", "cache", "compute", "efficiency", "overlap", "links")
    return {name: getattr(options, name) for name in names}


def _write(target: str, results: Sequence[Result]) -> None:
    text = json.dumps([result.to_dict() for result in results], indent=2)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n")
