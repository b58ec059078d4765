"""Shapes: signed distances against brute force, and the loft of a stem."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from implantforge.core import Field, GeometryError, Grid, Pose
from implantforge.geom import shapes
from implantforge.geom.meshing import polygonise

EXACT = {
    "sphere": shapes.sphere((1, 2, 3), 4),
    "box": shapes.box((1, 0, 0), (6, 4, 3)),
    "capsule": shapes.capsule((0, 0, -4), (1, 2, 4), 2),
    "cylinder": shapes.cylinder((0, 0, -3), (1, 2, 4), 2.5),
    "frustum": shapes.frustum((0, 0, -3), (1, 2, 4), 3.0, 1.0),
    "cone": shapes.frustum((0, 0, -3), (0, 0, 4), 3.0, 0.0),
    "round_cone": shapes.round_cone((0, 0, -3), (1, 2, 4), 3.0, 1.0),
    "torus": shapes.torus((0, 0, 0), (1, 1, 2), 5.0, 1.5),
}


def on_surface(field: Field, h: float, seed: int = 0) -> np.ndarray:
    """Random points on the meshed surface."""
    mesh = polygonise(field, h)
    rng = np.random.default_rng(seed)
    area = np.linalg.norm(mesh.face_cross, axis=1)
    pick = rng.choice(len(area), 80_000, p=area / area.sum())
    a, b = np.sort(rng.random((2, len(pick), 1)), axis=0)
    corners = mesh.vertices[mesh.faces[pick]]
    return a * corners[:, 0] + (b - a) * corners[:, 1] + (1 - b) * corners[:, 2]


@pytest.mark.parametrize("name", EXACT)
def test_distance_is_euclidean(name: str) -> None:
    shape = EXACT[name]
    rng = np.random.default_rng(5)
    p = rng.uniform(shape.bounds[0] - 2, shape.bounds[1] + 2, (2000, 3))
    far = cKDTree(on_surface(shape, 0.2)).query(p)[0]
    got = shape(p)
    assert np.abs(np.abs(got) - far).max() < 0.3  # marching cubes cut sharp edges by up to a cell
    assert np.abs(np.median(np.abs(got) - far)) < 0.02
    q = p + rng.normal(size=p.shape) * 0.3
    assert (np.abs(shape(q) - got) <= np.linalg.norm(q - p, axis=1) * (1 + 1e-9) + 1e-12).all()


def test_bounds_hold_the_solid() -> None:
    for name, shape in EXACT.items():
        p = np.random.default_rng(6).uniform(shape.bounds[0] - 1, shape.bounds[1] + 1, (20_000, 3))
        inside = p[shape(p) < 0]
        assert ((inside >= shape.bounds[0] - 1e-9) & (inside <= shape.bounds[1] + 1e-9)).all(), name


def stem() -> Field:
    z = [-120, -80, -40, 0, 20]
    return shapes.loft(z, [0, 0.5, 1, 3, 6], [5, 6, 7, 14, 20], [5, 6, 8, 13, 18], [4, 5, 6, 7.5, 8], 2.8)


def test_loft_offsets() -> None:
    """Offsets of 1 to 2 mm are right within 3 %, by the closest of many surface points."""
    body = stem()
    p = np.random.default_rng(7).uniform(body.bounds[0] - 3, body.bounds[1] + 3, (25_000, 3))
    value = body(p)
    p, value = p[(np.abs(value) > 0.8) & (np.abs(value) < 2.2)], value[(np.abs(value) > 0.8) & (np.abs(value) < 2.2)]
    far = cKDTree(on_surface(body, 0.4)).query(p)[0]
    # surface samples 0.25 mm apart overstate the nearest distance a little
    error = np.abs(value) / far - 1
    assert len(p) > 1000
    assert np.abs(np.median(error)) < 0.01
    assert np.percentile(error, 99.5) < 0.03


def test_loft_skips_are_safe() -> None:
    """|f| never exceeds lipschitz times the distance to the surface, so meshing loses nothing."""
    body = stem()
    p = np.random.default_rng(8).uniform(body.bounds[0] - 5, body.bounds[1] + 5, (4000, 3))
    far = cKDTree(on_surface(body, 0.4)).query(p)[0]
    assert (np.abs(body(p)) <= body.lipschitz * far + 0.05).all()


def test_loft_sections_and_tip() -> None:
    body = shapes.loft([0, 50], [0, 0], [6, 6], [6, 6], [4, 4], 2.0)
    p = np.array([[6.0, 0, 30], [-6, 0, 30], [0, 4, 30], [0, 0, 0], [0, 0, 50], [0, 0, -2], [0, 0, 53], [9, 0, 54]])
    assert np.allclose(body(p), [0, 0, 0, 0, 0, 2, 3, 5], atol=0.02)


def test_loft_refusals() -> None:
    with pytest.raises(GeometryError, match="rising"):
        shapes.loft([0, 0], [0, 0], [1, 1], [1, 1], [1, 1])
    with pytest.raises(GeometryError, match="positive"):
        shapes.loft([0, 1], [0, 0], [1, 0], [1, 1], [1, 1])


def test_from_samples_reads_back() -> None:
    grid = Grid(
        Pose(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([5.0, -6, -5])), np.full(3, 0.5), (24, 22, 20)
    )
    ball = shapes.sphere((0, 0, 0), 3.0)
    values = ball(grid.to_patient(np.indices(grid.shape).reshape(3, -1).T)).reshape(grid.shape)
    again = shapes.from_samples(grid, values)
    p = np.random.default_rng(9).uniform(-4, 4, (1000, 3))
    assert np.abs(again(p) - ball(p)).max() < 0.2
    assert polygonise(again, 0.25).volume_mm3 == pytest.approx(36 * np.pi, rel=0.03)


def test_smooth_union_grows_only_the_seam() -> None:
    a, b = shapes.sphere((0, 0, 0), 3), shapes.sphere((4, 0, 0), 3)
    joined, plain = shapes.smooth_union(a, b, 1.0), a | b
    p = np.random.default_rng(10).uniform(-4, 8, (5000, 3))
    gain = plain(p) - joined(p)
    assert gain.min() >= 0
    assert gain.max() == pytest.approx(0.25, abs=0.01)
    assert (gain[np.abs(a(p) - b(p)) > 1] == 0).all()


def test_from_mesh_reads_back() -> None:
    ring = shapes.torus((0, 0, 0), (1, 2, 3), 6.0, 2.0)
    mesh = polygonise(ring, 0.3)
    again = shapes.from_mesh(mesh, 0.25, 1.5)
    p = np.random.default_rng(13).uniform(-9, 9, (20_000, 3))
    truth = np.clip(ring(p), -1.5, 1.5)
    near = np.abs(truth) < 1.2
    assert np.abs(again(p) - truth)[near].max() < 0.08
    assert (np.sign(again(p)) == np.sign(truth))[np.abs(truth) > 0.05].all()
    assert polygonise(again, 0.3).volume_mm3 == pytest.approx(mesh.volume_mm3, rel=0.01)
