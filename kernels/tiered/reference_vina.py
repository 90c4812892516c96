"""AutoDock Vina's terms (Trott, Olson 2010, doi:10.1002/jcc.21334, table 1) in NumPy float64, all pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Vina
from .reference_geometry import interacting

Array = np.ndarray[Any, Any]


def vina(x: Array, terms: Vina, everywhere: bool, g: Array) -> float:
    """The energy at `x` (N, 3); dE/dx is added to `g`, unless `everywhere` of atoms in movable places only."""
    i, j, v, r = interacting(x, terms)
    apart = ~(r < terms.cutoff) & ~np.isnan(r)
    i, j, v, r = i[~apart], j[~apart], v[~apart], r[~apart]
    radius, hydrophobic, donor, acceptor = (
        np.asarray(each, np.float64) for each in (terms.radius, terms.hydrophobic, terms.donor, terms.acceptor)
    )
    greasy = hydrophobic[i] * hydrophobic[j]
    bonding = np.maximum(donor[i] * acceptor[j], acceptor[i] * donor[j])

    d = r - radius[i] - radius[j]
    near, far, overlap = np.exp(-((d / 0.5) ** 2)), np.exp(-(((d - 3) / 2) ** 2)), np.minimum(d, 0)
    values = [near, far, overlap**2, greasy * np.clip(1.5 - d, 0, 1), bonding * np.clip(-d / 0.7, 0, 1)]
    slopes = [
        -8 * d * near,
        -(d - 3) / 2 * far,
        2 * overlap,
        -greasy * ((d > 0.5) & (d < 1.5)),
        -bonding * ((d > -0.7) & (d < 0)) / 0.7,
    ]
    weights = terms.weights.astype(np.float64)
    force = (weights @ np.array(slopes).reshape(5, -1) / r)[:, None] * v
    ours = i < len(terms.atoms) if everywhere else i < terms.movable
    np.add.at(g, terms.atoms[i[ours]], force[ours])
    return float(np.sum(weights @ np.array(values).reshape(5, -1))) / 2
