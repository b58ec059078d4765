"""Meshes of fields: truth, closedness, determinism."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
from scipy import ndimage
from scipy.spatial.transform import Rotation

from implantforge.core import Field, GeometryError, Grade, Lattice, Mesh, Pose
from implantforge.geom import measure, program, shapes
from implantforge.geom.meshing import polygonise
from implantforge.kernels import tpms
from implantforge.stages import lattice


def test_sphere_converges_at_second_order() -> None:
    ball = shapes.sphere((0.3, 0.2, 0.1), 5.0)
    truth = 4 / 3 * np.pi * 125
    errors = [abs(polygonise(ball, h).volume_mm3 / truth - 1) for h in (1.0, 0.5, 0.25)]
    assert errors[-1] < 2e-3
    assert all(a / b > 3.3 for a, b in itertools.pairwise(errors))


def test_torus_volume_and_vertices_on_the_surface() -> None:
    ring = shapes.torus((0, 0, 0), (1, 2, 3), 6.0, 2.0)
    mesh = polygonise(ring, 0.25)
    assert mesh.volume_mm3 == pytest.approx(2 * np.pi**2 * 6 * 4, rel=4e-3)
    # the margin that keeps vertices apart is 1 % of an edge
    assert np.abs(ring(mesh.vertices)).max() < 0.011 * 0.25
    assert measure.manifold_status(mesh) == "NoError"


def test_flat_faces_are_exact() -> None:
    mesh = polygonise(shapes.box((0, 0, 0), (4, 3, 2)), 0.5)
    assert np.abs(mesh.bounds - [[-2, -1.5, -1], [2, 1.5, 1]]).max() < 0.006


@pytest.mark.parametrize("seed", range(6))
def test_noise_is_closed_and_oriented(seed: int) -> None:
    """Signs at random meet every case and every ambiguous face."""
    values = np.random.default_rng(seed).normal(size=(14, 14, 14))

    def evaluate(p: np.ndarray) -> np.ndarray:
        i = np.rint(p).astype(int)
        inside = ((i > 0) & (i < 13)).all(axis=1)
        return np.where(inside, values[tuple(np.clip(i, 0, 13).T)], 1.0)

    mesh = polygonise(Field(evaluate, np.array([[0.0] * 3, [13.0] * 3]), 100.0), 1.0)
    assert len(mesh.faces) > 2000
    assert measure.is_manifold(mesh)
    assert reference.edge_count_manifold(mesh.faces)
    assert measure.manifold_status(mesh) == "NoError"
    assert mesh.volume_mm3 > 0


def test_exact_zeros_and_blocks_seams() -> None:
    """A cube whose field vanishes on whole planes of samples still closes (its edges lose up to half a cell)."""
    h = 0.5
    low = np.array([-4.0] * 3)
    origin = low - np.array([1.382, 1.3819, 1.3821]) * h
    grid_plane = origin + 8 * h
    block = Field(lambda p: np.abs(p - grid_plane - 2.0).max(axis=1) - 2.0, np.array([low, low + 10.0]), 1.0)
    mesh = polygonise(block, h)
    assert measure.is_manifold(mesh)
    assert mesh.volume_mm3 == pytest.approx(64, rel=0.1)
    short = np.linalg.norm(mesh.vertices[mesh.faces[:, 0]] - mesh.vertices[mesh.faces[:, 1]], axis=1)
    assert short.min() > 0.005 * h


def test_refuses_what_leaves_the_bounds() -> None:
    ball = shapes.sphere((0, 0, 0), 5.0)
    with pytest.raises(GeometryError, match="bounds"):
        polygonise(ball, 0.5, bounds=np.array([[-5, -5, -5], [5, 5, 3.0]]))
    with pytest.raises(GeometryError, match="no surface"):
        polygonise(ball, 0.5, bounds=np.array([[10, 10, 10], [15, 15, 13.0]]))
    with pytest.raises(GeometryError, match="NaN"):
        polygonise(Field(lambda p: np.full(len(p), np.nan), ball.bounds), 0.5)


def test_detects_broken_meshes() -> None:
    good = polygonise(shapes.sphere((0, 0, 0), 2.0), 0.5)
    assert not measure.is_manifold(Mesh(good.vertices, good.faces[1:]))
    turned = good.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not measure.is_manifold(Mesh(good.vertices, turned))


DIGEST = """
import hashlib, numpy as np
from implantforge.geom import shapes
from implantforge.geom.meshing import polygonise
from implantforge.kernels import tpms
m = polygonise(shapes.torus((0,0,0),(1,2,3),6.0,2.0) | shapes.sphere((0,0,0),5.0), 0.2)
print(hashlib.sha256(m.vertices.tobytes() + m.faces.tobytes()).hexdigest())
"""


def test_same_bytes_for_any_number_of_threads() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env={**os.environ, "NUMBA_NUM_THREADS": n}, capture_output=True, check=True
        ).stdout
        for n in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


def _tile(seed: int) -> Field:
    """A smooth stochastic tile of unequal sides."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(24, 18, 30)), 2.0, mode="wrap")
    return shapes.periodic(values / values.std(), (4.0, 3.0, 5.0), np.array([[-9.0] * 3, [9.0] * 3]))


