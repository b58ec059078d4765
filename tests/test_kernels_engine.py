"""Kernels against their plain twins."""

import edt
import numpy as np
import pytest
import reference
import reference_mesher
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from implantforge.core import Field, Lattice, Mesh, Pose
from implantforge.geom import measure, meshing, program, shapes
from implantforge.geom.inside import inside
from implantforge.kernels import flying, nearest, rows, scan, thickness, topology
from implantforge.kernels import polygonise as blocks_of
from implantforge.kernels.jit import shared
from implantforge.kernels.loft import loft_distance
from implantforge.kernels.mc_table import case_table, edge_corners
from implantforge.kernels.tpms import tpms_distance, tpms_level
from implantforge.kernels.trilinear import trilinear, trilinear_few
from implantforge.stages import lattice

KINDS = ("gyroid", "diamond", "primitive", "iwp", "neovius", "frd", "lidinoid", "splitp")


@pytest.mark.parametrize("kind", KINDS)
def test_tpms_twin(kind: str) -> None:
    points = np.random.default_rng(1).uniform(-30, 30, (4000, 3))
    got = np.empty(len(points))
    tpms_level(KINDS.index(kind), 1.7, points, got)
    assert np.allclose(got, reference.tpms_level(kind, 1.7, points), atol=1e-9)
    tpms_distance(KINDS.index(kind), 1.7, 0.2, 0.3, 3, points, got)
    want = reference.tpms_distance(kind, 1.7, 0.2, 3, points)
    near = np.abs(reference.tpms_level(kind, 1.7, points) - 0.2) < 0.5
    assert near.sum() > 500
    assert np.percentile(np.abs(got[near] - want[near]), 98) < 3e-4


def test_trilinear_twin() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(5, 6, 7)).astype(np.float32)
    at = rng.uniform(0, [4, 5, 6], (500, 3))
    spacing = np.array([0.5, 0.7, 0.9])
    got = np.empty(500)
    trilinear(values, np.eye(3), np.array([1.0, 2.0, 3.0]), spacing, at * spacing + [1, 2, 3], got)
    assert np.allclose(got, reference.trilinear(values.astype(float), at), atol=1e-5)
    few = np.empty(500)
    trilinear_few(values, np.eye(3), np.array([1.0, 2.0, 3.0]), spacing, at * spacing + [1, 2, 3], few)
    assert (few == got).all()
    beyond = at[:1] * spacing + [1, 2, 3] - [100, 0, 0]
    trilinear(values, np.eye(3), np.array([1.0, 2.0, 3.0]), spacing, beyond, got[:1])
    border = reference.trilinear(values.astype(float), at[:1] * [0, 1, 1])
    assert got[0] == pytest.approx(border[0] + 1 - beyond[0, 0])


def test_case_table_closes_every_case() -> None:
    """Within a cell, the open edges of each case are exactly cube-face segments, and a case and its triangles agree."""
    count, table = case_table()
    assert count[0] == count[255] == 0
    crossed = edge_corners().astype(int)
    for case in range(256):
        used = set(table[case, : count[case]].ravel().tolist())
        assert used == {e for e, (a, b) in enumerate(crossed) if (case >> a & 1) != (case >> b & 1)}


def test_local_thickness_twin() -> None:
    rng = np.random.default_rng(3)
    mask = np.pad(rng.random((12, 12, 12)) < 0.93, 1)
    radius = edt.edt(mask)
    want = reference.local_thickness(mask, radius)
    got = measure.local_thickness(mask, 1.0)
    assert np.allclose(got[mask], 2 * want[mask] - 0.5, atol=0.6)
    assert np.mean(np.abs(got[mask] - (2 * want[mask] - 0.5)) < 1e-4) > 0.95


def test_ridge_and_balls_twins() -> None:
    rng = np.random.default_rng(4)
    spacing = np.array([0.5, 0.7, 0.9])
    radius = edt.edt(np.pad(rng.random((15, 12, 10)) < 0.95, 1), anisotropy=tuple(spacing))
    keep = np.empty(radius.shape, np.bool_)
    thickness.ridge(radius, spacing, keep)
    assert (keep == reference.ridge(radius, spacing)).all()
    centres, radii = np.argwhere(keep), radius[keep].astype(float)
    order = np.argsort(-radii, kind="stable")
    got = np.zeros(radius.shape, np.float32)
    thickness.paint_balls(centres[order], radii[order], spacing, got)
    # a voxel at exactly a radius belongs to the ball or not by the order of summation
    agree = got == reference.paint_balls(centres, radii, spacing, radius.shape)
    assert agree.mean() > 0.995


