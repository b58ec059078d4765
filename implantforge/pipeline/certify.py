"""From design to the metal that will be printed, and the numbers measured on it rather than asked for."""

from __future__ import annotations

from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Design, Field, GeometryError, Mesh
from implantforge.geom import measure, meshing
from implantforge.geom.inside import container
from implantforge.pipeline import porosity
from implantforge.stages import lattice
from implantforge.stages.lattice import SolvedLattice

Mask = NDArray[np.bool_]
POWDER_DIAMETER_MM = 0.25  # what must be able to leave: about four of the largest grains side by side
COARSE_MM = 1.37
STEP_MM = COARSE_MM / 7  # 0.196: no lattice cell of round size repeats on it
SAMPLES_PER_WALL = 7.0


def metal(design: Design, *, h_mm: float, simplify_mm: float) -> tuple[Mesh, dict[str, Any]]:
    """The part in implant-local mm as one closed body, and its certificate (plain numbers, unit in the name)."""
    solved = lattice.solve(design.lattice)
    field = lattice.fill(design, solved)
    mesh, trimmed = lattice.trim(meshing.polygonise(field, h_mm))
    if simplify_mm > 0:
        # merging facets may pinch off a sliver, so the loose pieces are looked for once more
        mesh, again = lattice.trim(measure.simplify(mesh, simplify_mm))
        trimmed = {key: again[key] if key == "kept_volume_mm3" else trimmed[key] + again[key] for key in trimmed}
    mesh = _apart(mesh)
    holds = container(mesh)
    made = Field(lambda p: np.where(holds(p), -1.0, 1.0), field.bounds, np.inf)
    found = certificate(design, made, solved, h_mm) | {f"trimmed_{key}": value for key, value in trimmed.items()}
    return mesh, found | {"porous": porosity.certified(design, made, solved, mesh)}


def _apart(mesh: Mesh) -> Mesh:
    """Vertices that would fall together in a file's float32, each drawn a little toward its own neighbours."""
    vertices = np.array(mesh.vertices)
    for _ in range(8):
        _, first, times = np.unique(vertices.round(3), axis=0, return_inverse=True, return_counts=True)
        twin = np.flatnonzero(times[first.ravel()] > 1)
        if not len(twin):
            break
        near = mesh.faces[np.isin(mesh.faces, twin).any(axis=1)]
        for vertex in twin:
            ring = np.setdiff1d(near[(near == vertex).any(axis=1)], [vertex])
            vertices[vertex] += 0.1 * (vertices[ring].mean(axis=0) - vertices[vertex])
    return Mesh(vertices, mesh.faces)


def certificate(design: Design, field: Field, solved: SolvedLattice, h_mm: float) -> dict[str, Any]:
    """What the lattice became, measured on `field` (negative in the metal of the finished mesh), beside the design.

    Porosity and trapped powder over the whole porous region, wall, pore and throat in its densest window.
    """
    void, pores, outside = _sampled(design, field, STEP_MM)
    if not pores.any():
        raise GeometryError("certificate: the design has no porous region")
    region = design.porous - design.solid
    seen = measure.certificate(field, region, solved.thin_mm / SAMPLES_PER_WALL)
    # what must be printable: the thickness of a sheet, the neck of a network
    wall_um = seen["lattice_neck_um" if solved.form == "network" else "lattice_wall_um"]
    return {
        "lattice_porosity_pct": 100.0 * float((void & pores).sum() / pores.sum()),
        "lattice_pore_size_um": seen["lattice_pore_size_um"],
        "lattice_wall_um": wall_um,
        "lattice_throat_um": seen["throat_um"],
        "lattice_wall_median_um": seen["lattice_wall_um"],
        "lattice_wall_p01_um": seen["lattice_wall_p01_um"],
        "lattice_open_void_pct": seen["open_void_pct"],
        "lattice_wall_designed_um": 1000.0 * (solved.thin_mm if solved.form == "network" else solved.wall_mm),
        "lattice_pore_size_designed_um": 1000.0 * solved.pore_mm,
        "lattice_porosity_designed_pct": 100.0 * solved.porosity,
        "lattice_samples_per_wall": solved.thin_mm / h_mm,
        "porous_volume_mm3": float(pores.sum()) * STEP_MM**3,
        "min_wall_mm": wall_um / 1000.0,
        "trapped_powder_mm3": trapped_mm3(void, outside, STEP_MM),
    }


def trapped_mm3(void: Mask, outside: Mask, step_mm: float) -> float:
    """Volume of the void that a cluster of grains fits into but cannot leave, from masks (i,j,k) step_mm apart."""
    room = edt.edt(np.ascontiguousarray(void), anisotropy=(step_mm,) * 3, black_border=False, parallel=1)
    seeds = room >= (POWDER_DIAMETER_MM + step_mm) / 2  # half a sample on the safe side
    share = measure.connectivity(seeds, outside & seeds, 0.0, step_mm)
    return (1.0 - share) * float(seeds.sum()) * step_mm**3


def _sampled(design: Design, field: Field, step_mm: float) -> tuple[Mask, Mask, Mask]:
    """Masks (i,j,k) of samples near the porous region: no metal there, porous region without core, outside the
    envelope. All three are False farther away."""
    near = _Near(design.porous, step_mm)
    points = near.points
    metal, region = field(points), design.porous(points)
    solid, envelope = design.solid(points), design.envelope(points)
    pores = near.grid((region < 0) & (solid > 0), False)
    return near.grid(metal > 0, False), pores, near.grid(envelope > 0.5 * step_mm, False)


class _Near:
    """Samples step_mm apart within about COARSE_MM of {region < 0}, found by a coarse look first."""

    def __init__(self, region: Field, step_mm: float) -> None:
        low, high = region.bounds
        axes = [np.arange(a - COARSE_MM, b + COARSE_MM, COARSE_MM) for a, b in zip(low, high)]
        corner = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        corner = corner[region(corner + COARSE_MM / 2) < COARSE_MM * 1.5 * region.lipschitz]
        if not len(corner):
            raise GeometryError("certificate: the design has no porous region")
        count = int(np.ceil(COARSE_MM / step_mm))
        block = np.indices((count, count, count)).reshape(3, -1).T
        first = np.rint((corner - corner.min(axis=0)) / COARSE_MM).astype(np.int64) * count
        self.index = (first[:, None] + block).reshape(-1, 3)
        # an offset that no lattice repeats keeps samples off its symmetry planes
        self.points = corner.min(axis=0) + (self.index + np.array([0.37, 0.61, 0.83])) * (COARSE_MM / count)
        self.points.setflags(write=False)
        self.shape = tuple(int(n) for n in self.index.max(axis=0) + 1)

    def grid(self, values: NDArray[np.bool_], elsewhere: bool) -> Mask:
        """Sample values as a mask (i,j,k)."""
        out = np.full(self.shape, elsewhere)
        out[tuple(self.index.T)] = values
        return out
