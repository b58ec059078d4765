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
STEPS_A_WALL, STEPS_A_NECK, STEPS_A_PORE = 9.0, 40.0, 14.0
MOST = {"wall": 190, "neck": 150, "pore": 110}  # samples along a cell or along a box


def sizes(solved: SolvedLattice) -> dict[str, float]:
    """wall_median_mm, pore_median_mm, neck_mm (largest sphere that passes through the solid, of networks) and porosity_pct,
    each at a step that it needs; measured to 0.3 steps of the walls and pores, 0.9 of the neck."""
    cell = solved.cell_mm
    endless = lattice.field(solved, np.array([[-SIDE * cell] * 3, [SIDE * cell] * 3]))
    stochastic = solved.kind in lattice.STOCHASTIC
    whole = cell * (STOCHASTIC_CELLS if stochastic else 1.0)
    out = {"porosity_pct": 100 * _porosity(endless, 4 * cell if stochastic else cell)}
    thick = solved.wall_mm if solved.form != "network" else min(1.6 * solved.wall_mm, 0.6 * cell)
    step = max(thick / STEPS_A_WALL, 0.15 * cell / MOST["wall"])
    out["wall_median_mm"] = _median(endless, min(whole, MOST["wall"] * step), step, 1, thick)
    step = max(solved.pore_mm / STEPS_A_PORE, whole / MOST["pore"])
    out["pore_median_mm"] = _median(endless, whole, step, -1, solved.pore_mm)
    if solved.form == "network" and not stochastic:
        out["neck_mm"] = neck_mm(solved)
    return out


def neck_mm(solved: SolvedLattice, most: int = MOST["neck"]) -> float:
    """Largest sphere that passes through the solid of a network, at most `most` samples along a cell; 0.9 steps."""
    cell = solved.cell_mm
    endless = lattice.field(solved, np.array([[-SIDE * cell] * 3, [SIDE * cell] * 3]))
    count = min(round(cell * STEPS_A_NECK / solved.wall_mm), most)
    shape = np.ceil(count * np.array([1.0, 1.5, 1.5])).astype(int)
    away = walls.distance(_samples(endless, np.zeros(3), cell / count, shape), cell / count, 1)
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
