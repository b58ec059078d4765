"""The certificate of a part's porous region: the finished mesh in a window, and the lattice's repeating cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from implantforge.core import Array, Design, Field, GeometryError, Mesh
from implantforge.core.field import Form
from implantforge.geom import measure
from implantforge.stages import lattice, porous
from implantforge.stages.lattice import SolvedLattice

WINDOW_CELLS, WINDOW_SAMPLES = 3.0, 112  # a finer look at a smaller window would not hold whole pores
SAMPLES_PER_WALL = 8.0
CELL_SAMPLES = 48
TILE_SAMPLES = 96  # of a stochastic lattice, four cells along a side
BAND_STEPS = 3.0  # farther off, the distance is found from where the mesh crosses the grid


def certified(design: Design, made: Field, solved: SolvedLattice, mesh: Mesh | None = None) -> dict[str, Any]:
    """porous.Certificate as plain JSON, `coating` (21 CFR 888.3358, information) and how it was sampled; `refused` with the
    reason where it cannot be read. made is negative in the metal; of a finished mesh it is the sign alone, and distances are
    read from mesh."""
    region = design.porous - design.solid
    try:
        low, side = _window(region, WINDOW_CELLS * solved.cell_mm)
        step = max(side / WINDOW_SAMPLES, solved.thin_mm / SAMPLES_PER_WALL)
        points, shape = _points(low, side, step)
        asked = region(points).astype(np.float32).reshape(shape)
        metal = made(points).astype(np.float32).reshape(shape)
        if mesh is not None:
            metal = np.copysign(measure.near_samples(mesh, points[0], step, shape, BAND_STEPS * step), metal)
        unit = cell(solved)
        found = porous.certificate(metal, step, region=asked, cell=unit)
        coating = porous.coating_definition(found.values)
    except GeometryError as error:
        return {"refused": str(error)}
    sampled = {"window_mm": side, "step_mm": step, "cell_mm": solved.cell_mm, "cell_samples": len(unit.share)}
    return found.as_dict() | {"coating": coating, "sampled": sampled}


def cell(solved: SolvedLattice, samples: int | None = None) -> porous.UnitCell:
    """The cube after which a lattice repeats; a stochastic one is a tile of several cells, sampled finer as a whole."""
    reach = 8.0 * solved.cell_mm
    endless = lattice.field(solved, np.array([[-reach] * 3, [reach] * 3]))
    side = _period(endless.form) or solved.cell_mm
    samples = samples or (CELL_SAMPLES if side < 1.5 * solved.cell_mm else TILE_SAMPLES)
    return porous.unit_cell(endless, np.zeros(3), side, samples)


def _period(form: Form | None) -> float | None:
    """Length after which a form repeats, mm."""
    if form is None or form.step == "periodic":
        return float(form.numbers[0]) if form else None
    return next((found for part in form.parts if (found := _period(part))), None)


def _window(region: Field, side_mm: float) -> tuple[Array, float]:
    """Lower corner and side of the cube, not longer than side_mm, that holds most of the region."""
    low, high = region.bounds
    step = max(side_mm / 6, float(np.cbrt(np.prod(high - low) / 1e5)))
    axes = [np.arange(a + step / 2, b + step / 2, step) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    held = points[region(points) < 0]
    if not len(held):
        raise GeometryError(f"certificate: the porous region holds no point {step:.2f} mm apart")
    near = held[:: max(1, len(held) // 400)]
    count = [int((np.abs(held - p) < side_mm / 2).all(axis=1).sum()) for p in near]
    return near[int(np.argmax(count))] - side_mm / 2, side_mm


def _points(low: Array, side: float, step: float) -> tuple[Array, tuple[int, int, int]]:
    """Voxel centres of a cube."""
    axis = np.arange(0.5 * step, side, step)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3) + low, (len(axis), len(axis), len(axis))
