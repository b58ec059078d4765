"""Strut and stochastic lattices, what is asked against what comes out, refusals, grades, placements, ends of struts."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from implantforge.core import Array, Field, GeometryError, Grade, InputError, Lattice
from implantforge.geom import measure, shapes
from implantforge.geom.meshing import polygonise
from implantforge.kernels.struts import line_distance
from implantforge.kernels.tpms import tpms_level
from implantforge.pipeline import proving
from implantforge.stages import lattice
from implantforge.stages.lattice import coating, ends, nets, placing, rooms, solving, spinodoid, struts
from implantforge.stages.lattice.surfaces import SURFACES

# Length of the centre lines in a cell, and diameter in cells at relative density 0.1, 0.2 and 0.3: cylinders on voxels.
TABLE = {
    "cubic": (3.00, 0.221, 0.324, 0.413),
    "bcc": (6.93, 0.145, 0.213, 0.267),
    "fcc": (8.49, 0.133, 0.194, 0.247),
    "octet": (16.97, 0.094, 0.136, 0.175),
    "diamond": (6.93, 0.147, 0.213, 0.270),
    "rhombic": (13.86, 0.104, 0.151, 0.193),
    "kelvin": (8.49, 0.135, 0.198, 0.250),
}
VALENCE = {"cubic": {6}, "bcc": {8}, "fcc": {4, 12}, "octet": {12}, "diamond": {4}, "rhombic": {4, 8}, "kelvin": {4}}


@pytest.mark.parametrize("kind", TABLE)
def test_struts_of_the_table(kind: str) -> None:
    length, *widths = TABLE[kind]
    ends = struts.lines(kind, 0).reshape(-1, 2, 3)
    assert np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum() == pytest.approx(length, abs=0.01)
    assert set(struts.valence(kind, 0)) == VALENCE[kind]
    for density, width in zip((0.1, 0.2, 0.3), widths):
        solved = lattice.solve(Lattice(kind, "strut", 2.0, porosity=1 - density))
        assert solved.thin_mm / 2 == pytest.approx(width, abs=0.005)
        back = Lattice(kind, "strut", 2.0, wall_mm=solved.wall_mm)
        assert lattice.solve(back).porosity == pytest.approx(1 - density, abs=1e-3)


def test_line_distance_by_slow_twin() -> None:
    lines = np.random.default_rng(1).uniform(0, 1, (7, 6))
    out = np.empty((5, 6, 7))
    line_distance(lines, 0.2, 0.6, out)
    at = np.stack(np.meshgrid(*[0.2 * np.arange(n) for n in out.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    want = np.minimum(_segments(lines, at).min(axis=0), 0.6).reshape(out.shape)
    assert np.allclose(out, want, atol=1e-12)


def _segments(lines: Array, at: Array) -> Array:
    a, d = lines[:, None, :3], lines[:, None, 3:6] - lines[:, None, :3]
    t = np.clip(((at - a) * d).sum(-1) / (d * d).sum(-1), 0, 1)
    found: Array = np.linalg.norm(at - a - t[..., None] * d, axis=-1)
    return found


def test_net_distance_by_slow_twin() -> None:
    rng = np.random.default_rng(2)
    joints = rng.uniform(0, 6, (40, 3))
    pairs = np.array([(a, b) for a, b in rng.integers(0, 40, (60, 2)) if a != b])
    net = nets.Net(joints, np.full(40, 0.2), pairs)
    at = rng.uniform(-1, 7, (4000, 3))
    rows = np.hstack([joints[pairs[:, 0]], joints[pairs[:, 1]]])
    want = np.minimum(_segments(rows, at).min(axis=0) - 0.2, nets.REACH * 1.5)
    assert np.allclose(nets.field(net, 1.5).evaluate(at), want, atol=1e-12)


def test_voronoi_has_no_loose_end_and_a_seed() -> None:
    assert struts.valence("voronoi", 3).min() >= 3
    assert not np.array_equal(struts.poisson_disc(4, 0.8, 64, 0), struts.poisson_disc(4, 0.8, 64, 1))
    seeds = struts.poisson_disc(4, 0.8, 64, 0)
    gap = seeds[:, None] - seeds
    gap -= 4 * np.round(gap / 4)
    assert (np.linalg.norm(gap, axis=2) + 9 * np.eye(64)).min() >= 0.8


def test_spinodoid_repeats_and_hangs_together() -> None:
    f = spinodoid.waves(5)
    assert abs(np.diff(f, axis=0)).max() > abs(f[0] - f[-1]).max() * 0.5  # no jump across the tile's face
    for density in lattice.DENSITY["spinodoid", "network"]:
        level = solving.cut("spinodoid", "network", 5, density)
        assert rooms.largest_share(f < level) > 0.995
        assert rooms.largest_share(f > level) > 0.995


@pytest.mark.parametrize("kind", ["octet", "kelvin", "voronoi"])
def test_fields_of_struts_have_the_asked_porosity(kind: str) -> None:
    solved = lattice.solve(Lattice(kind, "strut", 1.5, porosity=0.7))
    side = 6.0 if kind == "voronoi" else 1.5
    p = np.random.default_rng(12).uniform(0, side, (300_000, 3))
    solid = lattice.field(solved, np.array([[0.0] * 3, [side] * 3]))
    assert np.mean(solid(p) > 0) == pytest.approx(0.7, abs=0.005)


def _local(field: Field, low: Array, high: Array, h: float) -> tuple[Array, Array]:
    """Masks of voxels h apart in a box, and the local thickness of the metal."""
    axes = [np.arange(a, b, h) + part * h for a, b, part in zip(low, high, (0.37, 0.21, 0.68))]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    mask = (field(p.reshape(-1, 3)) < 0).reshape(p.shape[:3])
    return mask, measure.local_thickness(mask, h)


def _median(field: Field, cell: float, h: float) -> float:
    """Median local thickness of the metal over the cell at 0, half a cell of surroundings seen."""
    mask, thick = _local(field, np.full(3, -0.5 * cell), np.full(3, 1.5 * cell), h)
    inner = (slice(len(mask) // 4, -len(mask) // 4),) * 3
    return float(np.median(thick[inner][mask[inner]]))


def _seen(form: str, wall: float, h: float) -> float:
    """What the same ruler reads on a lone rod of this wall, short by half a voxel; of a plate, the wall."""
    if form == "sheet":
        return wall  # plates of all slopes together read true within 3 %
    body = shapes.capsule((-3, -3, -3.1), (3, 3, 3), wall / 2)
    mask, thick = _local(body, np.full(3, -1.0), np.full(3, 1.0), h)
    return float(np.median(thick[mask]))


@pytest.mark.parametrize(("kind", "form"), [("gyroid", "sheet"), ("bcc", "strut"), ("kelvin", "strut")])
def test_wall_asked_is_the_median_local_thickness(kind: str, form: str) -> None:
    solved = lattice.solve(Lattice(kind, form, 1.5, wall_mm=0.3))  # type: ignore[arg-type]
    assert solved.wall_mm == 0.3
    got = _median(lattice.field(solved, np.array([[-2.0] * 3, [3.0] * 3])), 1.5, 0.03)
    assert got == pytest.approx(_seen(form, 0.3, 0.03), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [("gyroid", "sheet"), ("kelvin", "strut")])
def test_pore_asked_is_the_median_local_thickness_of_the_void(kind: str, form: str) -> None:
    cell = 2.0 if kind == "gyroid" else 1.0
    solved = lattice.solve(Lattice(kind, form, cell, pore_mm=0.8))  # type: ignore[arg-type]
    metal = lattice.field(solved, np.array([[-2.0] * 3, [4.0] * 3]))
    assert _median(metal.scaled(-1.0), cell, 0.03) == pytest.approx(0.8, rel=0.05)
    with pytest.raises(GeometryError, match="pores of several sizes"):
        lattice.solve(Lattice("octet", "strut", 2.0, pore_mm=0.8))


def test_refusals_say_what_can_be_had() -> None:
    with pytest.raises(GeometryError, match=r"closes its pores; .* ask for porosity 0.20..0.97 or wall .* or pore"):
        lattice.solve(Lattice("kelvin", "strut", 2.0, pore_mm=0.1))
    with pytest.raises(GeometryError, match="falls apart"):
        lattice.solve(Lattice("spinodoid", "network", 2.0, porosity=0.9))
    with pytest.raises(GeometryError, match="comes as strut"):
        lattice.solve(Lattice("octet", "sheet", 2.0, porosity=0.7))
    with pytest.raises(GeometryError, match="give one of"):
        lattice.solve(Lattice("octet", "strut", 2.0, porosity=0.7, pore_mm=0.5))
    with pytest.raises(GeometryError, match="must be positive"):
        lattice.solve(Lattice("octet", "strut", 2.0, wall_mm=float("nan")))
    with pytest.raises(InputError, match="must look like"):
        placing.parse_grade("wall_mm=depth:0.2")


BOX = shapes.box((0.3, 0.2, 0.1), (6, 6, 6))


@pytest.mark.parametrize("border", ["cap", "trim"])
@pytest.mark.parametrize("kind", ["diamond", "voronoi"])
def test_no_strut_ends_in_the_air(kind: str, border: str) -> None:
    made = coating.coat(Lattice(kind, "strut", 2.0, porosity=0.75), BOX, border=border)
    assert made.net is not None
    assert np.bincount(made.net.struts.ravel()).min() >= 2
    mesh, report = lattice.trim(polygonise(made.metal, 0.12))
    assert measure.is_manifold(mesh)
    assert report["crumbs"] == 0
    if border == "trim":
        # nothing is cut: round ends everywhere, so no flat facet lies on the box
        assert (BOX(mesh.vertices) < 1e-3).all()


@pytest.mark.parametrize(
    ("kind", "porosity", "most"), [("diamond", 0.75, 0), ("gyroid", 0.9, 0), ("spinodoid", 0.6, 1)]
)
def test_no_end_of_a_network_stands_in_the_air(kind: str, porosity: float, most: int) -> None:
    """Counted in layers of points under the surface: pieces of metal that hang on the network below in one place alone."""
    ball = shapes.sphere((0.1, 0.2, 0.3), 4.0)
    asked = Lattice(kind, "network", 2.0, porosity=porosity)
    left, made = coating.coat(asked, ball, border="cut"), coating.coat(asked, ball)
    layers = ends.Layers(ball, None, 2.0, made.thinnest_mm)
    network = lattice.field(made.solved, ball.bounds)
    assert left.loose_ends == layers.ends(network, left.metal).count > 1
    assert made.loose_ends == layers.ends(network, made.metal).count <= most
    mesh, _ = lattice.trim(polygonise(made.metal, 0.15))
    assert measure.is_manifold(mesh) and (ball(mesh.vertices) < 0.01).all()
    deep = np.random.default_rng(0).uniform(-1.5, 1.5, (20_000, 3))
    assert np.array_equal(made.metal(deep) < 0, left.metal(deep) < 0)  # nothing is added where the lattice is whole
    with pytest.raises(GeometryError, match="no strut that could be left out"):
        coating.coat(asked, ball, border="trim")
    assert coating.coat(Lattice("gyroid", "sheet", 2.0, wall_mm=0.3), ball).loose_ends is None


def test_ends_are_counted_on_posts() -> None:
    """Posts on a plate: each an end, but for two that a bar joins and one that a solid holds."""
    block = shapes.box((0, 0, 0), (10, 4, 4))
    posts = [shapes.cylinder((x, 0, -1.9), (x, 0, 3), 0.3) for x in (-4.0, -2.0, 0.0, 2.0, 4.0)]
    metal = shapes.box((0, 0, -1.5), (9.6, 1, 0.8))
    for post in posts:
        metal = metal | post
    bar = metal | shapes.capsule((-4, 0, 1.7), (-2, 0, 1.7), 0.3)
    solid = shapes.box((4, 0, 1), (1.2, 3, 3))
    count = [ends.Layers(block, core, 2.0, 0.6).ends(metal, what).count
             for core, what in ((None, metal), (None, bar), (solid, bar))]  # fmt: skip
    assert count == [5, 3, 2]


def test_layer_roots_in_its_core() -> None:
    made = coating.coat(Lattice("octet", "strut", 1.5, wall_mm=0.3), BOX, depth_mm=2.0, fillet_mm=0.2)
    mesh, report = lattice.trim(polygonise(made.metal, 0.12))
    assert report["crumbs"] == 0
    assert measure.is_manifold(mesh)
    inner = np.random.default_rng(0).uniform(-0.7, 0.9, (500, 3))
    assert (made.metal(inner[BOX(inner) < -2.05]) < 0).all()
    with pytest.raises(GeometryError, match="no whole cell"):
        coating.coat(Lattice("octet", "strut", 2.5, wall_mm=0.3), BOX, depth_mm=2.0)
    with pytest.raises(GeometryError, match="printable"):
        coating.coat(Lattice("octet", "strut", 1.5, wall_mm=0.2), BOX, min_feature_mm=0.3)


def test_skin_rim_and_region() -> None:
    selected = shapes.box((0.3, 0.2, 3.1), (4, 4, 4))
    made = coating.coat(Lattice("gyroid", "sheet", 2.0, wall_mm=0.3), BOX, selected=selected, rim_mm=0.4)
    p = np.random.default_rng(1).uniform(-3.4, 3.8, (40_000, 3))
    p = p[BOX(p) < -0.01]
    outside = selected(p) > -0.38
    assert (made.metal(p[outside]) < 0).all()
    assert 0.4 < np.mean(made.metal(p[~outside]) > 0) < 0.7
    skinned = coating.coat(Lattice("gyroid", "sheet", 2.0, wall_mm=0.3), BOX, skin_mm=0.5)
    assert (skinned.metal(p[BOX(p) > -0.48]) < 0).all()


def _wall_at(field: Field, z: float, cell: float) -> float:
    """Median local thickness of the metal within half a cell of height z."""
    mask, thick = _local(field, np.array([-cell, -cell, z - cell]), np.array([cell, cell, z + cell]), 0.03)
    inner = (slice(len(mask) // 4, -len(mask) // 4),) * 3
    return float(np.median(thick[inner][mask[inner]]))


@pytest.mark.parametrize(("kind", "form"), [("gyroid", "sheet"), ("bcc", "strut")])
def test_graded_wall_is_the_wall_of_its_place(kind: str, form: str) -> None:
    tall = shapes.box((0, 0, 0), (6, 6, 14))
    grade = Grade("wall_mm", "along", ((-6.0, 0.25), (6.0, 0.4)))
    made = coating.coat(Lattice(kind, form, 2.0, grades=(grade,)), tall)  # type: ignore[arg-type]
    assert made.wall_span_mm == (0.25, 0.4)
    for z in (-4.0, 4.0):
        wall = 0.325 + z / 80
        assert _wall_at(made.metal, z, 2.0) == pytest.approx(_seen(form, wall, 0.03), rel=0.06)


def test_graded_porosity_of_a_network() -> None:
    tall = shapes.box((0, 0, 0), (6, 6, 18))
    grade = Grade("porosity", "along", ((-6.0, 0.8), (6.0, 0.6)))
    made = coating.coat(Lattice("gyroid", "network", 2.0, grades=(grade,)), tall)
    rng = np.random.default_rng(3)
    for z in (-4.0, 0.0, 4.0):
        p = rng.uniform((-2, -2, z - 2), (2, 2, z + 2), (20_000, 3))
        assert np.mean(made.metal(p) > 0) == pytest.approx(0.7 - z / 60, abs=0.02)


@pytest.mark.slow
def test_graded_cells_have_true_walls() -> None:
    tall = shapes.box((0, 0, 0), (6, 6, 18))
    grade = Grade("cell_mm", "along", ((-7.0, 1.4), (7.0, 2.4)))
    made = coating.coat(Lattice("gyroid", "sheet", 2.0, wall_mm=0.3, grades=(grade,)), tall)
    for z in (-5.0, 5.0):
        assert _wall_at(made.metal, z, 2.0) == pytest.approx(_seen("sheet", 0.3, 0.03), rel=0.05)


@pytest.mark.parametrize("placement", ["cylindrical", "conformal"])
@pytest.mark.parametrize(("kind", "form"), [("gyroid", "sheet"), ("bcc", "strut")])
def test_layers_follow_a_tube(kind: str, form: str, placement: str) -> None:
    """Cells repeat by whole turns: the metal is the same one cell farther round, and walls are true."""
    bar, belt = shapes.cylinder((0, 0, -15), (0, 0, 15), 8), shapes.box((0, 0, 0), (20, 20, 8))
    asked = Lattice(kind, form, 1.5, wall_mm=0.3, placement=placement)  # type: ignore[arg-type]
    made = coating.coat(asked, bar, depth_mm=3.0, selected=belt, border="cut")
    tube = made.region
    chart = placing.chart(asked, tube, bar)
    count = round(2 * np.pi * chart.radius_mm / 1.5)
    assert count * 1.5 == pytest.approx(2 * np.pi * chart.radius_mm)
    p = np.random.default_rng(5).uniform((-8, -8, -2), (8, 8, 2), (20_000, 3))
    p = p[tube(p) < -0.4]
    turn = 2 * np.pi / count
    around = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    assert np.mean((made.metal(p) < 0) == (made.metal(p @ around.T) < 0)) > 0.995
    mesh, _ = lattice.trim(polygonise(made.metal, 0.25))
    assert measure.is_manifold(mesh)


@pytest.mark.parametrize("placement", ["cylindrical", "spherical", "conformal"])
@pytest.mark.parametrize("kind", ["gyroid", "iwp", "splitp"])
def test_bent_sheets_are_the_unrolled_ones(kind: str, placement: str) -> None:
    """Against points of the flat surface f = 0: no metal far from it, none missing near it, the share that was asked."""
    ball = placement == "spherical"
    bar = shapes.sphere((0, 0, 0), 16) if ball else shapes.cylinder((0, 0, -15), (0, 0, 15), 16)
    belt = shapes.box((0, 0, 0), (40, 40, 8))
    asked = Lattice(kind, "sheet", 2.0, porosity=0.75, placement=placement)  # type: ignore[arg-type]
    made = coating.coat(asked, bar, depth_mm=4.0, selected=belt, border="cut")
    chart = placing.chart(asked, made.region, bar)
    p = np.random.default_rng(1).uniform((-16, -16, -3.5), (16, 16, 3.5), (150_000, 3))
    p = p[made.region(p) < -0.3]
    metal = made.metal(p) < 0
    away = cKDTree(_surface_points(kind, 96) * 2.0, boxsize=2.0).query(chart.read(p) % 2.0)[0]
    half = made.solved.thin_mm / 2
    assert not (metal & (away > 1.5 * half)).any()
    assert np.mean(metal[away < 0.6 * half]) > 0.999
    assert np.mean(metal) == pytest.approx(0.25, abs=0.012)


def _surface_points(kind: str, n: int) -> Array:
    """Points of f = 0 in one cell (cells), where lines between nodes cross it."""
    nodes = rooms.points(n)
    f = np.empty(len(nodes))
    tpms_level(SURFACES.index(kind), 1.0, nodes, f)
    f, found = f.reshape((n,) * 3), []
    for axis in range(3):
        ahead = np.roll(f, -1, axis)
        crossed = (f < 0) != (ahead < 0)
        at = np.argwhere(crossed).astype(float)
        at[:, axis] += f[crossed] / (f[crossed] - ahead[crossed])
        found.append(at / n)
    out: Array = np.concatenate(found) % 1.0
    return out


@pytest.mark.parametrize("form", ["network", "sheet"])
def test_conformal_layers_follow_the_surface(form: str) -> None:
    """A cone-like body: a cell deeper, and a cell farther round, the lattice is the same; its network has the porosity."""
    cone = shapes.torus((0, 0, 0), (0, 0, 1), 14.0, 6.0)
    belt = shapes.box((0, 0, 0), (60, 60, 5)) - shapes.cylinder((0, 0, -9), (0, 0, 9), 15)
    asked = Lattice("gyroid", form, 1.5, porosity=0.7, placement="conformal")  # type: ignore[arg-type]
    made = coating.coat(asked, cone, depth_mm=3.2, selected=belt, border="cut")
    p = np.random.default_rng(2).uniform((-20, -20, -2), (20, 20, 2), (150_000, 3))
    p = p[(made.region(p) < -0.1) & (cone(p) > -1.5) & (cone(p) < -0.1)]
    chart = placing.chart(asked, made.region, cone)
    deeper = chart.place(chart.read(p) + [1.5, 0, 0])
    whole = np.isfinite(deeper).all(axis=1)
    whole[whole] = made.region(deeper[whole]) < -0.1
    assert np.allclose(cone(deeper[whole]) - cone(p[whole]), -1.5, atol=2e-3)
    assert np.mean((made.metal(p[whole]) < 0) == (made.metal(deeper[whole]) < 0)) > 0.98
    assert np.mean(made.metal(p) > 0) == pytest.approx(0.7, abs=0.025)


def test_spherical_layers_and_their_refusal() -> None:
    shell = shapes.sphere((0, 0, 0), 12) - shapes.sphere((0, 0, 0), 9)
    belt = shapes.box((0, 0, 0), (30, 30, 8))
    asked = Lattice("bcc", "strut", 1.5, wall_mm=0.3, placement="spherical")
    made = coating.coat(asked, shell & belt)
    assert made.net is not None and len(made.net.struts) > 1000
    with pytest.raises(GeometryError, match="stretches cells"):
        coating.coat(asked, shell)
    with pytest.raises(GeometryError, match="no placement"):
        coating.coat(replace(asked, placement="polar"), shell)  # type: ignore[arg-type]


def test_chart_and_its_inverse() -> None:
    rng = np.random.default_rng(9)
    bar = shapes.cylinder((0, 0, -15), (0, 0, 15), 8)
    belt = (bar - shapes.cylinder((0, 0, -9), (0, 0, 9), 4.5)) & shapes.box((0, 0, 0), (20, 20, 6))
    p = rng.uniform((-8, -8, -3), (8, 8, 3), (900, 3))
    p = p[belt(p) < 0]
    grade = Grade("cell_mm", "depth", ((0.0, 1.2), (3.0, 2.0)))
    cases: tuple[tuple[str, tuple[Grade, ...]], ...] = (("cylindrical", ()), ("spherical", ()), ("conformal", (grade,)))
    for placement, grades in cases:
        asked = Lattice("gyroid", "sheet", 1.5, wall_mm=0.3, placement=placement, grades=grades)  # type: ignore[arg-type]
        chart = placing.chart(asked, belt, bar)
        assert np.allclose(chart.place(chart.read(p)), p, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(lattice.FAMILIES))
def test_every_family_over_its_range(family: tuple[str, str]) -> None:
    """Porosity within a point at both ends and the middle; walls of sheets, struts that are asked for, and necks of networks
    (largest sphere that passes) within 5 %, and pores that are asked for, by distances finer than the samples."""
    kind, form = family
    low, high = lattice.DENSITY[family]
    for density in (low + 0.01, 0.5 * (low + high), high - 0.01):
        solved = lattice.solve(Lattice(kind, form, 1.0, porosity=1 - density))  # type: ignore[arg-type]
        got = proving.sizes(solved)
        assert got["porosity_pct"] == pytest.approx(100 * (1 - density), abs=1.0)
        if form == "sheet":
            assert got["wall_median_mm"] == pytest.approx(solved.wall_mm, rel=0.05)
        elif "neck_mm" in got:
            assert got["neck_mm"] == pytest.approx(solved.thin_mm, rel=0.05)
    for part in (0.05, 0.5, 0.95):
        density = round(low + part * (high - low), 4)
        wall, pore = solving.wall_median(kind, form, 0, density), solving.pore_median(kind, form, 0, density)
        _asked_is_got(Lattice(kind, form, 1.0, wall_mm=wall), proving.wall_mm, wall)  # type: ignore[arg-type]
        _asked_is_got(Lattice(kind, form, 1.0, pore_mm=pore), proving.pore_mm, pore)  # type: ignore[arg-type]


def _asked_is_got(asked: Lattice, ruler: Callable[[lattice.SolvedLattice], float], size: float) -> None:
    try:
        solved = lattice.solve(asked)
    except GeometryError as error:
        assert re.search("pores of several sizes|metal of several widths", str(error))
        return
    assert ruler(solved) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(("kind", "form"), [("gyroid", "sheet"), ("kelvin", "strut")])
def test_sizes_by_slow_twin(kind: str, form: str) -> None:
    """Local thickness again, by balls round the samples of a mask."""
    solved = lattice.solve(Lattice(kind, form, 1.0, porosity=0.8))  # type: ignore[arg-type]
    h = solved.wall_mm / 9
    mask, thick = _local(lattice.field(solved, np.array([[-1.0] * 3, [2.0] * 3])), np.full(3, -0.2), np.full(3, 0.7), h)
    middle = (slice(len(mask) // 4, -len(mask) // 4),) * 3
    away = ndimage.distance_transform_edt(mask) * h
    assert 2 * away.max() > 0.9 * solved.wall_mm
    got = proving.sizes(solved)["wall_median_mm"]
    assert got == pytest.approx(
        float(np.median(thick[middle][mask[middle]])) * solved.wall_mm / _seen(form, solved.wall_mm, h), rel=0.06
    )


@pytest.mark.parametrize("wall", [0.28, 0.3, 0.4])
def test_thick_struts_are_drawn_thinner_for_their_joints(wall: float) -> None:
    """Half of the metal of Kelvin struts is joints: the median of both is what was asked, the strut is less."""
    solved = lattice.solve(Lattice("kelvin", "strut", 1.0, wall_mm=wall))
    assert solved.wall_mm == wall and 0.85 * wall < solved.thin_mm < 0.998 * wall
    assert proving.wall_mm(solved) == pytest.approx(wall, rel=0.05)
    slender = lattice.solve(Lattice("kelvin", "strut", 1.0, wall_mm=0.12))
    assert slender.thin_mm == 0.12


def test_wall_of_a_network_is_the_median_of_its_metal() -> None:
    solved = lattice.solve(Lattice("diamond", "network", 1.0, wall_mm=0.36))
    assert proving.wall_mm(solved) == pytest.approx(0.36, rel=0.03)
    assert solved.thin_mm < 0.28 and proving.neck_mm(solved) == pytest.approx(solved.thin_mm, rel=0.05)


def test_lists_of_struts_by_slow_twin() -> None:
    rng = np.random.default_rng(5)
    rows = np.hstack([rng.uniform(0, 4, (30, 6)), np.full((30, 2), 0.1)])
    low, shape = np.full(3, -1.0), np.array([6, 6, 6])
    starts, items = nets.bins(rows, low, 1.0, shape, 0.4)
    at = rng.uniform(-1, 5, (4000, 3))
    near = _segments(rows[:, :6], at) < 0.4
    for n, bin_ in enumerate(np.floor(at - low).astype(int) @ [36, 6, 1]):
        listed = items[starts[bin_] : starts[bin_ + 1]].tolist()
        assert set(np.flatnonzero(near[:, n]).tolist()) <= set(listed) and len(listed) == len(set(listed))
    assert len(items) < 0.5 * len(rows) * shape.prod()
