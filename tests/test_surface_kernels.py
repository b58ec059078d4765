"""Kernels of the surface stage beside their plain twins."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from painted import Bone, Scan, ball, rod, scan
from skimage.segmentation import watershed

from implantforge.core import Mesh, Pose
from implantforge.geom import edges, flooding, meshing, nearby, shapes


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 1.0), (0.5, 0.5, 1.5)])
def test_fit_is_the_least_squares_fit(spacing) -> None:
    bone = Bone(rod(9, (0.2, 0.25, 1.0)), 2.0, 1250.0)
    volume, labels = scan({"a": bone}, (14, 14, 8), Scan(spacing, noise_hu=12.0))
    step, random = volume.grid.spacing_mm, np.random.default_rng(0)
    axis = np.array([0.2, 0.25, 1.0]) / np.linalg.norm([0.2, 0.25, 1.0])
    side = np.cross(axis, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    turn = random.uniform(0, 2 * np.pi, 12)
    normals = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * np.cross(axis, side)
    points = 9.0 * normals + random.uniform(-2, 2, 12)[:, None] * axis - volume.grid.pose.origin_mm
    given = edges.prior(12, cortex=(1250.0, 200.0), flesh=(50.0, 30.0))
    blur = np.array([0.4, 0.4, 0.5])
    how = edges.Scan(volume.hu, labels.values, 1, step, blur, 12.0)
    found = edges.fit(how, points, normals, np.zeros(12), given, reach_mm=(4.0, 2.6), rounds=60)
    assert (found.gap_mm > 1e8).all()
    for n in range(12):
        want = reference.layer_fit(volume.hu, step, points[n], normals[n], blur, (4.0, 2.6), np.array([12.0, 60.0, 40.0]),
                                   given.mean[n, :5], given.sigma[n, :5])  # fmt: skip
        assert found.parameters[n, 0] == pytest.approx(want[0], abs=0.004)
        assert found.parameters[n, 3] == pytest.approx(want[3], abs=12)
        assert found.parameters[n, 4] == pytest.approx(want[4], abs=3)


def test_share_of_threads_changes_nothing() -> None:
    volume, labels = scan({"a": Bone(ball(8))}, (12, 12, 12), Scan(noise_hu=12.0))
    normals = np.random.default_rng(1).normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    how = edges.Scan(volume.hu, labels.values, 1, volume.grid.spacing_mm, np.full(3, 0.45), 12.0)
    given = edges.prior(50, cortex=(1250.0, 200.0), flesh=(50.0, 30.0))
    one, three = (edges.fit(how, 8 * normals - volume.grid.pose.origin_mm, normals, np.full(50, 0.12), given,
                            reach_mm=(4.0, 2.6), search=True, threads=n) for n in (1, 3))  # fmt: skip
    assert one.parameters.tobytes() == three.parameters.tobytes()


def test_distances_and_crossings_agree_with_all_pairs() -> None:
    random = np.random.default_rng(2)
    corners = random.uniform(0, 4, (60, 1, 3)) + random.uniform(-0.8, 0.8, (60, 3, 3))
    mesh = Mesh(corners.reshape(-1, 3), np.arange(180, dtype=np.int32).reshape(-1, 3))
    points = random.uniform(-1, 5, (200, 3))
    want = np.minimum(reference.triangle_distance(corners, points), 0.9)
    assert np.allclose(nearby.distance_within(points, mesh, 0.9), want, atol=1e-9)
    hit = np.zeros(60, bool)
    pairs = reference.crossing_pairs(mesh.vertices, mesh.faces)
    for f, _ in pairs:
        hit[f] = True
    assert hit.any()
    assert not hit.all()
    found = nearby.crossing_faces(mesh)
    assert found[hit].all()
    assert not found[sorted(set(range(60)) - {one for pair in pairs for one in pair})].any()


def _plate(*corners: tuple[float, float]) -> Mesh:
    """Triangles in one oblique plane, three corners each, none shared but where corners are equal."""
    flat = np.array(corners) @ np.array([[0.6, 0.8, 0.0], [-0.48, 0.36, 0.8]]) + [100.0, -40.0, 700.0]
    points, numbers = np.unique(flat.round(12), axis=0, return_inverse=True)
    return Mesh(points, numbers.reshape(-1, 3).astype(np.int32))


@pytest.mark.parametrize(("corners", "cross"), [
    (((0, 0), (1, 0), (0, 1), (0, 1), (1, 1), (0, 2)), False),  # one corner in common
    (((0, 0), (1, 0), (0, 1), (2, 0), (3, 0), (2, 1)), False),
    (((0, 0), (2, 0), (0, 2), (0.3, 0.3), (3, 0.4), (0.3, 3)), True),
    (((0, 0), (3, 0), (0, 3), (0.5, 0.5), (1, 0.5), (0.5, 1)), True),  # one within the other
    (((0, 0), (2, 0), (0, 2), (0, 0), (2, 0.5), (0.5, 2)), True),  # overlapping from a common corner
])  # fmt: skip
def test_faces_of_one_plane_cross_where_they_lie_on_each_other(corners, cross) -> None:
    assert nearby.crossing_faces(_plate(*corners)).any() == cross


def test_flat_and_ruled_surfaces_as_meshed_cross_nowhere() -> None:
    rod = shapes.cylinder([0, 0, 0], [0, 0, 9], 6.0)
    tilted = rod.moved(Pose(np.array([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]]), np.array([3.0, 2.0, 1.0])))
    capped = shapes.sphere([0, 0, 0], 6.0) & shapes.half_space([0, 0, 2.0], [0, 0.3, 0.95])
    for field in (rod, tilted, capped, shapes.box([0.3, 0, 0], [8, 7, 6])):
        assert not nearby.crossing_faces(meshing.polygonise(field, 0.7)).any()


def test_flood_is_the_watershed_where_no_two_heights_are_equal() -> None:
    random = np.random.default_rng(4)
    shape = (23, 19, 17)
    height = random.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    mask = random.random(shape) > 0.25
    seeds = np.where(random.random(shape) > 0.995, random.integers(1, 256, shape), 0).astype(np.uint8)
    want = watershed(-height, seeds * mask, mask=mask)
    assert len(np.unique(want)) > 10
    assert (flooding.flooded(height, seeds, mask, 1.0) == want).all()
    assert not flooding.flooded(height, seeds, np.zeros(shape, np.bool_), 1.0).any()
