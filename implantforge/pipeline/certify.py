"""From design to the metal that will be printed, and the numbers measured on it rather than asked for."""

from __future__ import annotations

from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Design, Field, GeometryError, Mesh
from implantforge.geom import measure, meshing
from implantforge.stages import lattice
from implantforge.stages.lattice import SolvedLattice

Mask = NDArray[np.bool_]
POWDER_DIAMETER_MM = 0.25  # what must be able to leave: about four of the largest grains side by side
STEP_MM = 0.15
CELLS_PROBED = 2.0
MAX_VOXELS = 60_000_000


def metal(design: Design, *, h_mm: float, simplify_mm: float) -> tuple[Mesh, dict[str, Any]]:
    """The part in implant-local mm as one closed body, and its certificate (plain numbers, unit in the name)."""
    solved = lattice.solve(design.lattice)
    field = lattice.fill(design, solved)
    mesh, trimmed = lattice.trim(meshing.polygonise(field, h_mm))
    if simplify_mm > 0:
        # merging facets may pinch off a sliver, so the loose pieces are looked for once more
        mesh, again = lattice.trim(measure.simplify(mesh, simplify_mm))
        trimmed = {key: again[key] if key == "kept_volume_mm3" else trimmed[key] + again[key] for key in trimmed}
    return mesh, certificate(design, field, solved, h_mm) | {f"trimmed_{key}": value for key, value in trimmed.items()}


def certificate(design: Design, field: Field, solved: SolvedLattice, h_mm: float) -> dict[str, Any]:
    """What the lattice is: solved numbers, porosity by sampling the metal, wall by distance transform, and the volume
    of pores whose powder cannot leave."""
    wall = wall_mm(solved)
    region = design.porous - design.solid
    pores = Field(region.evaluate, _tight(region), region.lipschitz)
    return {
        "lattice_porosity_pct": 100.0 * measure.porosity(field, pores, solved.cell_mm / 14.0),
        "lattice_cell_porosity_pct": 100.0 * solved.porosity,
        "lattice_pore_size_um": 1000.0 * solved.pore_mm,
        "lattice_throat_um": 1000.0 * solved.throat_mm,
        "lattice_wall_um": 1000.0 * solved.wall_mm,
        "lattice_wall_measured_um": 1000.0 * wall,
        "lattice_sampling_per_wall": solved.wall_mm / h_mm,
        "min_wall_mm": min(solved.wall_mm, wall),
        "trapped_powder_mm3": trapped_powder_mm3(design, field),
    }


def wall_mm(solved: SolvedLattice) -> float:
    """Wall of a sheet or neck of a network, measured on voxels of two cells of the lattice itself.

    A sheet's wall is its median local thickness; a network's neck the smallest local thickness of its struts.
    """
    span, step = CELLS_PROBED * solved.cell_mm, solved.wall_mm / 9.0
    count = int(np.clip(np.ceil(span / step), 24, 160))
    step = span / count
    points = (np.indices((count, count, count)).reshape(3, -1).T.astype(np.float64) + 0.37) * step
    field = lattice.field(solved, np.array([[0.0] * 3, [span] * 3]))
    mask = (field(points) < 0).reshape((count,) * 3)
    return float(measure.wall_percentiles(mask, step, (50.0 if solved.form == "sheet" else 1.0,))[0])


def trapped_powder_mm3(design: Design, field: Field) -> float:
    """Volume of places where a grain cluster of POWDER_DIAMETER_MM fits but from which it cannot reach the outside."""
    low, high = _tight(design.porous)
    shape = tuple(int(n) for n in np.ceil((high - low) / STEP_MM))
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise GeometryError(f"certificate: porous region of {(high - low).round(0).tolist()} mm is too large to search")
    void, outside = _sampled(design, field, low, shape)
    room = edt.edt(np.ascontiguousarray(void), anisotropy=(STEP_MM,) * 3, black_border=False, parallel=1)
    seeds = room >= POWDER_DIAMETER_MM / 2
    share = measure.connectivity(seeds, outside & seeds, 0.0, STEP_MM)
    return (1.0 - share) * float(seeds.sum()) * STEP_MM**3


def _tight(region: Field, step_mm: float = 1.0) -> Array:
    """Bounds (2,3) of {region < 0}, one step wider; narrower than the region's own when those are generous."""
    low, high = region.bounds
    axes = [np.arange(a, b + step_mm, step_mm) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[region(points) < step_mm]
    if not len(points):
        raise GeometryError("certificate: the design has no porous region")
    return np.array([points.min(axis=0) - step_mm, points.max(axis=0) + step_mm])


def _sampled(
    design: Design, field: Field, low: Array, shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (i,j,k): no metal there, and outside the envelope."""
    void, outside = np.empty(shape, bool), np.empty(shape, bool)
    plane = np.indices((shape[1], shape[2])).reshape(2, -1).T * STEP_MM
    for i in range(shape[0]):
        points = np.column_stack([np.full(len(plane), i * STEP_MM), plane]) + low
        void[i] = (field(points) > 0).reshape(shape[1:])
        outside[i] = (design.envelope(points) > STEP_MM).reshape(shape[1:])
    return void, outside
