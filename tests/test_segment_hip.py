"""Joints told apart by shape: a ball in a socket painted in closed form, from a clear gap to bone on bone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from implantforge.core import Array, Grid, InputError, Labels, Pose, Volume
from implantforge.stages import segment
from implantforge.stages.segment.heads import BONE_HU, Head, find_heads
from implantforge.stages.segment.joint import joint_space

STEP = np.array([0.9, 0.9, 1.1])
SHAPE = (120, 110, 100)
CENTRE = np.array([54.3, 49.1, 60.7])
RADIUS = 23.6
BONE, PLATE, FLESH = 280.0, 900.0, 45.0


def _layered(depth: Array) -> Array:
    """HU of a body by its signed distance (inside negative): a plate of 1.4 mm over spongy bone, sharp."""
    return np.where(depth > 0, np.nan, np.where(depth > -1.4, PLATE, BONE))


def _hip(gap_mm: float, push_mm: float, noise_hu: float = 17.0) -> Array:
    """HU of a ball on a neck that runs left and down, in a socket of RADIUS + gap; the ball is pushed up by push_mm."""
    fine = 2
    axes = [(np.arange(n * fine) + 0.5) / fine * s - s / 2 for n, s in zip(SHAPE, STEP)]
    x, y, z = (a[:, None, None] if k == 0 else a[None, :, None] if k == 1 else a[None, None, :]
               for k, a in enumerate(axes))  # fmt: skip
    ball = np.sqrt((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (z - CENTRE[2]) ** 2) - RADIUS
    neck = np.array([0.72, 0.0, -0.69])
    along = (x - CENTRE[0]) * neck[0] + (z - CENTRE[2]) * neck[2]
    across = np.sqrt(np.maximum((ball + RADIUS) ** 2 - along**2, 0.0))
    femur = np.minimum(ball, np.maximum(across - 15.0, -along))
    low = CENTRE[2] - push_mm
    far = np.sqrt((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (z - low) ** 2)
    cup = np.maximum(np.maximum(far - (RADIUS + gap_mm + 14.0), RADIUS + gap_mm - far), along - 6.0)
    cup = np.maximum(cup, -femur)
    hu = np.full(np.broadcast_shapes(femur.shape, cup.shape), FLESH, dtype=np.float32)
    for body in (cup, femur):
        inside = _layered(np.broadcast_to(body, hu.shape))
        hu = np.where(np.isnan(inside), hu, inside)
    hu = hu.reshape(SHAPE[0], fine, SHAPE[1], fine, SHAPE[2], fine).mean(axis=(1, 3, 5))
    hu = gaussian_filter(hu, 0.35 / STEP)
    return (hu + np.random.default_rng(0).normal(0, noise_hu, SHAPE)).astype(np.float32)


def _read(gap_mm: float, push_mm: float) -> tuple[Array, Array, Array]:
    """Border radii from the true centre, gap really left there, and rays, of every ray that has a border."""
    smooth = gaussian_filter(_hip(gap_mm, push_mm), 0.6 / STEP)
    found = joint_space(smooth, STEP, Head(CENTRE + [1.2, -0.9, 0.8], RADIUS - 1.5, 0.4), lateral=1.0)
    np.testing.assert_allclose(found.head.at_mm, CENTRE, atol=0.35)
    assert found.head.radius_mm == pytest.approx(RADIUS, abs=0.35)
    known = np.isfinite(found.gap_mm)
    at = found.head.at_mm + found.rays[known] * found.gap_mm[known, None] - CENTRE
    radius = np.linalg.norm(at, axis=1)
    rays = at / radius[:, None]
    reach = RADIUS + gap_mm
    # the socket's centre lies push_mm below the ball's
    wall = -push_mm * rays[:, 2] + np.sqrt(np.maximum((push_mm * rays[:, 2]) ** 2 + reach**2 - push_mm**2, 0.0))
    return radius, np.maximum(wall - RADIUS, 0.0), rays


@pytest.mark.parametrize(("gap_mm", "push_mm"), [(3.0, 0.0), (2.0, 1.5), (2.0, 2.0), (2.0, 2.4)])
def test_the_border_runs_between_head_and_socket(gap_mm: float, push_mm: float) -> None:
    """Also where bone lies on bone: push_mm beyond gap_mm wears the socket away."""
    radius, gap, rays = _read(gap_mm, push_mm)
    inside = np.maximum(RADIUS - radius, 0.0)
    beyond = np.maximum(radius - RADIUS - gap, 0.0)
    off = inside + beyond
    assert off.mean() < 0.25
    assert np.percentile(off, 99) < 0.8
    fused = gap < 0.3
    if push_mm >= gap_mm:
        assert fused.sum() > 5
        assert off[fused].mean() < 0.6
    # every direction that looks into the socket has its border
    neck = np.array([0.72, 0.0, -0.69])
    socket = rays @ neck < -0.05
    assert socket.sum() > 0.35 * 5000


def test_a_head_is_found_without_being_shown() -> None:
    smooth = gaussian_filter(_hip(3.0, 0.0), 0.6 / STEP)
    heads = find_heads(smooth, smooth > BONE_HU, STEP)
    assert len(heads) == 1
    assert np.linalg.norm(heads[0].at_mm - CENTRE) < 3.0


def _scene(metal_at: Array | None) -> tuple[Volume, Labels]:
    """Two bone bars in flesh, and streaks around a metal rod beside the first."""
    grid = Grid(Pose(np.eye(3), np.zeros(3)), np.ones(3), (120, 60, 60))
    rng = np.random.default_rng(1)
    hu = rng.normal(45.0, 10.0, grid.shape)
    values = np.zeros(grid.shape, np.uint8)
    values[20:30, 20:30], values[90:100, 20:30] = 1, 2
    hu[values > 0] = 800.0
    names = {"femur_left": 1, "femur_right": 2}
    if metal_at is not None:
        x = np.indices(grid.shape)
        away = np.hypot(x[0] - metal_at[0], x[1] - metal_at[1])
        hu += np.where(away < 24, 90.0 * np.sign(np.sin(x[0])), 0.0)
        hu[away < 4] = 3071.0
        values[away < 4] = 30
        names["metal"] = 30
    return Volume(grid, np.rint(hu).astype(np.int16)), Labels(grid, values, names)


def test_metal_counts_for_the_bone_it_lies_beside() -> None:
    volume, labels = _scene(np.array([38.0, 25.0]))
    found = segment.artefacts(volume, labels)
    assert set(found) == {"femur_left", "femur_right"}
    near, far = found["femur_left"], found["femur_right"]
    assert near.metal_mm3 == float(labels.mask("metal").sum())
    assert near.nearest_mm == pytest.approx(5.0, abs=1.0)
    assert near.near_pct > 95.0
    assert near.index_hu == pytest.approx(90.0, rel=0.1)  # the streaks are +-90 HU
    assert far.near_pct == 0.0
    assert far.index_hu == 0.0


def test_no_metal_no_artefact() -> None:
    assert segment.artefacts(*_scene(None)) == {}


def _head_scan(saw_mm: float = 0.0) -> tuple[Volume, Array]:
    """A vault: an ellipsoid shell 7 mm thick with a spine stub below and a holder arc that is not bone; its truth."""
    step = np.array([1.2, 1.2, 1.5])
    shape = (150, 170, 120)
    x, y, z = (np.arange(n) * s for n, s in zip(shape, step))
    x, y, z = x[:, None, None] - 90.0, y[None, :, None] - 100.0, z[None, None, :] - 80.0
    level = np.sqrt((x / 72) ** 2 + (y / 88) ** 2 + (z / 70) ** 2)
    vault = (level < 1.0) & (level > 0.9) & (z > -45)
    spine = (np.hypot(x, y - 30) < 14) & (z < -62)
    hu = np.full(shape, 30.0)
    hu[np.broadcast_to(level > 1.08, shape)] = -1000.0
    arc = np.broadcast_to((np.abs(np.hypot(x, y) - 97) < 3) & (y > 0), shape)
    hu[arc] = 400.0
    vault = vault & ~(np.abs(z + 0.05 * y) < saw_mm / 2)
    hu[vault] = 1100.0
    hu[np.broadcast_to(spine, shape)] = 600.0
    hu = gaussian_filter(hu, 0.5) + np.random.default_rng(2).normal(0, 15, shape)
    return Volume(Grid(Pose(np.eye(3), np.zeros(3)), step, shape), np.rint(hu).astype(np.int16)), vault


@pytest.mark.parametrize("saw_mm", [0.0, 3.5])
def test_a_vault_is_skull_also_when_sawn_and_its_holder_is_not(saw_mm: float) -> None:
    volume, truth = _head_scan(saw_mm)
    labels = segment.bones(volume)
    assert set(labels.names) == {"skull"}
    mask = labels.mask("skull")
    assert 2.0 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93


def test_a_region_that_is_not_there_is_refused_by_name() -> None:
    volume, _ = _head_scan()
    with pytest.raises(InputError, match="no femur"):
        segment.bones(volume, "hip")
    with pytest.raises(InputError, match="no knee"):
        segment.bones(volume, "knee")


def test_coarse_voxels_give_one_bone_label() -> None:
    volume, _ = _head_scan()
    coarse = Volume(
        Grid(volume.grid.pose, volume.grid.spacing_mm * 2.5, (60, 68, 48)),
        volume.hu[::2, ::2, ::2][:60, :68, :48].copy(),
    )
    labels = segment.bones(coarse)
    assert set(labels.names) == {"bone"}
