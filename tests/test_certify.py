"""The metal as it will be printed: one closed body, its porosity sampled, trapped powder found."""

from __future__ import annotations

import numpy as np
import pytest

from implantforge.core import Design, GeometryError, Lattice
from implantforge.geom import measure, shapes
from implantforge.pipeline import certify
from implantforge.pipeline.recipe import KINDS
from implantforge.stages import lattice

ORIGIN = [0.0, 0.0, 0.0]


def test_a_coated_ball_is_one_body_of_the_asked_porosity():
    ball, core = shapes.sphere(ORIGIN, 7.0), shapes.sphere(ORIGIN, 5.0)
    design = Design(core, ball - core, ball, Lattice(porosity=0.7, cell_mm=1.4))
    mesh, found = certify.metal(design, h_mm=0.14, simplify_mm=0.01)
    assert measure.is_manifold(mesh) and len(measure.components(mesh)[1]) == 1
    assert found["lattice_porosity_pct"] == pytest.approx(70.0, abs=2.0)
    assert found["porous_volume_mm3"] == pytest.approx(4 / 3 * np.pi * (7**3 - 5**3), rel=0.02)
    assert found["trapped_powder_mm3"] == 0.0 and found["min_wall_mm"] == pytest.approx(0.44, abs=0.08)
    solid = 4 / 3 * np.pi * 5**3
    assert mesh.volume_mm3 == pytest.approx(solid + 0.3 * found["porous_volume_mm3"], rel=0.03)


@pytest.mark.parametrize(("hole_mm", "kept"), [(0.0, 1.0), (0.1, 1.0), (1.25, 0.0)])
def test_a_hollow_ball_keeps_its_powder_until_it_has_a_hole(hole_mm, kept):
    ball, hollow = shapes.sphere(ORIGIN, 7.0), shapes.sphere(ORIGIN, 5.0)
    metal = ball - hollow
    if hole_mm:
        metal = metal - shapes.cylinder(ORIGIN, [0.0, 0.0, 10.0], hole_mm)
    design = Design(metal, shapes.sphere(ORIGIN, 6.5), ball, Lattice(porosity=0.7))
    void, _, outside = certify._sampled(design, metal, certify.STEP_MM)
    trapped = certify.trapped_mm3(void, outside, certify.STEP_MM)
    assert trapped == pytest.approx(kept * 4 / 3 * np.pi * 125, rel=0.12)


def test_a_design_without_pores_is_refused():
    ball = shapes.sphere(ORIGIN, 5.0)
    design = Design(ball, shapes.sphere(ORIGIN, 2.0), ball, Lattice(porosity=0.7))
    with pytest.raises(GeometryError, match="no porous region"):
        certify.metal(design, h_mm=0.5, simplify_mm=0.0)


def test_recipes_offer_the_lattices_there_are():
    assert KINDS == lattice.KINDS
