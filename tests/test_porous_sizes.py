"""Distances finer than voxels, local thickness, throats, openness and area on shapes whose sizes are known."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from implantforge.kernels import spheres
from implantforge.stages.porous import passages, walls

N = 56
AXIS = np.arange(N) - N / 2 + 0.3
X, Y, Z = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
CORE = (slice(14, -14),) * 3


def slab(normal: tuple[float, float, float], wide: float) -> np.ndarray:
    a, b, c = np.array(normal) / np.linalg.norm(normal)
    return np.abs(a * X + b * Y + c * Z) - wide / 2


SHAPES = {
    "sphere": (np.sqrt(X**2 + Y**2 + Z**2) - 13.3, 26.6),
    "slab": (slab((1, 0, 0), 7.7), 7.7),
    "oblique slab": (slab((0.48, 0.6, 0.64), 7.7), 7.7),
    "thin slab": (slab((0.3, 0.9, -0.2), 3.1), 3.1),
    "cylinder": (np.sqrt(X**2 + (0.8 * Y + 0.6 * Z) ** 2) - 5.7, 11.4),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_thickness_of_known_shapes_from_distances(shape):
    field, true = SHAPES[shape]
    field = field.astype(np.float32)
    size = walls.thickness(walls.distance(field, 1.0))
    read = size[CORE][field[CORE] < 0]
    assert float(np.sqrt(((read - true) ** 2).mean())) < 0.25
    assert not size[field >= 0].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_thickness_of_known_shapes_from_voxels(shape):
    field, true = SHAPES[shape]
    size = walls.thickness(walls.distance(walls.levels(field < 0)))
    read = size[CORE][field[CORE] < 0]
    assert float(np.sqrt(((read - true) ** 2).mean())) < 0.85


def test_pores_are_the_other_side_of_walls():
    field = SHAPES["cylinder"][0].astype(np.float32)
    away = walls.distance(field, 1.0)
    assert np.array_equal(walls.thickness(away, -1), walls.thickness(-away, 1))


def test_distances_are_those_of_the_twin():
    random = np.random.default_rng(3)
    values = random.normal(size=(9, 11, 13)).astype(np.float32)
    found, twin = walls.distance(values), reference.crossing_distance(values)
    assert np.abs(found) == pytest.approx(np.maximum(twin, 0.03), abs=0.06)
    assert np.array_equal(found > 0, values < 0)


def test_one_side_is_the_same_alone():
    values = np.random.default_rng(5).normal(size=(14, 15, 16)).cumsum(axis=0).cumsum(axis=1).astype(np.float32)
    whole = walls.distance(values)
    for side in (1, -1):
        asked = (values < 0) == (side > 0)
        assert np.array_equal(walls.distance(values, side=side)[asked], whole[asked])


def test_painted_balls_are_those_of_the_twin():
    random = np.random.default_rng(4)
    x = np.sort(random.uniform(0, 20, 30))
    balls = np.column_stack([x, random.uniform(0, 20, (30, 2)), random.uniform(0.5, 6, 30)]).astype(np.float32)
    away = random.normal(size=(20, 17, 23)).astype(np.float32)
    out, offsets = np.empty_like(away), np.searchsorted(x, np.arange(21))
    spheres.paint(balls, offsets, np.array([0, 7, 20]), away, 1.0, 0.3, out)
    assert out == pytest.approx(reference.painted_balls(balls, away, 0.3), abs=1e-5)


@pytest.mark.parametrize(("side", "thinned"), [(1, 1e9), (-1, 1e9), (1, 2.0), (-1, 2.0)])
def test_centres_are_those_of_the_twin(side, thinned):
    """Samples by the ridge, and the balls on it, of a random body."""
    values = np.random.default_rng(6).normal(size=(14, 15, 16)).cumsum(axis=0).cumsum(axis=1).cumsum(axis=2)
    away = walls.distance(values.astype(np.float32))
    count, keep = np.empty(14, np.int64), np.empty(away.shape, np.bool_)
    spheres.ridge(away, float(side), thinned, count, keep)
    balls = np.empty((int(count.sum()), 4), np.float32)
    spheres.centres(away, float(side), keep, np.concatenate([[0], np.cumsum(count)]), 0.9, balls)
    kept, twin = reference.ridge_balls(away.astype(float), side, thinned, 0.9)
    assert np.array_equal(count, keep.sum(axis=(1, 2))) and len(twin) > 20
    # of two all but equal neighbours rounding picks one
    assert np.mean(kept != keep) <= (0 if thinned > 1e3 else 0.01)
    assert balls[kept[keep]] == pytest.approx(twin[keep[kept]], abs=1e-3)


def test_softened_steps_are_those_of_the_twin():
    mask = np.random.default_rng(7).uniform(size=(7, 8, 9)) < 0.5
    assert walls.levels(mask) == pytest.approx(reference.softened(mask), abs=1e-6)


def test_area_is_that_of_the_twin():
    values = np.random.default_rng(8).normal(size=(5, 6, 7))
    values[1, 2, 3] = np.nan
    assert passages.area(values) == pytest.approx(reference.surface_area(values, passages._TETRAHEDRA), rel=1e-9)


def test_area_of_a_sphere():
    assert passages.area(SHAPES["sphere"][0]) == pytest.approx(4 * np.pi * 13.3**2, rel=2e-3)


def test_area_leaves_out_what_is_no_number():
    field = SHAPES["slab"][0].copy()
    field[:, :, N // 2 :] = np.nan
    assert passages.area(field) == pytest.approx(2 * (N - 1) * (N // 2 - 1), rel=1e-6)


def test_throats_of_crossed_tubes():
    """Tubes of 9, 6 and 0 steps along x, y and z."""
    tubes = np.maximum(4.5 - np.sqrt(Y**2 + Z**2), 3.0 - np.sqrt(X**2 + (Z - 16) ** 2)).astype(np.float32)
    away = walls.distance(tubes, 1.0)
    assert passages.throats(away, -1) == pytest.approx([9.0, 6.0, 0.0], abs=0.9)


def test_a_sphere_enters_as_far_as_the_neck_lets_it():
    """A chamber behind a hole of 8 steps: swept whole by spheres up to the hole, not at all by larger ones."""
    room = np.sqrt(X**2 + Y**2 + Z**2) - 14.0
    hole = np.maximum(np.sqrt(Y**2 + Z**2) - 4.0, -X)
    void = np.minimum(room, hole)
    away = walls.distance((-void).astype(np.float32), 1.0)
    outside = np.zeros(void.shape, np.bool_)
    outside[-1] = True
    share = passages.openness(away, -1, outside, np.array([0.0, 4.0, 7.0, 10.0]), room < 0)
    assert share[:3] == pytest.approx(1.0, abs=0.01) and share[3] < 0.02
    assert np.all(np.diff(share) <= 1e-9)


def test_void_that_is_open_reads_so_for_small_spheres():
    """Rows of touching balls, all of it reached by what fits into them."""
    void = np.minimum(np.sqrt(((X + 9) % 18 - 9) ** 2 + Y**2 + Z**2) - 11.3, 50).astype(np.float32)
    away = walls.distance(-void, 1.0)
    share = passages.openness(away, -1, passages.faces(void.shape), np.array([0.0, 3.0, 6.0, 9.0, 12.0]))
    assert share.min() == 1.0


def test_pieces_and_their_shares():
    mask = np.zeros((12, 12, 12), np.bool_)
    mask[:3], mask[6:7, 1:4, 1:4] = True, True
    assert passages.pieces(mask) == (2, pytest.approx(432 / 441))
    mask[11, 11, 11] = True  # a crumb cut off by the faces
    assert passages.pieces(mask) == (2, pytest.approx(432 / 442))
    mask[10, 6, 6] = True
    assert passages.pieces(mask)[0] == 3
    assert passages.pieces(np.zeros((4, 4, 4), np.bool_)) == (0, 0.0)
