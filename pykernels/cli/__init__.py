"""The command line: ``pykernels info | list | check | bench | plan | conformations | screen``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pykernels.families import FAMILIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 0 for success."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        from pykernels.cli.info import info

        return info()
    if options.command == "list":
        from pykernels.cli.listing import listing

        return listing()
    if options.command == "check":
        from pykernels.cli.check import check

        return check(options.family, options.exhaustive)
    if options.command == "plan":
        from pykernels.cli.plan import plan

        return plan(options)
    if options.command in ("conformations", "screen"):
        from pykernels.cli import conformations

        return (conformations.screen if options.command == "screen" else conformations.conformations)(options)
    from pykernels.cli.bench import bench

    return bench(options.family, options.quick, options.json, options.report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pykernels", description="Kernels for NumPy arrays and torch tensors.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="versions, CPU, threads, GPU, and the machine's limits measured now")
    commands.add_parser("list", help="families, their functions, backends usable here, papers")
    check = commands.add_parser("check", help="compare every backend here with the reference; exit 1 on a mismatch")
    check.add_argument("--exhaustive", action="store_true", help="every input there is; takes many minutes")
    bench = commands.add_parser("bench", help="time the kernels beside their peers and the machine's limits")
    bench.add_argument("--quick", action="store_true", help="fewer cases; some twenty minutes on two cores")
    bench.add_argument("--json", type=Path, metavar="F", help="also write pytest-benchmark's JSON to the file F")
    bench.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        default=Path("pykernels-report"),
        help="folder of the HTML report, its plots and the JSON (default: %(default)s)",
    )
    for command in (check, bench):
        command.add_argument("family", nargs="?", choices=sorted(FAMILIES), help="default: all")
    from pykernels.cli import conformations, plan

    plan.add_command(commands)
    conformations.add_commands(commands)
    return parser
