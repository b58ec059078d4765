"""The porous coat of an implant, bonded to its core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Design, Field, GeometryError, Lattice
from implantforge.core.field import Form
from implantforge.stages.lattice.coating import EDGE_MM, laid
from implantforge.stages.lattice.filling import field
from implantforge.stages.lattice.solving import SolvedLattice


def _own(asked: Lattice) -> bool:
    """Whether the lattice is more than the same cell everywhere."""
    return bool(asked.grades) or asked.placement != "cartesian"


def fill(design: Design, solved: SolvedLattice, *, min_feature_mm: float = 0.0, overlap_mm: float = 0.1) -> Field:
    """Metal of a design: solid | (porous & lattice), inside the envelope.

    The lattice reaches overlap_mm into and along the core, so that struts root in metal; they end at the nominal
    envelope. Raises GeometryError when the lattice is thinner than min_feature_mm.
    """
    if solved.thin_mm < min_feature_mm:
        raise GeometryError(
            f"lattice: {solved.kind} {solved.form} of {solved.thin_mm:.3f} mm at its thinnest < printable "
            f"{min_feature_mm:.3f} mm; raise wall_mm or cell_mm, or lower the porosity"
        )
    solid, porous, envelope = design.solid, design.porous, design.envelope
    lattice = laid(design.lattice, porous, envelope).porous if _own(design.lattice) else field(solved, porous.bounds)

    def evaluate(p: Array) -> NDArray:
        core, region = solid.evaluate(p), porous.evaluate(p)
        reach = np.minimum(region, core - overlap_mm)
        edge = reach < region
        if edge.any():
            reach[edge] = np.maximum(reach[edge], np.minimum(region[edge], envelope.evaluate(p[edge])))
        metal = np.array(core, np.float64)
        open_ = reach < metal
        if open_.any():
            strut, limit = lattice.evaluate(p[open_]), reach[open_]
            blunt = np.maximum(EDGE_MM - np.abs(strut - limit), 0)
            metal[open_] = np.minimum(metal[open_], np.maximum(strut, limit) + blunt * blunt / (4 * EDGE_MM))
        return metal

    steepest = max(solid.lipschitz, porous.lipschitz, envelope.lipschitz, lattice.lipschitz)
    return Field(evaluate, (solid | porous).bounds, steepest, form=_filled(design, lattice, overlap_mm))


def _filled(design: Design, lattice: Field, overlap_mm: float) -> Form | None:
    """The form of fill: the struts' reach written out is min(region, max(core - overlap, envelope))."""
    core, region, envelope, struts = (f.form for f in (design.solid, design.porous, design.envelope, lattice))
    if core is None or region is None or envelope is None or struts is None:
        return None
    rooted = Form("max", (), (Form("add", (-overlap_mm,), (core,)), envelope))
    reach = Form("min", (), (region, rooted))
    return Form("min", (), (core, Form("smooth_max", (EDGE_MM,), (struts, reach))))