def _placed(step: str) -> Field:
    """A field made by each step of placement and grading, with others around it."""
    box = np.array([[-9.0] * 3, [9.0] * 3])
    tile, ball = _tile(3), shapes.sphere((1.0, 0.5, -0.5), 6.0)
    tilt = Pose(Rotation.from_euler("xyz", (0.4, -0.3, 0.8)).as_matrix(), np.array([0.6, -0.4, 0.2]))
    turn = 3.0 * 6 / (2 * np.pi)  # six periods close the turn
    wall = ball.ramp(np.array([-4.0, -2.0, -0.5]), np.array([0.3, 0.9, 0.5]))
    return {
        "sum": tile.plus(ball.scaled(0.3)),
        "scale": tile.scaled(-0.7) | ball,
        "ramp": tile.plus(wall.scaled(-1.0)) & ball,
        "periodic": tile & ball,
        "waves": shapes.waves([[1.1, 3, 2, 1], [-0.2, 0, 4, 2], [0.4, 1, 0, 0]], (4.0, 3.0, 5.0), box) & ball,
        "cylindrical": tile.cylindrical(tilt, turn, box, 1.0) & ball,
        "spherical": (tile | ball.offset(-3.0)).spherical(tilt, turn, box, 1.0) & ball,
        "warped": tile.warped(shapes.half_space((0, 0, 0), (1, 0, 0)), shapes.half_space((0, 0, 0), (0, 1, 0)), ball,
                              box).moved(tilt) & ball,
    }[step]  # fmt: skip


@pytest.mark.parametrize("step", ["sum", "scale", "ramp", "periodic", "waves", "cylindrical", "spherical", "warped"])
def test_steps_of_grading_and_placement(step: str) -> None:
    """The program of a field equals its numpy twin, and stays within the bounds it gives for balls."""
    field = _placed(step)
    plan = program.program(field.form)
    rng = np.random.default_rng(4)
    p = rng.uniform(-7, 7, (4000, 3))
    assert np.abs(plan.evaluate(p) - field.evaluate(p)).max() < 1e-4
    for radius in (0.05, 0.4, 3.0):
        bounds = plan.ranges(p[:300], radius)
        way = rng.normal(size=(60, 300, 3))
        way *= radius * rng.random((60, 300, 1)) ** 0.3 / np.linalg.norm(way, axis=2, keepdims=True)
        around = plan.evaluate((p[:300] + way).reshape(-1, 3)).reshape(60, 300)
        assert (around >= bounds[:, 0] - 1e-4).all()
        assert (around <= bounds[:, 1] + 1e-4).all()
    # balls that say something: not every range is without end
    assert np.isfinite(plan.ranges(p, 0.05)).mean() > 0.5
    mesh = polygonise(field & shapes.box((0, 0, 0), (12, 12, 12)), 0.4)
    assert measure.is_manifold(mesh)


@pytest.mark.parametrize("placement", ["cartesian", "cylindrical", "spherical"])
def test_bent_networks_are_steps(placement: str) -> None:
    """Graded and bent networks as kernels read them equal their numpy twins."""
    ball = shapes.sphere((0, 0, 0), 8.0)
    shell = (ball - ball.offset(-2.0)) & shapes.box((0, 0, 0), (20, 20, 8))
    grade = Grade("porosity", "depth", ((0.0, 0.75), (2.0, 0.65)))
    asked = Lattice("diamond", "network", 1.5, porosity=0.7, placement=placement, grades=(grade,))
    field = lattice.coat(asked, shell, depths=ball, border="cut").porous
    assert field.form is not None
    p = np.random.default_rng(2).uniform(-8, 8, (20_000, 3))
    p = p[shell(p) < 0]
    assert np.abs(program.program(field.form).evaluate(p) - field(p)).max() < 1e-3
    assert measure.is_manifold(polygonise(field, 0.25))


