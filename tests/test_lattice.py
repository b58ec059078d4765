"""Lattices: published tables, asked against measured, refusals, trimming."""

import numpy as np
import pytest
from scipy import ndimage

from implantforge.core import Design, Field, GeometryError, Lattice, Mesh
from implantforge.geom import measure, shapes
from implantforge.geom.meshing import polygonise
from implantforge.stages import lattice
from implantforge.stages.lattice import solving

# Level constants c (network f < c) at relative density 0.2 / 0.3 / 0.4, 96^3 sampling.
LEVELS = {
    "gyroid": (-0.916, -0.617, -0.310),
    "diamond": (-0.726, -0.486, -0.242),
    "primitive": (None, -0.699, -0.352),
    "iwp": (-2.161, -1.336, -0.533),
    "neovius": (-2.293, -0.974, -0.461),
    "frd": (-1.193, -0.647, -0.150),
    "lidinoid": (-0.273, -0.111, 0.020),
    "splitp": (-0.824, -0.566, -0.300),
}
# Wall and pore of sheets at density 0.2, in cells.
SHEETS = {"lidinoid": (0.032, 0.240), "splitp": (0.039, 0.284)}


@pytest.mark.parametrize("kind", LEVELS)
def test_levels_of_the_table(kind: str) -> None:
    for density, level in zip((0.2, 0.3, 0.4), LEVELS[kind]):
        if level is not None:
            assert solving.cut(kind, "network", 0, density) == pytest.approx(level, abs=0.012)


