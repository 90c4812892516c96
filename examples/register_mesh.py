"""Non-rigid registration of a mesh with the tiered transform: a straight hand finds the scan of a bent one.

The tiers are those of the thing itself: single vertices, the bones of fingers (groups) and whole fingers
(macro-groups); the palm is fixed. The energy knows nothing of them: squared distances to nearest
neighbours, both ways, and springs along the mesh's edges. The scan is noisy and comes without
correspondences; the true position of every vertex is used only to say how far off the result is.

    python examples/register_mesh.py
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pykernels.search import knn
from pykernels.tiered import Descent, Tiers

Array = np.ndarray[Any, Any]

FINGERS, BONES, RINGS, AROUND = 5, 3, 5, 8
SPACING, BONE_LENGTH, RADIUS = 0.9, 1.0, 0.3
STIFFNESS = 10.0


class Hand(NamedTuple):
    vertices: Array  # (N, 3), the vertices of the fingers, then of the palm
    edges: Array  # (n, 2)
    tiers: Tiers


def hand(bend: Array, spread: Array) -> Hand:
    """A hand whose fingers are bent by `bend` (5, 3) at their joints and spread by `spread` (5,), in radian."""
    angles = 2 * np.pi * np.arange(AROUND) / AROUND
    ring = np.stack([RADIUS * np.cos(angles), np.zeros(AROUND), 0.6 * RADIUS * np.sin(angles)], 1)
    thickness = np.append(np.linspace(1, 0.7, BONES * RINGS - 1), 0.3).reshape(BONES, RINGS)
    vertices = []
    for finger in range(FINGERS):
        joint = np.array([SPACING * finger, 0.0, 0.0])
        frame = _about_z(spread[finger])
        for bone in range(BONES):
            frame = frame @ _about_x(bend[finger, bone])
            for number in range(RINGS):
                along = np.array([0, (number + 0.5) / RINGS * BONE_LENGTH, 0])
                vertices.append((thickness[bone, number] * ring + along) @ frame.T + joint)
            joint = joint + BONE_LENGTH * frame[:, 1]
    across, down = np.meshgrid(np.linspace(-0.3, SPACING * (FINGERS - 1) + 0.3, 20), np.linspace(-3, -0.2, 12))
    palm = np.stack([across.ravel(), down.ravel(), np.zeros(across.size)], 1)
    moving = FINGERS * BONES * RINGS * AROUND
    number = np.arange(moving).reshape(FINGERS, BONES * RINGS, AROUND)
    rounds = np.stack([number, np.roll(number, 1, 2)], -1).reshape(-1, 2)
    lengths = np.stack([number[:, 1:], number[:, :-1]], -1).reshape(-1, 2)
    diagonals = np.stack([number[:, 1:], np.roll(number, 1, 2)[:, :-1]], -1).reshape(-1, 2)
    tiers = Tiers(
        moving + len(palm),
        group_ptr=np.arange(FINGERS * BONES + 1) * RINGS * AROUND,
        group_atoms=np.arange(moving),
        macro_of_group=np.repeat(np.arange(FINGERS), BONES),
        fixed_atoms=moving + np.arange(len(palm)),
    )
    return Hand(np.concatenate([*vertices, palm]), np.concatenate([rounds, lengths, diagonals]), tiers)


def energy_towards(scan: Array, mesh: Hand) -> Any:
    """The energy of vertices (B, N, 3), and its gradient."""
    first, second = mesh.edges.T
    rest = np.linalg.norm(mesh.vertices[first] - mesh.vertices[second], axis=1)

    def energy(vertices: Array) -> tuple[dict[str, Array], Array]:
        gradient = np.zeros_like(vertices)
        fit, stretch = np.zeros(len(vertices)), np.zeros(len(vertices))
        for b, x in enumerate(vertices):
            to_scan, to_mesh = _nearest(x, scan), _nearest(scan, x)
            there, back = x - scan[to_scan], x[to_mesh] - scan
            along = x[first] - x[second]
            length = np.linalg.norm(along, axis=1)
            pull = (2 * STIFFNESS * (length - rest) / length)[:, None] * along
            gradient[b] = 2 * there
            np.add.at(gradient[b], to_mesh, 2 * back)
            np.add.at(gradient[b], first, pull)
            np.add.at(gradient[b], second, -pull)
            fit[b] = np.sum(there**2) + np.sum(back**2)
            stretch[b] = STIFFNESS * np.sum((length - rest) ** 2)
        return {"fit": fit, "stretch": stretch}, gradient

    return energy


def register(seed: int = 0, steps: int = 120) -> tuple[float, float]:
    """Root mean square distances of the vertices from where they belong, before and after."""
    rng = np.random.default_rng(seed)
    mesh = hand(np.zeros((FINGERS, BONES)), np.zeros(FINGERS))
    bent = hand(rng.uniform(0.1, 0.35, (FINGERS, BONES)), np.linspace(0.15, -0.15, FINGERS))
    scan = rng.permutation(bent.vertices + rng.normal(0, 0.01, bent.vertices.shape))
    descent = Descent(mesh.tiers, energy_towards(scan, mesh), mesh.vertices[None], pivot="macro")
    rates = 0.02 * (1 - np.arange(steps) / steps)
    descent.run(steps, rates, macro_rate=2 * rates)
    return tuple(
        float(np.sqrt(np.mean(np.sum((x - bent.vertices) ** 2, 1))))  # type: ignore[return-value]
        for x in (mesh.vertices, descent.coordinates()[0])
    )


def _nearest(queries: Array, points: Array) -> Array:
    numbers: Array = knn(queries.astype(np.float32), points.astype(np.float32), 1, metric="l2")[1][:, 0]
    return numbers


def _about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def _about_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


if __name__ == "__main__":
    before, after = register()
    print(f"root mean square distance: {before:.3f} before, {after:.3f} after; a finger is {BONES * BONE_LENGTH} long")
