"""What an interrupted run leaves, and the check that it is this run that goes on."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ._complex import Complex
from ._constants import Schedule
from ._ensemble import in_place

Array = np.ndarray[Any, Any]
_SAME_ENERGY = 1e-6


class State:
    """The finished conformations of a run, in memory and in the file `path` if that is not None."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.arrays: dict[str, Array] = {}

    @property
    def done(self) -> int:
        """How many conformations are finished."""
        return len(self.arrays.get("positions", ()))

    @property
    def terms(self) -> dict[str, Array]:
        return {name.removeprefix("term_"): value for name, value in self.arrays.items() if name.startswith("term_")}

    def load(self) -> None:
        """Take over what the file holds, if it is there; ValueError if it is of another run, naming what differs."""
        if self.path is None or not self.path.exists():
            return
        try:
            with np.load(self.path) as file:
                arrays = {name: file[name] for name in file.files}
            saved = json.loads(str(arrays.pop("settings")))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} cannot be resumed ({error}): remove it to start anew") from error
        wanted = json.loads(json.dumps(self.settings))
        differing = [name for name in wanted if not _same(saved.get(name), wanted[name])]
        if differing:
            changes = "; ".join(f"{name} was {saved.get(name)}, is {wanted[name]}" for name in differing)
            raise ValueError(f"{self.path} is of another run: {changes}; use the same, or start anew with another out")
        self.arrays = arrays

    def add(self, **arrays: Array) -> None:
        """Append the rows of newly finished conformations, and save."""
        for name, rows in arrays.items():
            known = self.arrays.get(name)
            self.arrays[name] = rows if known is None else np.concatenate([known, rows])
        self.save()

    def save(self) -> None:
        path = self.path
        if path is not None:
            in_place(path, self._write)

    def _write(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, settings=np.array(json.dumps(self.settings)), **self.arrays)  # type: ignore[arg-type]


def settings_of(
    complex: Complex,
    energy_name: str,
    energy: float,
    radius: float,
    centre: Any,
    seed: int,
    dtype: Any,
    schedule: Schedule,
) -> dict[str, Any]:
    """What conformations depend on, for the comparison of runs."""
    return {
        "protein": _digest(complex, slice(0, complex.n_protein)),
        "ligand": _digest(complex, slice(complex.n_protein, None)),
        "forcefield": energy_name,
        "energy of the input": energy,
        "radius": float(radius),
        "centre": None if centre is None else [float(each) for each in centre],
        "seed": int(seed),
        "dtype": np.dtype(dtype).name,
        **{name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(schedule).items()},
    }


def _digest(complex: Complex, part: slice) -> str:
    text = json.dumps([complex.element[part], complex.atom_name[part], complex.residue_name[part]])
    inside = np.isin(complex.bonds, np.arange(len(complex.positions))[part]).all(1)
    parts = (text.encode(), complex.positions[part].tobytes(), complex.bonds[inside].tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _same(saved: Any, wanted: Any) -> bool:
    if isinstance(saved, float) and isinstance(wanted, float):
        return bool(np.isclose(saved, wanted, rtol=_SAME_ENERGY, atol=0))
    return bool(saved == wanted)
