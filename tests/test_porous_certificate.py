"""Permeability against exact flows, and the certificate of a lattice whose numbers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from implantforge.core import Field, GeometryError, Lattice
from implantforge.pipeline import porosity
from implantforge.report import porous as page
from implantforge.stages import lattice, porous
from implantforge.stages.porous import permeability


def spheres(n: int, radius: float) -> np.ndarray:
    """Signed distance (steps) of one ball in a cube of n steps."""
    axis = np.arange(n) + 0.5 - n / 2
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return np.sqrt(x * x + y * y + z * z) - radius * n


@pytest.mark.parametrize(("share", "drag"), [(0.064, 2.810), (0.216, 7.442), (0.343, 15.4)])
def test_flow_through_cubic_arrays_of_spheres(share, drag):
    """Zick and Homsy 1982: drag by that of a lone sphere."""
    radius = (3 * share / (4 * np.pi)) ** (1 / 3)
    found = permeability.darcy(spheres(32, radius), 1.0)
    assert found.mean_m2 == pytest.approx(1e-6 / (6 * np.pi * radius * drag), rel=0.02)
    assert abs(found.tensor[0, 1]) < 1e-3 * found.mean_m2 and 0 < found.error < 0.06


def test_flow_between_plates_converges_with_the_square_of_the_step():
    """k = w^3 / 12 L."""
    wrong = []
    for n in (16, 32, 64):
        across = 0.25 * n - np.abs(np.arange(n) + 0.5 - n / 2)
        away = np.broadcast_to(across[None, :, None], (n, n, n)).astype(np.float32)
        flow = permeability._Flow(np.stack([0.5 * (away + np.roll(away, 1, a)) for a in range(3)]))
        wrong.append(1 / flow.forces(0, 1e-5)[0][0] / n**2 / (0.5**3 / 12) - 1)
    assert abs(wrong[0]) < 0.05 and abs(wrong[2]) < 0.003
    assert wrong[0] / wrong[1] == pytest.approx(4, rel=0.1) and wrong[1] / wrong[2] == pytest.approx(4, rel=0.1)


def test_permeability_grows_with_the_square_of_the_cell():
    away = spheres(16, 0.3)
    one, two = (permeability.darcy(away, side).mean_m2 for side in (1.0, 2.0))
    assert two / one == pytest.approx(4, rel=1e-9)


def test_a_cell_without_walls_is_refused():
    with pytest.raises(GeometryError, match="no wall"):
        permeability.darcy(np.full((8, 8, 8), 9.0), 1.0)


@pytest.fixture(scope="module")
def sheet() -> tuple[porous.Certificate, lattice.SolvedLattice, float]:
    """Three cells of a sheet gyroid of porosity 0.7, 3 samples through its wall, with its unit cell."""
    solved = lattice.solve(Lattice("gyroid", "sheet", 1.5, porosity=0.7))
    field = lattice.field(solved, np.array([[-9.0] * 3, [9.0] * 3]))
    n = 90
    step = 4.5 / n
    axis = (np.arange(n) + 0.5) * step
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    values = field(points).astype(np.float32).reshape(n, n, n)
    return porous.certificate(values, step, cell=porosity.cell(solved, 32)), solved, step


def test_certificate_of_a_sheet_gyroid(sheet):
    found, solved, _ = sheet
    values, errors = found.values, found.errors
    assert values["porosity_pct"] == pytest.approx(70, abs=0.5)
    assert values["wall_median_um"] == pytest.approx(1e3 * solved.wall_mm, abs=errors["wall_median_um"])
    assert values["pore_median_um"] == pytest.approx(1e3 * solved.pore_mm, rel=0.03)
    assert values["throat_um"] == pytest.approx(1e3 * solved.throat_mm, abs=errors["throat_um"])
    assert values["open_void_pct"] > 99.9 and values["void_pieces"] == 2
    assert values["specific_surface_per_mm"] == pytest.approx(2 * 3.107 / 1.5, rel=0.08)
    # E 0.117 and permeability 0.00168 cell^2 at this density, from independent solvers
    assert values["modulus_x_gpa"] == pytest.approx(114 * 0.1171, rel=0.03)
    assert values["permeability_1e9_m2"] == pytest.approx(0.00168 * 1.5**2 * 1e3, rel=0.06)
    assert np.allclose(found.tensor_gpa, np.array(found.tensor_gpa).T)
    assert all(values[name] == 1.0 for name in values if name.startswith("within_"))


def test_certificate_is_plain_json_and_reads_as_a_page(sheet):
    found, _, _ = sheet
    plain = json.loads(json.dumps(found.as_dict()))
    told = page.content(plain | {"coating": porous.coating_definition(found.values)})
    assert len(told["charts"]) == 4 and all(chart.startswith("<svg") for chart in told["charts"])
    assert any(row["name"] == "Porosity" and row["value"].startswith("70") for row in told["rows"])
    assert "porosity" in told["coating"][0].lower() and not told["why"]
    words = porous.coating_definition({"porosity_pct": 70.2, "pore_mean_um": 833.0})
    assert words == {"porosity_pct": "70.2 (above its 30-70, as printed hips in use are, 63-77: no fault)",
                     "pore_mean_um": "833 (within its 100-1000)"}  # fmt: skip
    assert porous.coating_definition({"porosity_pct": 82.0, "pore_mean_um": 90.0}) == {
        "porosity_pct": "82.0 (above its 30-70)", "pore_mean_um": "90.0 (below its 100-1000)"}  # fmt: skip
    assert page.content(None)["why"] and page.content({"refused": "no pores"})["why"] == "no pores"


def test_the_window_of_ingrowth_is_flagged_not_failed(sheet):
    rows = porous.checks(sheet[0].values)
    assert all(row.severity == "flag" and row.source for row in rows) and all(row.passed for row in rows)
    wide = porous.checks(sheet[0].values | {"pore_median_um": 1500.0, "porosity_pct": 90.0})
    assert {row.name for row in wide if not row.passed} == {"porous_pore_median_um_most", "porous_porosity_pct_most"}
    assert porous.checks({}) == ()


def test_what_holds_no_pores_is_refused():
    with pytest.raises(GeometryError, match="no metal or no void"):
        porous.certificate(np.ones((8, 8, 8), np.bool_), 0.1)


def test_a_cell_of_a_stochastic_lattice_is_its_whole_tile():
    solved = lattice.solve(Lattice("voronoi", "strut", 1.0, porosity=0.7))
    assert porosity.cell(solved, 16).side_mm == pytest.approx(4.0)
    endless = Field(lambda p: p[:, 0], np.array([[0.0] * 3, [1.0] * 3]))
    assert porosity._period(endless.form) is None
