"""A solved lattice put to the ruler: walls, necks, pores and porosity of the endless field, in its own cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field
from implantforge.stages import lattice
from implantforge.stages.lattice import SolvedLattice
from implantforge.stages.porous import passages, walls

SIDE = 4.0  # cells of a field that are asked for
STOCHASTIC_CELLS = 4.0
STEPS_A_WALL, STEPS_A_NECK, STEPS_A_PORE = 9.0, 40.0, 22.0
MOST = {"wall": 190, "neck": 150, "pore": 110}  # samples along a cell or along a box


def sizes(solved: SolvedLattice) -> dict[str, float]:
    """wall_median_mm, pore_median_mm, neck_mm (largest sphere that passes through the solid, of networks) and porosity_pct,
    each at a step that it needs; measured to 0.3 steps of the walls and pores, 0.9 of the neck."""
    share = _porosity(endless(solved), tile_mm(solved) if _stochastic(solved) else solved.cell_mm)
    out = {"porosity_pct": 100 * share, "wall_median_mm": wall_mm(solved), "pore_median_mm": pore_mm(solved)}
    if solved.form == "network" and not _stochastic(solved):
        out["neck_mm"] = neck_mm(solved)
    return out


def endless(solved: SolvedLattice) -> Field:
    """The lattice about the origin, far enough for any ruler here."""
    return lattice.field(solved, np.array([[-SIDE * solved.cell_mm] * 3, [SIDE * solved.cell_mm] * 3]))


def tile_mm(solved: SolvedLattice) -> float:
    """After which it repeats."""
    return solved.cell_mm * (STOCHASTIC_CELLS if _stochastic(solved) else 1.0)


def _stochastic(solved: SolvedLattice) -> bool:
    return solved.kind in lattice.STOCHASTIC


def wall_mm(solved: SolvedLattice) -> float:
    """Median local thickness of the metal."""
    whole, step = tile_mm(solved), max(solved.wall_mm / STEPS_A_WALL, 0.15 * solved.cell_mm / MOST["wall"])
    if solved.form == "network":  # of thick and thin places: the whole cell counts
        step = max(solved.wall_mm / STEPS_A_PORE, whole / MOST["pore"])
    elif solved.form == "strut":  # so do the joints of thick struts
        step = min(step, solved.cell_mm / 96, whole / 120 if _stochastic(solved) else np.inf)
    return _median(endless(solved), min(whole, MOST["wall"] * step), step, 1, 1.2 * solved.wall_mm)


def pore_mm(solved: SolvedLattice) -> float:
    """Median local thickness of the void; pores of several sizes need more steps than one size does."""
    whole = tile_mm(solved)
    step = max(solved.pore_mm / STEPS_A_PORE, whole / MOST["pore"])
    return _median(endless(solved), whole, step, -1, solved.pore_mm)


def neck_mm(solved: SolvedLattice, most: int = MOST["neck"]) -> float:
    """Largest sphere that passes through the solid of a network, at most `most` samples along a cell; 0.9 steps."""
    cell = solved.cell_mm
    count = min(round(cell * STEPS_A_NECK / solved.thin_mm), most)
    shape = np.ceil(count * np.array([1.0, 1.5, 1.5])).astype(int)
    away = walls.distance(_samples(endless(solved), np.zeros(3), cell / count, shape), cell / count, 1)
    return float(passages.throats(away, 1)[0]) * cell / count


def _samples(field: Field, low: Array, step: float, shape: Array) -> NDArray[np.float32]:
    axes = [low[a] + step * np.arange(shape[a]) for a in range(3)]
    out = np.empty(tuple(shape), np.float32)
    for i, x in enumerate(axes[0]):
        y, z = np.meshgrid(axes[1], axes[2], indexing="ij")
        out[i] = field(np.stack([np.full(y.size, x), y.ravel(), z.ravel()], axis=1)).reshape(y.shape)
    return out


def _median(field: Field, side: float, step: float, sign: int, widest: float) -> float:
    """Median local thickness of one side over a box, with what lies about it seen."""
    edge = int(np.ceil(0.75 * widest / step)) + 3
    inner = max(round(side / step), 8)
    low = np.full(3, 0.137 * step - edge * step)
    values = _samples(field, low, step, np.full(3, inner + 2 * edge))
    size = walls.thickness(walls.distance(values, step), sign)[(slice(edge, -edge),) * 3]
    return float(step * np.median(size[size > 0]))


def _porosity(field: Field, side: float) -> float:
    """By points that share no rhythm with the cell."""
    points = np.random.default_rng(4).uniform(0, side, (400_000, 3))
    return float(np.mean(field(points) > 0))
