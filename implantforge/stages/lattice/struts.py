"""Strut lattices: centre lines of one tile, and the distance to them on the nodes of that tile."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Voronoi, cKDTree

from implantforge.core import Array, GeometryError
from implantforge.kernels.struts import line_distance

STOCHASTIC_TILE = 4  # cells along a tile that has no cell of its own
CLOSEST = 0.8  # Poisson-disc seeds keep this far apart, in cells; 0.9 is the most that random placing reaches


def _joined(points: Array, length: float) -> Array:
    """Lines between points (n,3) this far apart."""
    pairs = [
        (a, b) for n, a in enumerate(points) for b in points[n + 1 :] if abs(np.linalg.norm(a - b) - length) < 1e-6
    ]
    return np.array([np.concatenate(pair) for pair in pairs])


def _every(sizes: tuple[float, float, float]) -> Array:
    """All points whose coordinates are +-sizes in any order."""
    orders = {tuple(np.roll(sizes, n)) for n in range(3)} | {tuple(np.roll(sizes[::-1], n)) for n in range(3)}
    signed = {tuple(np.multiply(o, s)) for o in orders for s in product((-1, 1), repeat=3)}
    return np.array(sorted({tuple(float(x) + 0.0 for x in point) for point in signed}))


FACES = np.array([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])


def _cubic(seed: int) -> Array:
    return np.hstack([np.zeros((3, 3)), np.eye(3)])


def _bcc(seed: int) -> Array:
    return np.hstack([np.full((8, 3), 0.5), np.array(list(product((0.0, 1.0), repeat=3)))])


def _fcc(seed: int) -> Array:
    corners = np.array(list(product((0.0, 1.0), repeat=3)))
    return np.array([(*f, *c) for f in FACES[1:] for c in corners if np.linalg.norm(f - c) < 0.75])


def _octet(seed: int) -> Array:
    inner = np.array([(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0.5, 0.5, 1), (0.5, 1, 0.5), (1, 0.5, 0.5)])
    return np.vstack([_fcc(seed), _joined(inner, np.sqrt(0.5))])


def _diamond(seed: int) -> Array:
    ways = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / 4
    return np.array([(*(f + 0.25), *(f + 0.25 - w)) for f in FACES for w in ways])


def _rhombic(seed: int) -> Array:
    outer = np.vstack([_every((0.5, 0, 0)), _every((0.25, 0.25, 0.25))])
    lines = _joined(outer, np.sqrt(3) / 4)
    return np.vstack([lines + np.tile(f, 2) for f in FACES])


def _kelvin(seed: int) -> Array:
    lines = _joined(_every((0, 0.25, 0.5)), np.sqrt(2) / 4)
    return np.vstack([lines, lines + 0.5])


def _voronoi(seed: int) -> Array:
    """Edges of the Voronoi cells of periodic Poisson-disc seeds, one a cell; four edges meet at every joint."""
    side = STOCHASTIC_TILE
    seeds = poisson_disc(side, CLOSEST, side**3, seed)
    shifts = np.array(list(product((-side, 0, side), repeat=3)))
    found = Voronoi((seeds[:, None] + shifts).reshape(-1, 3))
    pairs = {tuple(sorted(p)) for ring in found.ridge_vertices if -1 not in ring
             for p in zip(ring, ring[1:] + ring[:1])}  # fmt: skip
    ends = found.vertices[np.array(sorted(pairs))]
    middle = ends.mean(axis=1)
    ends = ends[((middle >= -1e-9) & (middle < side - 1e-9)).all(axis=1)]
    return ends.reshape(-1, 6)


def poisson_disc(side: float, apart: float, count: int, seed: int) -> Array:
    """count points (n,3) in a periodic cube, no two nearer than apart; the same for the same seed."""
    rng = np.random.default_rng(seed)
    points: list[Array] = []
    for _ in range(400 * count):
        new = rng.uniform(0, side, 3)
        gap = np.array(points).reshape(-1, 3) - new
        gap -= side * np.round(gap / side)
        if not len(gap) or (gap**2).sum(axis=1).min() >= apart**2:
            points.append(new)
            if len(points) == count:
                return np.array(points)
    raise GeometryError(f"lattice: {count} seeds {apart} cells apart do not fit a tile of {side}")


# kind: its centre lines by seed, cells along the tile, nodes along a cell
STRUTS: dict[str, tuple[Callable[[int], Array], int, int]] = {
    "cubic": (_cubic, 1, 96),
    "bcc": (_bcc, 1, 96),
    "fcc": (_fcc, 1, 96),
    "octet": (_octet, 1, 96),
    "diamond": (_diamond, 1, 96),
    "rhombic": (_rhombic, 1, 96),
    "kelvin": (_kelvin, 1, 96),
    "voronoi": (_voronoi, STOCHASTIC_TILE, 36),
}


@lru_cache(maxsize=16)
def lines(kind: str, seed: int) -> Array:
    """Centre lines (n,6) of one tile, in cells: each line once, its middle inside the tile."""
    make, side, _ = STRUTS[kind]
    found = make(seed).reshape(-1, 2, 3)
    middle = found.mean(axis=1)
    found = found - (np.floor(middle / side + 1e-9) * side)[:, None]
    order = np.lexsort(found.sum(axis=1).round(6).T)
    found = found[order]
    same = np.linalg.norm(found.reshape(-1, 2, 3).mean(axis=1)[:, None] - found.mean(axis=1)[None], axis=2) < 1e-6
    along = np.abs(np.einsum("nk,mk->nm", *[_unit(found[:, 1] - found[:, 0])] * 2)) > 1 - 1e-6
    first = np.argmax(same & along, axis=1) == np.arange(len(found))
    out: Array = np.ascontiguousarray(found[first].reshape(-1, 6))
    return out


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def around(found: Array, side: float, reach: float) -> Array:
    """Lines (n,6) and their copies in the neighbouring tiles that come within reach of the tile."""
    shifts = np.array(list(product((-side, 0.0, side), repeat=3)))
    ends = (found.reshape(-1, 1, 2, 3) + shifts[:, None]).reshape(-1, 2, 3)
    near = (ends.max(axis=1) > -reach) & (ends.min(axis=1) < side + reach)
    return np.ascontiguousarray(ends[near.all(axis=1)].reshape(-1, 6))


@lru_cache(maxsize=6)
def table(kind: str, seed: int) -> NDArray[np.float32]:
    """Distance (cells) to the centre lines at the nodes of one tile, both ends of each axis included."""
    _, side, nodes = STRUTS[kind]
    found = lines(kind, seed)
    rough = np.empty((12 * side,) * 3)
    line_distance(around(found, side, 1.0), 1 / 12, 1.0, rough)
    reach = float(rough.max()) + 0.1
    fine = np.empty((nodes * side,) * 3)
    line_distance(around(found, side, reach), 1 / nodes, reach, fine)
    out = np.pad(fine, ((0, 1),) * 3, mode="wrap").astype(np.float32)
    out.setflags(write=False)
    return out


def valence(kind: str, seed: int) -> NDArray[np.int64]:
    """How many struts meet at each joint of a tile."""
    side = STRUTS[kind][1]
    ends = lines(kind, seed).reshape(-1, 3) % side
    ends[ends > side - 1e-6] = 0
    joints = cKDTree(ends, boxsize=side).query_ball_point(ends, 1e-5)
    first = [min(row) for row in joints]
    return np.array([len(joints[n]) for n in sorted(set(first))])


@lru_cache(maxsize=16)
def shares(kind: str, form: str, seed: int) -> Array:
    """Sorted distance (cells) to the centre lines over one tile, read between the nodes as the mesher does."""
    grid = table(kind, seed)[:-1, :-1, :-1].astype(np.float64)
    for axis, part in enumerate((0.37, 0.21, 0.68)):
        grid = (1 - part) * grid + part * np.roll(grid, -1, axis)
    return np.sort(grid, axis=None)


def sides(kind: str, form: str, seed: int, level: float, fine: bool = False) -> tuple[NDArray, NDArray, float]:
    """No metal, and the depth in the void round struts of no thickness, at every second node of a tile (fine: every); its
    step."""
    _, _, nodes = STRUTS[kind]
    every = 1 if fine else 2
    depth = table(kind, seed)[:-1:every, :-1:every, :-1:every].astype(np.float64)
    return -depth, depth, every / nodes