def test_refuses_ramps_that_do_not_rise_and_frames_without_size() -> None:
    ball = shapes.sphere((0, 0, 0), 5.0)
    with pytest.raises(GeometryError, match="knots"):
        ball.ramp(np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    with pytest.raises(GeometryError, match="positive"):
        ball.cylindrical(Pose(), 0.0, ball.bounds, 1.0)


def test_distances_inward_only() -> None:
    """Inside as with both sides; outside never more than the distance; the same coat."""
    ring = shapes.torus((0, 0, 0), (1, 2, 3), 6.0, 2.5)
    mesh = polygonise(ring, 0.4)
    both, inward = shapes.from_mesh(mesh, 0.3, 2.4), shapes.from_mesh(mesh, 0.3, 2.4, inward=True)
    p = np.random.default_rng(3).uniform(-9, 9, (20_000, 3))
    a, b = both(p), inward(p)
    assert np.abs(a - b)[a < -0.6].max() < 1e-6
    assert (b <= ring(p) + 0.1)[a > 0].all()  # a third of a sample: values between are linear
    assert (b[a > 0] > 0).all()
    made = [polygonise((f - f.offset(-1.0)) & _tile(3), 0.25) for f in (both, inward)]
    assert (made[0].faces == made[1].faces).all()
    assert np.abs(made[0].vertices - made[1].vertices).max() < 1e-5


@pytest.mark.parametrize("turned", [False, True])
def test_samples_read_by_rows(turned: bool) -> None:
    """Rows of samples along the axes equal samples read one by one, beyond their box too."""
    ball = shapes.sampled(shapes.sphere((0.3, 0.2, 0.1), 3.0), 0.37)
    if turned:
        ball = ball.moved(Pose(Rotation.from_euler("z", 0.5).as_matrix(), np.array([0.2, 0.1, 0.3])))
    mesh = polygonise(ball, 0.11)
    assert np.abs(ball(mesh.vertices)).max() < 0.011 * 0.11
    far = ball.offset(-1.5)  # of which the surface lies beyond the samples
    assert np.abs(far(polygonise(far, 0.3, bounds=np.array([[-9.0] * 3, [9.0] * 3])).vertices)).max() < 0.011 * 0.3


def _drawn(seed: int) -> tuple[Field, float]:
    """A family, cell, thickness, grade, placement and shape at random, and h."""
    rng = np.random.default_rng(seed)
    kind, cell = str(rng.choice(["gyroid", "diamond", "primitive", "iwp", "tile"])), float(rng.uniform(1.2, 2.5))
    centre = rng.uniform(-60, 60, 3)
    shape = [
        shapes.sphere(centre, 4.0),
        shapes.box(centre, rng.uniform(4, 8, 3)),
        shapes.torus(centre, rng.normal(size=3), 3.5, 1.5),
        shapes.frustum(centre, centre + (2, 3, 5), 3.5, 1.5),
        shapes.smooth_union(shapes.sphere(centre, 3.0), shapes.capsule(centre, centre + (3, 2, 3), 2.0), 1.0),
    ][rng.integers(5)]
    shape = shape - shape.offset(-float(rng.uniform(0.8, 2.0))) if rng.random() < 0.5 else shape
    if kind == "tile":
        values = ndimage.gaussian_filter(rng.normal(size=(20, 24, 16)), 1.5, mode="wrap")
        cells = shapes.periodic(0.3 * values / values.std(), cell * np.array([2.0, 2.4, 1.6]), shape.bounds)
    else:
        at = np.indices((32,) * 3).reshape(3, -1).T * (cell / 32)
        level = np.empty(len(at))
        tpms.tpms_level(["gyroid", "diamond", "primitive", "iwp"].index(kind), cell, at, level)
        cells = shapes.periodic((level * cell / 8).reshape((32,) * 3), np.full(3, cell), shape.bounds)
    if rng.random() < 0.4:
        pose = Pose(Rotation.random(random_state=seed).as_matrix(), centre + rng.normal(size=3))
        turn = cell * int(rng.integers(4, 9)) / (2 * np.pi)
        cells = (cells.cylindrical if rng.random() < 0.5 else cells.spherical)(pose, turn, shape.bounds, 0.5)
    wall = np.sort(rng.uniform(0.04, 0.5, 2)) * cell / 3
    sheet = cells - cells.scaled(-1.0) if rng.random() < 0.6 else cells
    graded = sheet.plus(shape.ramp(np.array([-3.0, 0.0]), -wall))
    return graded & shape, float(rng.uniform(0.08, 0.25))


def _sound(seed: int) -> None:
    field, h = _drawn(seed)
    try:
        mesh = polygonise(field, h)
    except GeometryError as error:
        assert "no surface" in str(error)
        return
    assert measure.bad_edges(mesh) == 0
    assert mesh.volume_mm3 > 0
    assert measure.manifold_status(mesh) == "NoError"


@pytest.mark.parametrize("seed", range(12))
def test_any_lattice_closes(seed: int) -> None:
    _sound(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 212))
def test_two_hundred_lattices_close(seed: int) -> None:
    _sound(seed)
