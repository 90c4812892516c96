"""``pykernels conformations`` and ``pykernels screen``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pykernels.cli.progress import Progress
from pykernels.cli.table import table

_INTERRUPTED = 130


def add_commands(commands: Any) -> None:
    """Add both commands to argparse's `commands`."""
    draw = commands.add_parser(
        "conformations",
        help="draw conformations of a protein-ligand complex",
        description="Draw conformations of a protein-ligand complex by the tiered tensor transform (3T).",
    )
    draw.add_argument("protein", type=Path, help="PDB or mmCIF")
    draw.add_argument("ligand", type=Path, help="SDF, MOL or MOL2, posed in the protein's pocket")
    draw.add_argument("--ligand-index", type=int, default=0, metavar="I", help="which molecule of the file, from 0")
    draw.add_argument("--out", type=Path, default=Path("poses.pdb"), metavar="F.pdb", help="default: %(default)s")
    draw.add_argument("--resume", action="store_true", help="go on with an interrupted run, or with a larger --n")
    draw.add_argument(
        "--forcefield",
        default="builtin",
        metavar="builtin|F.xml",
        help="built in (Vina's terms, MMFF94, restraints), or a serialized OpenMM System of exactly the files' atoms",
    )
    many = commands.add_parser(
        "screen",
        help="the same for many ligands in one pocket",
        description="Draw conformations of many ligands, each posed in the pocket of one protein.",
    )
    many.add_argument("protein", type=Path, help="PDB or mmCIF")
    many.add_argument("ligands", type=Path, nargs="+", help="SDF, MOL or MOL2, of one or more molecules each")
    many.add_argument("--out", type=Path, default=Path("screened"), metavar="DIR", help="default: %(default)s")
    many.add_argument("--workers", type=int, metavar="N", help="processes; default: one a core")
    for command in (draw, many):
        _add_options(command)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--n", type=int, default=50, help="conformations to draw (default: %(default)s)")
    command.add_argument(
        "--radius", type=float, default=20.0, help="angstrom around the ligand that move (%(default)s)"
    )
    command.add_argument("--centre", type=float, nargs=3, metavar=("X", "Y", "Z"), help="default: the ligand's mean")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--window", type=float, default=50.0, help="kcal/mol above the lowest to keep (%(default)s)")
    command.add_argument("--distance", type=float, default=0.5, help="least RMSD between those kept (%(default)s)")
    command.add_argument("--batch", type=int, default=8, help="conformations moved together (%(default)s)")
    from pykernels.tiered._constants import Schedule

    constants = command.add_argument_group("constants of the schedule")
    for field in fields(Schedule):
        kind = int if isinstance(field.default, int) else float
        flag = f"--{field.name.replace('_', '-')}"
        constants.add_argument(
            flag, type=kind, default=field.default, metavar=kind.__name__.upper(), help="%(default)s"
        )


def conformations(options: argparse.Namespace) -> int:
    """Run one complex; 1 if it cannot be, 130 after Ctrl-C."""

    def run(report: Any) -> None:
        from pykernels.tiered import generate

        ensemble = generate(
            options.protein,
            options.ligand,
            ligand_index=options.ligand_index,
            forcefield=options.forcefield,
            out=options.out,
            resume=options.resume,
            progress=report,
            **_chosen(options),
        )
        rows = [
            (model, i, f"{ensemble.total[i]:.2f}", f"{ensemble.ligand_rmsd[i]:.2f}", f"{ensemble.pocket_rmsd[i]:.2f}")
            for model, i in enumerate(ensemble.kept, 1)
        ]
        print(table(("model", "conformation", "kcal/mol", "ligand RMSD", "pocket RMSD"), rows))
        print(f"kept {len(rows)} of {len(ensemble)} conformations: {options.out}, and .sdf, .csv beside it")

    return _guarded("conformations", run, f"finished conformations are in {options.out}; --resume goes on")


def screen(options: argparse.Namespace) -> int:
    """Run many ligands; 1 if one of them failed, 130 after Ctrl-C."""
    failed: list[dict[str, Any]] = []

    def run(report: Any) -> None:
        from pykernels.tiered import screen as run_screen

        rows = run_screen(
            options.protein,
            options.ligands,
            out=options.out,
            workers=options.workers,
            progress=report,
            **_chosen(options),
        )
        failed.extend(row for row in rows if row["status"] != "done")
        for row in failed:
            print(f"FAILED {row['name']}: {row['message']}", file=sys.stderr)
        print(f"{len(rows) - len(failed)} of {len(rows)} ligands done: {options.out / 'screen.csv'}")

    status = _guarded("screen", run, f"finished ligands are in {options.out}; the same command goes on")
    return status or (1 if failed else 0)


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    from pykernels.tiered._constants import Schedule

    names = ("n", "radius", "centre", "seed", "window", "distance", "batch")
    schedule = Schedule(**{field.name: getattr(options, field.name) for field in fields(Schedule)})
    return {name: getattr(options, name) for name in names} | {"schedule": schedule}


def _guarded(label: str, run: Callable[[Any], None], after_interrupt: str) -> int:
    with Progress(label, 1) as progress:
        try:
            run(_Report(progress))
        except KeyboardInterrupt:
            progress.close()
            print(f"interrupted: {after_interrupt}", file=sys.stderr)
            return _INTERRUPTED
        except (ValueError, TypeError, NotImplementedError, OSError) as error:
            progress.close()
            print(f"pykernels {label}: {error}", file=sys.stderr)
            return 1
    return 0


class _Report:
    """Shows steps done, and the time that the rest takes at the pace so far."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.begin, self.first = progress, time.monotonic(), 0

    def __call__(self, done: int, total: int, note: str) -> None:
        if self.progress.total != total:
            self.begin, self.first = time.monotonic(), done
        if note.startswith("not written"):
            self.progress.close()
            print(note, file=sys.stderr)
        self.progress.done, self.progress.total = done, total
        made = done - self.first
        left = (time.monotonic() - self.begin) / made * (total - done) if made > 0 else 0.0
        self.progress.show(f"{note}, {_duration(left)} left" if left else note)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
