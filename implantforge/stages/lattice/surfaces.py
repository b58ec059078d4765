"""Triply periodic surfaces: shares, sizes and tables of one cell, all in cells."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array
from implantforge.kernels.tpms import tpms_distance, tpms_level
from implantforge.stages.lattice.rooms import depths, passing, points

# Row number is the kernel's `kind`.
SURFACES = ("gyroid", "diamond", "primitive", "iwp", "neovius", "frd", "lidinoid", "splitp")
# By row: cells beyond the surface where distances are cut off, as farther out the walk may miss the nearest sheet; cells
# that hold half of the thickest sheet and are near enough for the walk not to stray; steps of the walk.
LIMIT = (0.08, 0.08, 0.08, 0.08, 0.02, 0.02, 0.02, 0.02)
SHEET_REACH = (0.14, 0.14, 0.14, 0.14, 0.075, 0.075, 0.075, 0.075)
STEPS = (3, 3, 3, 3, 6, 6, 6, 6)
NODES = (64, 64, 64, 64, 64, 96, 96, 96)  # the mesher reads distances off these, linearly: within 0.0003 cell
SAMPLES = 96  # porosity is read off this many samples along a cell
PROBE = (64, 64, 64, 64, 64, 96, 96, 96)  # spheres are looked for at this many points along a cell
NODES_A_NECK, FINE, FINEST = 14, 112, 144


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


def sides(kind: str, form: str, seed: int, level: float, fine: bool = False) -> tuple[NDArray, NDArray, float]:
    """Depth (cells) in {f < level} and in {f > level}, each negative in the other, at the nodes of a cell, and their
    step."""
    low = _depths(kind, level, FINE if fine else PROBE[SURFACES.index(kind)])
    return low, -low, 1.0 / len(low)


@lru_cache(maxsize=12)
def _depths(kind: str, level: float, nodes: int) -> NDArray:
    f = np.empty(nodes**3)
    tpms_level(SURFACES.index(kind), 1.0, points(nodes), f)
    return depths(f.reshape((nodes,) * 3), level) / nodes


def neck(kind: str, form: str, seed: int, level: float) -> float:
    """Largest sphere that passes through {f < level}; thin ones are looked at on finer nodes."""
    nodes = PROBE[SURFACES.index(kind)]
    found = 2 * passing(_depths(kind, level, nodes))
    if found * nodes < NODES_A_NECK:
        found = 2 * passing(_depths(kind, level, FINEST))
    return found


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