def ring() -> Mesh:
    """A torus of about 1500 triangles, off every symmetry."""
    return meshing.polygonise(shapes.torus((0.1, 0.2, 0.3), (1, 2, 3), 6.0, 2.5), 1.3)


def test_crossing_parity_twin() -> None:
    mesh = ring()
    points = np.random.default_rng(5).uniform(-9, 9, (3000, 3))
    got = inside(mesh, points)
    assert 200 < got.sum() < 1500
    assert (got == reference.crossing_parity(mesh.vertices[mesh.faces], points)).all()


def test_scan_twins() -> None:
    corners = ((ring().vertices + 11) / 0.8)[ring().faces]
    shape, band, nudge = (27, 28, 29), 2.5, np.array([1.7e-5, 2.9e-5])
    order, starts = shapes._slabs(corners[:, :, 0], band, shape[0])
    owner, square = np.full(shape, -1, np.int32), np.full(shape, np.inf, np.float32)
    nearest.seed(corners, order, starts, shapes.SLAB, band, owner, square)
    square[square > band * band] = band * band
    want = reference.near_distances(corners, band, shape)
    assert 3000 < (want < band * band).sum() < 15_000
    assert np.allclose(square, want, atol=1e-5)
    # the wide band hands triangles on from sample to sample: never too near, and rarely the second nearest
    far = 7.0
    order, starts = shapes._slabs(corners[:, :, 0], shapes.BESIDE, shape[0])
    wide, want = shapes._squares(corners, order, starts, far, shape), reference.near_distances(corners, far, shape)
    apart = np.sqrt(wide) - np.sqrt(want)
    assert apart.min() > -1e-4
    assert apart[want < shapes.BESIDE**2].max() < 1e-4
    assert np.quantile(apart, 0.99) < 0.01
    assert apart.max() < 0.25
    odd = np.zeros(shape, np.bool_)
    order, starts = shapes._slabs(corners[:, :, 0], band, shape[0])
    scan.crossings(corners, order, starts, shapes.SLAB, nudge, odd)
    assert odd.sum() > 500
    assert (odd == reference.scan_inside(corners, shape, nudge)).all()


@pytest.mark.parametrize("exponent", [2.0, 2.8])
def test_loft_twin(exponent: float) -> None:
    """The walk along the surface finds the nearest of many surface points, within 2 mm of the body."""
    z = np.linspace(0, 50, 201)
    rows = [0.002 * z**2, 6 + 0.1 * z, 5 + 0.12 * z, 4 + 0.05 * z]
    table = np.column_stack([*rows, *(np.gradient(r, z) for r in rows)])
    tip = 0.25 * (6 + 5) + 0.5 * 4
    p = np.random.default_rng(6).uniform([-12, -9, -2], [18, 9, 52], (4000, 3))
    want = reference.loft_distance(table, 0.0, z[1], tip, exponent, p, 0.1)
    got = np.empty(len(p))
    loft_distance(table, 0.0, z[1], 50.0, tip, exponent, 8, p, got)
    near = np.abs(want) < 2
    assert near.sum() > 500
    assert ((got < 0) == (want < 0)).all()
    assert np.percentile(np.abs(got - want)[near], 99) < 0.03


def test_topology_twins() -> None:
    body = shapes.sphere((0, 0, 0), 3) | shapes.torus((0, 0, 12), (0, 1, 2), 4.0, 1.5) | shapes.sphere((0, 9, 0), 2)
    mesh = meshing.polygonise(body - shapes.sphere((0, 0, 0), 1.5), 0.6)
    labels, volumes = measure.components(mesh)
    assert len(volumes) == 4
    assert (labels == reference.label_pieces(mesh.faces, len(mesh.vertices))).all()
    assert np.allclose(volumes, reference.piece_volumes(mesh.vertices, mesh.faces, labels))
    assert np.isclose(volumes.sum(), mesh.volume_mm3)
    rng = np.random.default_rng(7)
    for broken in (mesh.faces, mesh.faces[5:], np.concatenate([mesh.faces, mesh.faces[:7]]), rng.permuted(mesh.faces)):
        assert measure.bad_edges(Mesh(mesh.vertices, broken)) == reference.bad_edges(broken)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(mesh.faces.ravel()))])
    ends = np.empty(mesh.faces.size, np.int32)
    topology.outgoing(mesh.faces, offsets.copy(), ends)
    heads = np.argsort(mesh.faces.ravel(), kind="stable")
    assert (ends == np.roll(mesh.faces, -1, axis=1).ravel()[heads]).all()


