"""Triply periodic surfaces: shares, sizes and tables of one cell, all in cells."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from implantforge.core import Array
from implantforge.kernels.tpms import tpms_distance, tpms_level
from implantforge.stages.lattice.rooms import passing, points

# Row number is the kernel's `kind`.
SURFACES = ("gyroid", "diamond", "primitive", "iwp", "neovius", "frd", "lidinoid", "splitp")
# By row: cells beyond the surface where distances are cut off, as farther out the walk may miss the nearest sheet; cells
# that hold half of the thickest sheet and are near enough for the walk not to stray; steps of the walk.
LIMIT = (0.08, 0.08, 0.08, 0.08, 0.02, 0.02, 0.02, 0.02)
SHEET_REACH = (0.14, 0.14, 0.14, 0.14, 0.075, 0.075, 0.075, 0.075)
STEPS = (3, 3, 3, 3, 6, 6, 6, 6)
NODES = (64, 64, 64, 64, 64, 96, 96, 96)  # the mesher reads distances off these, linearly: within 0.0003 cell
SAMPLES = 96  # porosity is read off this many samples along a cell
PROBE = 48  # spheres are looked for at this many points along a cell


@lru_cache(maxsize=16)
def shares(kind: str, form: str, seed: int) -> Array:
    """Sorted f (network) or |distance| (sheet, cells) over one cell; shifted off the symmetry planes."""
    at = points(SAMPLES, 1, (0.37, 0.21, 0.68))
    out = np.empty(len(at))
    row = SURFACES.index(kind)
    if form == "network":
        tpms_level(row, 1.0, at, out)
        return np.sort(out)
    tpms_distance(row, 1.0, 0.0, SHEET_REACH[row], STEPS[row], at, out)
    return np.sort(np.abs(out))


def sides(kind: str, form: str, seed: int, level: float) -> tuple[NDArray, NDArray, float]:
    """Depth in {f < level} and in {f > level} at the probe points of a cell, and their step."""
    return _side(kind, level, -1), _side(kind, level, 1), 1.0 / PROBE


@lru_cache(maxsize=24)
def _side(kind: str, level: float, sign: int) -> NDArray:
    at, f = _probe(kind)
    inside = sign * (f - level) > 0
    depth = np.zeros(len(at))
    if inside.any() and not inside.all():
        depth[inside] = cKDTree(_surface_points(kind, level)).query(at[inside], workers=1)[0]
    return depth.reshape((PROBE,) * 3)


def neck(kind: str, form: str, seed: int, level: float) -> float:
    """Largest sphere that passes through {f < level}."""
    return 2 * passing(_side(kind, level, -1))


@lru_cache(maxsize=8)
def _probe(kind: str) -> tuple[Array, Array]:
    """f at the probe points of a cell and those points."""
    at = points(PROBE)
    out = np.empty(len(at))
    tpms_level(SURFACES.index(kind), 1.0, at, out)
    return at, out


def _surface_points(kind: str, level: float) -> Array:
    """Points on f = level over a cell and half a cell around it, about 1/40 cell apart."""
    n = 40
    at = points(n, 1, (0.31, 0.17, 0.73))
    d = np.empty(len(at))
    row = SURFACES.index(kind)
    tpms_distance(row, 1.0, level, 0.05, STEPS[row], at, d)
    near = np.abs(d) < 0.7 / n
    base = at[near]
    foot = base.copy()
    eps = 1e-5
    value, ahead = np.empty(len(base)), np.empty(len(base))
    for _ in range(4):
        tpms_level(row, 1.0, foot, value)
        slope = np.empty_like(foot)
        for a in range(3):
            shifted = foot.copy()
            shifted[:, a] += eps
            tpms_level(row, 1.0, shifted, ahead)
            slope[:, a] = (ahead - value) / eps
        foot = foot - ((value - level) / (slope**2).sum(axis=1))[:, None] * slope
    shifts = np.indices((3, 3, 3)).reshape(3, -1).T - 1.0
    tiled = (foot[:, None] + shifts).reshape(-1, 3)
    return tiled[((tiled > -0.5) & (tiled < 1.5)).all(axis=1)]


@lru_cache(maxsize=4)
def table(kind: str, form: str, seed: int, level: float, reach: float) -> NDArray[np.float32]:
    """Signed cells to the surface f = level, at most reach, at the nodes of one cell, both ends included: what the mesher
    reads instead of walking."""
    row = SURFACES.index(kind)
    nodes = NODES[row]
    out = np.empty(nodes**3)
    tpms_distance(row, 1.0, level, reach, STEPS[row], points(nodes), out)
    found = np.pad(out.reshape((nodes,) * 3), ((0, 1),) * 3, mode="wrap").astype(np.float32)
    found.setflags(write=False)
    return found
