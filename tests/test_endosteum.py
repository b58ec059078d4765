"""The endosteal edge of a tube of known size, painted by scanners that differ."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtr

from implantforge.stages.anatomy import endosteum

INNER_MM, SPACING_MM, SHAPE = 6.37, 0.5, (72, 72, 60)
AXIS = np.array([0.08, -0.05, 1.0]) / np.linalg.norm([0.08, -0.05, 1.0])


def radius_mm(samples):
    """Distance (mm) of points, in samples, from the tube's slanted axis."""
    away = (np.asarray(samples, float) - (np.array(SHAPE) - 1.0) / 2.0) * SPACING_MM
    return np.linalg.norm(away - np.multiply.outer(away @ AXIS, AXIS), axis=-1)


def tube(cortex_hu, marrow_hu, blur_mm, wall_mm, noise_hu=0.0):
    """HU of the tube in soft tissue and depth under its outer surface."""
    r = radius_mm(np.moveaxis(np.indices(SHAPE), 0, -1))
    inner, outer = ndtr((r - INNER_MM) / blur_mm), ndtr((r - INNER_MM - wall_mm) / blur_mm)
    hu = marrow_hu + (cortex_hu - marrow_hu) * inner - (cortex_hu - 50.0) * outer
    hu = hu + np.random.default_rng(3).normal(0.0, noise_hu, SHAPE) if noise_hu else hu
    return hu.astype(np.float32), (INNER_MM + wall_mm - r).astype(np.float32)


def off_mm(hu, depth):
    """The wall at points on the true edge, away from the tube's ends: mean and standard deviation."""
    smooth = ndimage.gaussian_filter(hu, 1.0)
    wall = endosteum.distance(
        smooth, lambda at: ndimage.map_coordinates(hu, at.T, order=1), depth, 700.0, 2.0, SPACING_MM
    )
    rng = np.random.default_rng(0)
    points = rng.uniform([8, 8, 10], np.array(SHAPE) - [9, 9, 11], (4000, 3))
    across = (points - (np.array(SHAPE) - 1.0) / 2.0) * SPACING_MM
    across -= np.multiply.outer(across @ AXIS, AXIS)
    unit = across / np.linalg.norm(across, axis=1)[:, None]
    at = points + unit * ((INNER_MM - radius_mm(points)) / SPACING_MM)[:, None]
    seen = ndimage.map_coordinates(wall, at.T, order=1)
    return seen.mean(), seen.std()


@pytest.mark.parametrize("cortex_hu, marrow_hu", [(1000.0, -40.0), (1300.0, -40.0), (1500.0, -40.0), (1300.0, 150.0)])
@pytest.mark.parametrize("blur_mm", [0.35, 0.55])
def test_edge_stands_where_the_cortex_ends_whatever_its_hu(cortex_hu, marrow_hu, blur_mm):
    mean, spread = off_mm(*tube(cortex_hu, marrow_hu, blur_mm, 4.0))
    assert abs(mean) < 0.03 and spread < 0.03


def test_thin_wall_and_noise_move_it_little():
    thin, _ = off_mm(*tube(1100.0, -40.0, 0.4, 2.4))
    noisy, spread = off_mm(*tube(1300.0, -40.0, 0.4, 4.0, 60.0))
    assert abs(thin) < 0.06 and abs(noisy) < 0.04 and spread < 0.05


def test_distances_grow_by_a_millimetre_a_millimetre():
    hu, depth = tube(1300.0, -40.0, 0.4, 5.0)
    wall = endosteum.distance(hu, lambda at: ndimage.map_coordinates(hu, at.T, order=1), depth, 700.0, 2.0, SPACING_MM)
    r = radius_mm(np.moveaxis(np.indices(SHAPE), 0, -1))[:, :, 12:-12]
    near = np.abs(r - INNER_MM) < 1.5
    assert np.abs(wall[:, :, 12:-12] - (r - INNER_MM))[near].max() < 0.06


def test_wall_keeps_its_depth_and_none_without_a_cavity():
    hu, depth = tube(1300.0, -40.0, 0.4, 1.2)  # thinner than the 2 mm that must stay
    mean, _ = off_mm(hu, depth)
    assert mean == pytest.approx(0.8, abs=0.05)
    assert (
        endosteum.distance(np.full_like(hu, 1200.0), lambda at: np.full(len(at), 1200.0), depth, 700.0, 2.0, 0.5)
        is None
    )
