"""Lattices as endless fields, and meshes without loose pieces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field, GeometryError, Mesh
from implantforge.core.field import Form
from implantforge.geom import measure
from implantforge.geom.program import program
from implantforge.kernels.tpms import tpms_distance
from implantforge.stages.lattice import spinodoid, struts, surfaces
from implantforge.stages.lattice.solving import SolvedLattice

LATTICE_LIPSCHITZ = 1.3  # foot points of the Newton walk jump between sheets; tables are read linearly


def field(solved: SolvedLattice, bounds: Array) -> Field:
    """The infinite lattice as a distance field inside bounds (2,3) mm, cut off a little off its surface."""
    half = solved.thin_mm / 2
    if solved.form == "network":
        return middle(solved, 0.0, bounds)
    base = middle(solved, half, bounds)
    form = base.form if solved.form == "strut" or base.form is None else Form("absolute", (), (base.form,))
    thick = Form("add", (-half,), (form,)) if form else None
    if solved.form == "strut":
        return Field(lambda p: base.evaluate(p) - half, bounds, LATTICE_LIPSCHITZ, form=thick)
    return Field(lambda p: np.abs(base.evaluate(p)) - half, bounds, LATTICE_LIPSCHITZ, form=thick)


def middle(solved: SolvedLattice, reach_mm: float, bounds: Array) -> Field:
    """Signed distance to the surface f = level, or distance to the centre lines, true to reach_mm and a little more."""
    cell, level = float(solved.cell_mm), float(solved.level)
    if solved.kind in surfaces.SURFACES and solved.form != "strut":
        row = surfaces.SURFACES.index(solved.kind)
        limit = surfaces.LIMIT[row] * cell + reach_mm
        samples = _scaled(solved.kind, solved.form, 0, cell, level, limit)

        def evaluate(p: Array) -> Array:
            out = np.empty(len(p))
            steps = surfaces.STEPS[row]
            tpms_distance(row, cell, level, limit, steps, np.ascontiguousarray(p, np.float64), out)
            return out

        form = Form("periodic", (cell, float(surfaces.NODES[row])), samples=samples, slope=LATTICE_LIPSCHITZ)
        return Field(evaluate, bounds, LATTICE_LIPSCHITZ, form=form)
    limit = spinodoid.LIMIT * cell + reach_mm if solved.form != "strut" else np.inf
    samples = _scaled(solved.kind, solved.form, solved.seed, cell, level, limit)
    side = struts.STRUTS[solved.kind][1] if solved.form == "strut" else spinodoid.SIDE
    form = Form("periodic", (side * cell, float(len(samples) - 1)), samples=samples, slope=LATTICE_LIPSCHITZ)
    return Field(program(form).evaluate, bounds, LATTICE_LIPSCHITZ, form=form)


@lru_cache(maxsize=4)
def _scaled(kind: str, form: str, seed: int, cell: float, level: float, limit: float) -> NDArray[np.float32]:
    """The family's table in mm."""
    if form == "strut":
        found = struts.table(kind, seed)
    else:
        maker = spinodoid if kind == "spinodoid" else surfaces
        found = maker.table(kind, form, seed, level, limit / cell)
    out: NDArray[np.float32] = (found * cell).astype(np.float32)
    out.setflags(write=False)
    return out


def trim(mesh: Mesh, *, largest_void_mm3: float = np.inf, least_piece: float = 1.0) -> tuple[Mesh, dict[str, float]]:
    """The largest body alone: loose pieces (clipped struts) and closed inner voids are dropped.

    Voids above largest_void_mm3 and pieces above least_piece of the largest stay. The report counts what was dropped with
    its volume: crumbs, crumb_volume_mm3, voids, void_volume_mm3, kept_volume_mm3.
    """
    labels, volumes = measure.components(mesh)
    main = int(np.argmax(volumes))
    if volumes[main] <= 0:
        raise GeometryError("trim: the mesh encloses no volume; its faces may look inward")
    crumbs = (volumes > 0) & (volumes < least_piece * volumes[main])
    voids = (volumes <= 0) & (-volumes <= largest_void_mm3)
    if least_piece >= 1.0:
        crumbs = volumes > 0
        crumbs[main] = False
    report = {
        "crumbs": float(crumbs.sum()),
        "crumb_volume_mm3": float(volumes[crumbs].sum()),
        "voids": float(voids.sum()),
        "void_volume_mm3": float(-volumes[voids].sum()),
        "kept_volume_mm3": float(volumes[~crumbs & ~voids & (volumes > 0)].sum()),
    }
    if not (crumbs | voids).any():
        return mesh, report
    used = ~(crumbs | voids)[labels]
    rows = np.cumsum(used, dtype=np.int64) - 1
    faces = mesh.faces[used[mesh.faces[:, 0]]]
    return Mesh(mesh.vertices[used], rows[faces]), report