def signed_blocks() -> tuple[meshing._Blocks, program.Program, NDArray[np.float64], NDArray[np.int16]]:
    """Active blocks of a body that meets every kind of step, its program, its samples and those near to it."""
    body = shapes.torus((0, 0, 0), (1, 2, 3), 6.0, 2.5) - shapes.box((5, 0, 0), (3, 4, 5))
    plan = program.program(body.form)
    blocks = meshing._active(body, body.evaluate, plan, body.bounds, 0.4)
    values = body.evaluate(reference_mesher.block_points(blocks.coords, 16, blocks.origin_mm, 0.4).reshape(-1, 3))
    bits, held = meshing._signs(body.evaluate, plan, blocks)
    assert held is not None
    near = held[: bits.size * 16].reshape(-1, 16, 16, 16)
    assert (bits == reference_mesher.pack_signs(near)).all()
    return blocks, plan, values.reshape(-1, 17, 17, 17), near


def test_near_and_sign_twins() -> None:
    _, _, values, near = signed_blocks()
    want = reference_mesher.near_values(values[:, :16, :16, :16], 0.4)
    # what lies far from the surface in a whole brick is not looked at
    close = np.abs(want) < 2 * 4096
    assert close.sum() > 5000
    assert (np.abs(near.astype(int) - want)[close] <= 2).all()
    assert (np.sign(near) == np.sign(want)).all()
    bits = np.empty(near.shape[:3], np.uint16)
    flying.pack_signs(0, len(bits), near, bits)
    assert (bits == reference_mesher.pack_signs(near)).all()


def test_surface_twins() -> None:
    blocks, plan, values, near = signed_blocks()
    bits, words = np.empty(near.shape[:3], np.uint16), np.empty((*near.shape[:3], 4), np.uint16)
    flying.pack_signs(0, len(bits), near, bits)
    tri_count, table = case_table()
    counts = np.empty((len(bits), 2), np.int64)
    flying.count(0, len(bits), bits, blocks.coords, blocks.lookup, meshing._places(), words, counts)
    float_values = values.astype(np.float32)
    assert (counts == reference_mesher.count_surface(float_values, tri_count)[1]).all()
    vertices, triangles = (np.concatenate([[0], np.cumsum(c)]) for c in counts.T)
    assert (words[..., 3] == reference_mesher.rows_before(words)).all()
    axis, low = np.empty(vertices[-1], np.uint8), np.empty((vertices[-1], 3))
    at = (blocks.origin_mm, blocks.h_mm)
    flying.edges(0, len(bits), blocks.coords, words, 0, vertices, *at, axis, low)
    want_axis, want_ends, want_low = reference_mesher.edge_vertices(blocks.coords, float_values, *at)
    mine, theirs = (np.lexsort((*np.rint(p / 0.1).T, a)) for p, a in ((low, axis), (want_low, want_axis)))
    assert (axis[mine] == want_axis[theirs]).all()
    assert np.allclose(low[mine], want_low[theirs], atol=1e-12)
    renumber = np.empty(len(mine), np.int64)
    renumber[theirs] = mine
    faces = np.empty((triangles[-1], 3), np.int32)
    given = (bits, words.reshape(-1), blocks.coords, blocks.lookup, meshing._places(), 16, vertices, triangles)
    for first in range(0, len(bits), 5):  # in any runs, and nothing is written beyond a run
        last = min(first + 5, len(bits))
        part = np.full((triangles[last] - triangles[first] + 9) * 3, -7, np.int32)
        flying.faces(first, last, *given, first, part)
        assert (part[-27:] == -7).all()
        faces[triangles[first] : triangles[last]] = part[:-27].reshape(-1, 3)
    tables = (tri_count, table, edge_corners())
    assert (faces == renumber[reference_mesher.block_faces(blocks.coords, blocks.lookup, float_values, tables)]).all()
    out, limits = np.empty((vertices[-1], 3), np.float32), np.array([-9.0, -9, -9, 9, 9, 9], np.float32)
    held = np.concatenate([near.reshape(-1), np.full(4096, 32767, np.int16)])
    looked = (*plan.arrays, blocks.coords, blocks.lookup, held, words.reshape(-1), vertices)
    beyond = np.empty(len(bits), np.bool_)
    rows.vertices(0, len(bits), *looked, (*at, 0.01, np.zeros(3, np.float32), limits), 0, beyond, out)
    assert not beyond.any()
    limits[3] = 2.0
    rows.vertices(0, len(bits), *looked, (*at, 0.01, np.zeros(3, np.float32), limits), 0, beyond, out)
    assert (beyond == (np.maximum.reduceat(out[:, 0], vertices[:-1]) > 2.0)).all()
    t = want_ends[:, 0] / (want_ends[:, 0] - want_ends[:, 1])
    linear = reference_mesher.edge_points(want_low, want_axis, 0.4, t)
    assert np.abs(plan.evaluate(out)).max() < 0.011 * 0.4
    assert np.median(np.abs(out[mine] - linear[theirs]).max(axis=1)) < 0.01