def test_gyroid_at_zero_is_half() -> None:
    assert solving.cut("gyroid", "network", 0, 0.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("form", ["sheet", "network"])
@pytest.mark.parametrize("kind", LEVELS)
def test_field_has_the_asked_porosity(kind: str, form: str) -> None:
    """By random points, which share no rhythm with the cell: 0.2 points and the noise of the draw."""
    p = np.random.default_rng(12).uniform(0, 1.5, (300_000, 3))
    low, high = lattice.DENSITY[kind, form]
    for asked in (0.55, 0.7):
        if not low <= 1 - asked <= high:
            with pytest.raises(GeometryError, match=r"falls apart|closes its pores"):
                lattice.solve(Lattice(kind, form, 1.5, porosity=asked))  # type: ignore[arg-type]
            continue
        solved = lattice.solve(Lattice(kind, form, 1.5, porosity=asked))  # type: ignore[arg-type]
        solid = lattice.field(solved, np.array([[0.0] * 3, [1.5] * 3]))
        assert np.mean(solid(p) > 0) == pytest.approx(asked, abs=0.0045)


def test_primitive_neck_and_throat_are_analytic() -> None:
    """Necks of the primitive network lie on the face x = 0, where cos y + cos z = c - 1 about (1/2, 1/2) cell."""
    solved = lattice.solve(Lattice("primitive", "network", 1.0, porosity=0.7))
    y = np.linspace(0, np.arccos(-solved.level), 2001)
    z = np.arccos(np.clip(1 - solved.level - np.cos(y), -1, 1))
    assert solved.thin_mm == pytest.approx(2 * np.hypot(y, z).min() / (2 * np.pi), rel=0.02)


def test_sheet_pore_of_primitive_is_analytic() -> None:
    """The largest ball beside the zero sheet reaches its (1/4,1/4,1/4) points: diameter sqrt(3)/2 cell, less the
    wall."""
    solved = lattice.solve(Lattice("primitive", "sheet", 2.0, wall_mm=0.2))
    assert solved.pore_mm == pytest.approx(np.sqrt(3) - 0.2, rel=0.02)


@pytest.mark.parametrize("kind", SHEETS)
def test_walls_and_pores_of_the_table(kind: str) -> None:
    wall, pore = SHEETS[kind]
    solved = lattice.solve(Lattice(kind, "sheet", 1.0, porosity=0.8))
    assert solved.wall_mm == pytest.approx(wall, abs=0.0015)
    assert solved.pore_mm == pytest.approx(pore, abs=0.012)


@pytest.mark.parametrize("form", ["sheet", "network"])
@pytest.mark.parametrize("kind", lattice.SURFACES[4:])
def test_new_kinds_hang_together(kind: str, form: str) -> None:
    """At both ends of the range a network is one piece, a sheet has two open labyrinths, and throats stay open."""
    n = 48
    p = np.indices((2 * n,) * 3).reshape(3, -1).T / n
    low, high = lattice.DENSITY[kind, form]
    for density in (low + 1e-4, high - 1e-4):
        solved = lattice.solve(Lattice(kind, form, 1.0, porosity=1 - density))  # type: ignore[arg-type]
        assert solved.throat_mm > 0.04
        assert solved.wall_mm > 0.01
        void = (lattice.field(solved, np.array([[0.0] * 3, [2.0] * 3]))(p) > 0).reshape((2 * n,) * 3)
        sizes = np.bincount(ndimage.label(~void if form == "network" else void)[0].ravel())[1:]
        big = np.sort(sizes / sizes.sum())[::-1]
        assert big[0] > (0.97 if form == "network" else 0.3)


def test_refusals() -> None:
    with pytest.raises(GeometryError, match="falls apart"):
        lattice.solve(Lattice("neovius", "network", 1.5, porosity=0.75))
    with pytest.raises(GeometryError, match="closes its pores"):
        lattice.solve(Lattice("neovius", "sheet", 1.5, porosity=0.55))
    with pytest.raises(GeometryError, match="falls apart"):
        lattice.solve(Lattice("primitive", "network", 1.5, porosity=0.85))
    with pytest.raises(GeometryError, match="closes its pores"):
        lattice.solve(Lattice("gyroid", "sheet", 1.5, porosity=0.05))
    with pytest.raises(GeometryError, match="give one of"):
        lattice.solve(Lattice("gyroid", "sheet", 1.5))
    with pytest.raises(GeometryError, match="there are gyroid"):
        lattice.solve(Lattice("honeycomb", "sheet", 1.5, porosity=0.7))


@pytest.mark.parametrize("form", ["sheet", "network"])
def test_block_has_the_asked_porosity_and_wall(form: str) -> None:
    """A clipped 4-cell block: porosity within 2 points, wall within 10 %, all void open, two labyrinths beside a
    sheet."""
    asked = Lattice(
        "gyroid", form, 1.5, porosity=0.7 if form == "network" else None, wall_mm=0.25 if form == "sheet" else None
    )
    solved = lattice.solve(asked)
    region = shapes.box((0.2, 0.1, 0.3), (5.3, 5.3, 5.3))
    metal = lattice.field(solved, region.bounds) & region
    got = measure.certificate(metal, region, solved.thin_mm / 8, window_mm=3.8)
    assert measure.porosity(metal, region, 0.047) == pytest.approx(solved.porosity, abs=0.02)
    if form == "sheet":
        assert got["lattice_wall_um"] == pytest.approx(250, rel=0.1)
    else:
        assert got["lattice_neck_um"] == pytest.approx(1e3 * solved.thin_mm, rel=0.1)
    assert got["lattice_pore_size_um"] == pytest.approx(1e3 * solved.pore_mm, rel=0.1)
    assert got["throat_um"] == pytest.approx(1e3 * solved.throat_mm, rel=0.1)
    assert got["open_void_pct"] > 99.9
    void = measure._voxels(metal, *region.bounds, 0.1) > 0
    sizes = np.bincount(ndimage.label(void)[0].ravel())[1:]
    assert (sizes > 0.1 * void.sum()).sum() == (2 if form == "sheet" else 1)


def test_meshed_cell_has_the_field_volume() -> None:
    solved = lattice.solve(Lattice("gyroid", "sheet", 2.5, porosity=0.7))
    region = shapes.box((0, 0, 0), (2.5, 2.5, 2.5))
    metal = lattice.field(solved, region.bounds) & region
    mesh = polygonise(metal, 0.06)
    assert measure.is_manifold(mesh)
    assert mesh.volume_mm3 == pytest.approx(2.5**3 * 0.3, rel=0.012)


def test_field_never_hides_metal() -> None:
    """|field| <= lipschitz * distance to the zero set: checked by looking for sign changes inside the promised ball."""
    rng = np.random.default_rng(11)
    for kind in lattice.SURFACES:
        solid = lattice.field(
            lattice.solve(Lattice(kind, "sheet", 1.5, porosity=0.7 if kind in lattice.SURFACES[:4] else 0.8)),
            np.array([[-3.0] * 3, [3.0] * 3]),
        )
        p = rng.uniform(-1.5, 1.5, (3000, 3))
        value = solid(p)
        step = rng.normal(size=(40, 3))
        step /= np.linalg.norm(step, axis=1)[:, None]
        for d in step:
            q = p + d * (np.abs(value) / solid.lipschitz * 0.999)[:, None]
            assert np.mean(np.sign(solid(q)) != np.sign(value)) < 2e-3, kind


def test_fill_bonds_to_the_core_and_ends_at_the_envelope() -> None:
    core, envelope = shapes.cylinder((0, 0, 0), (0, 0, 6), 2), shapes.cylinder((0, 0, 0), (0, 0, 6), 3.5)
    design = Design(core, envelope - core, envelope, Lattice("gyroid", "network", 1.2, porosity=0.7))
    solved = lattice.solve(design.lattice)
    metal = lattice.fill(design, solved)
    mesh, report = lattice.trim(polygonise(metal, 0.12))
    assert measure.is_manifold(mesh)
    assert report["crumb_volume_mm3"] < 0.002 * report["kept_volume_mm3"]
    assert (envelope(mesh.vertices) < 0.01).all()
    want = np.pi * 4 * 6 + np.pi * (3.5**2 - 4) * 6 * 0.3
    assert mesh.volume_mm3 == pytest.approx(want, rel=0.03)
    with pytest.raises(GeometryError, match="printable"):
        lattice.fill(design, solved, min_feature_mm=0.9)


def test_trim_drops_crumbs_and_voids() -> None:
    big, hole, crumb = shapes.sphere((0, 0, 0), 4), shapes.sphere((0, 0, 0), 1), shapes.sphere((6, 0, 0), 1)
    whole: Field = (big - hole) | crumb
    mesh, report = lattice.trim(polygonise(whole, 0.2))
    assert isinstance(mesh, Mesh)
    assert (report["crumbs"], report["voids"]) == (1, 1)
    assert report["crumb_volume_mm3"] == pytest.approx(4.19, rel=0.03)
    assert mesh.volume_mm3 == pytest.approx(4 / 3 * np.pi * 64, rel=0.01)


def test_local_thickness_of_a_strut() -> None:
    """A 0.30 mm rod is measured 0.30 +- 0.02 mm."""
    rod = shapes.cylinder((-2, 0.013, 0.02), (2, 0.4, 0.9), 0.15)
    h = 0.025
    at = measure._voxels(rod, np.array([-1.0, -0.6, -0.6]), np.array([1.0, 1.2, 1.6]), h)
    assert measure.wall_percentiles(at < 0, h)[1] == pytest.approx(0.30, abs=0.02)


def test_connectivity_stops_at_necks() -> None:
    void = np.zeros((40, 20, 20), bool)
    void[:15, 4:16, 4:16] = True
    void[15:25, 8:12, 8:12] = True
    void[25:, 4:16, 4:16] = True
    exits = np.zeros_like(void)
    exits[0] = True
    assert measure.connectivity(void, exits, 0.0, 1.0) == 1.0
    assert measure.connectivity(void, exits, 3.0, 1.0) > 0.9
    assert measure.connectivity(void, exits, 8.0, 1.0) == pytest.approx(0.48, abs=0.06)


@pytest.mark.parametrize("seed", range(10))
def test_any_coat_is_one_closed_surface(seed: int) -> None:
    """Family, form, density, cell, shape and h at random: closed, oriented, accepted by the referee, and vertices that
    stay apart in a file's float32."""
    rng = np.random.default_rng(100 + seed)
    kind, form = lattice.SURFACES[seed % 8], ("sheet", "network")[int(rng.integers(2))]
    low, high = lattice.DENSITY[kind, form]
    cell, h = rng.uniform(1.0, 2.5), rng.uniform(0.08, 0.25)
    asked = Lattice(kind, form, cell, porosity=1 - rng.uniform(low + 0.01, high - 0.01))  # type: ignore[arg-type]
    axis = rng.normal(size=3)
    body = shapes.sphere(rng.uniform(-1, 1, 3), 4.0) - shapes.capsule(-3 * axis, 3 * axis, rng.uniform(1, 2))
    body = body & shapes.half_space(rng.uniform(-1, 1, 3), rng.normal(size=3)) | shapes.frustum(
        (0, 0, 0), axis, 1.5, 0.7
    )
    mesh = polygonise(lattice.field(lattice.solve(asked), body.bounds) & body, h)
    assert measure.bad_edges(mesh) == 0
    assert measure.manifold_status(mesh) == "NoError"
    assert len(np.unique(mesh.vertices.astype(np.float32), axis=0)) == len(mesh.vertices)