def any_field(rng: np.random.Generator, sheet: Field, grid: Field) -> Field:
    """A body that uses every step, placed at random."""
    a, b, c = rng.uniform(-3, 3, (3, 3))
    r, s = rng.uniform(1, 3, 2)
    solid = shapes.smooth_union(shapes.sphere(a, r), shapes.round_cone(b, c, r, s), 1.0) | shapes.capsule(a, c, s)
    solid = shapes.smooth_intersection(solid, shapes.half_space(b, rng.normal(size=3)), 0.7)
    solid = solid | (shapes.frustum(b, a, r, s) - shapes.torus(c, b, 2 * r, s).offset(0.3))
    placed = shapes.box(a, (2 * r, s, r)).moved(Pose(Rotation.random(random_state=7).as_matrix(), c))
    return (solid - placed.moved(Pose(origin_mm=b))) & (sheet | grid.moved(Pose(origin_mm=a)) | placed)


def test_programs_agree_with_their_fields() -> None:
    """At random points, and never outside the bounds given for the balls around them."""
    rng = np.random.default_rng(9)
    sheet = lattice.field(
        lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.3)), np.array([[-9.0] * 3, [9.0] * 3])
    )
    grid = shapes.sampled(shapes.sphere((0, 0, 0), 2.0), 0.5)
    for _ in range(6):
        body = any_field(rng, sheet, grid)
        plan = program.program(body.form)
        p = rng.uniform(-6, 6, (4000, 3))
        got, want = plan.evaluate(p), body.evaluate(p)
        near = np.abs(want) < 0.06  # the sheet is cut off a little farther out
        # near the middle of a pore the walk and its table may see different sides
        assert np.mean(np.abs(got - want) < 2e-3) > 0.98
        assert np.percentile(np.abs(got - want)[near], 98) < 2e-3
        bounds = plan.ranges(p[:200], 0.3)
        step = rng.normal(size=(50, 200, 3))
        step *= 0.3 / np.linalg.norm(step, axis=2, keepdims=True)
        around = plan.evaluate((p[:200] + step).reshape(-1, 3)).reshape(50, 200)
        assert (around >= bounds[:, 0] - 1e-5).all()
        assert (around <= bounds[:, 1] + 1e-5).all()


def test_shared_work_is_done_once_and_its_errors_are_raised() -> None:
    done = np.zeros(10_000, np.int64)

    def work(first: int, last: int, step: int) -> None:
        assert last - first >= 16
        done[first:last] += step

    shared(work, len(done), 16, 3)
    assert (done == 3).all()

    def broken(first: int, last: int) -> None:
        raise ValueError(f"run {first} to {last}")

    with pytest.raises(ValueError, match="run"):
        shared(broken, 1000, 16)


@pytest.mark.parametrize("halve", [False, True])
def test_root_twins(halve: bool) -> None:
    rng = np.random.default_rng(8)
    ends = np.stack([-rng.random(3000), rng.random(3000)], axis=1) * rng.choice([-1, 1], 3000)[:, None]
    t = ends[:, 0] / (ends[:, 0] - ends[:, 1])
    low, axis = rng.random((3000, 3)), rng.integers(0, 3, 3000).astype(np.uint8)
    points = np.empty((3000, 3))
    blocks_of.edge_points(low, axis, 0.3, t, points)
    assert np.allclose(points, reference_mesher.edge_points(low, axis, 0.3, t))
    found = rng.normal(size=3000) * rng.choice([0, 1e-3, 0.3], 3000)
    bracket = np.tile([0.0, 1.0], (3000, 1))
    want = reference_mesher.tighten(found, halve, 5e-3, bracket, ends, t)
    blocks_of.tighten(found, halve, 5e-3, bracket, ends, t)
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-12) for a, b in zip((bracket, ends, t), want))
