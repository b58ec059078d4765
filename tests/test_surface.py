"""Bone surfaces against analytic shapes that an independent painter scanned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from painted import FWHM, Bone, Scan, ball, plate, rod, scan
from scipy.special import ndtr

from implantforge.core import GeometryError, Grid, InputError, Labels, Mesh, Pose, Volume
from implantforge.geom import edges, inside, measure, nearby
from implantforge.stages import meshfile, surface

TILT = (0.2, 0.25, 1.0)
CASES = [
    # spacing, FWHM, cortex HU, wall mm, noise
    ((0.8, 0.8, 1.0), 0.8, 1200.0, 1.0, 18.0),
    ((0.8, 0.8, 1.0), 0.8, 1200.0, 1.0, 0.0),
    ((0.8, 0.8, 1.0), 0.6, 1800.0, 1.0, 18.0),
    ((0.8, 0.8, 1.0), 0.6, 600.0, 1.5, 18.0),
    ((0.8, 0.8, 1.0), 1.2, 600.0, 1.5, 18.0),
    ((0.8, 0.8, 1.0), 1.2, 1800.0, 1.0, 0.0),
    ((0.5, 0.5, 0.5), 0.6, 1800.0, 1.0, 18.0),
    ((0.6, 0.6, 1.25), 0.8, 1200.0, 1.0, 18.0),
    ((1.25, 1.25, 1.25), 0.8, 1200.0, 2.0, 18.0),
]


def two_tubes(spacing: tuple[float, float, float], fwhm: float, hu: float, wall: float, noise: float):
    """A thin tube and, so that the scan shows its blur, a thick one beside it."""
    bones = {
        "thin": Bone(rod(9, TILT), wall, hu, offset=(-13, 0, 0)),
        "thick": Bone(rod(9, TILT), 4.0, hu, offset=(11, 0, 0)),
    }
    return bones, *scan(bones, (25, 13, 9), Scan(spacing, fwhm, max(fwhm, spacing[2]), noise))


@pytest.mark.parametrize(("spacing", "fwhm", "hu", "wall", "noise"), CASES)
def test_tubes_keep_their_radius(spacing, fwhm, hu, wall, noise) -> None:
    bones, volume, labels = two_tubes(spacing, fwhm, hu, wall, noise)
    for name, found in surface.bones(volume, labels, simplify_mm=0.0).items():
        at = found.mesh.vertices - bones[name].offset
        off = bones[name].distance(*at.T)[np.abs(at[:, 2]) < 6]
        assert abs(off.mean()) < 0.03, (name, off.mean())
        assert off.std() < 0.12


@pytest.mark.parametrize("noise", [0.0, 18.0])
def test_a_ball_keeps_its_radius_and_is_sure_of_it(noise) -> None:
    bone = Bone(ball(13), None, 1100.0)
    volume, labels = scan({"head": bone}, (18, 18, 18), Scan(noise_hu=noise))
    found = surface.one(volume, labels, "head")
    off = bone.distance(*found.mesh.vertices.T)
    assert abs(off.mean()) < 0.03
    assert not found.cut
    assert found.seen.mean() > 0.99
    if noise:
        within = (np.abs(off) <= 2 * found.sigma_mm).mean()
        assert 0.93 <= within <= 1.0
        assert np.median(found.sigma_mm) < 0.06


def test_half_maximum_of_a_thin_plate_would_lie_outside_but_the_layer_does_not() -> None:
    bones = {"plate": Bone(plate(2.0, (0.3, 1.0, 0.2), 11), None, 1300.0, offset=(0, -6, 0)),
             "shaft": Bone(rod(6, (1.0, 0.1, 0.1), 12), 3.5, 1300.0, offset=(0, 10, 0))}  # fmt: skip
    volume, labels = scan(bones, (16, 20, 16), Scan(fwhm_mm=1.0, fwhm_axial_mm=1.0, noise_hu=15.0))
    found = surface.one(volume, labels, "plate", simplify_mm=0.0)
    at = found.mesh.vertices - bones["plate"].offset
    middle = np.linalg.norm(at, axis=1) < 7
    off = bones["plate"].distance(*at[middle].T)
    assert abs(off.mean()) < 0.05
    assert np.abs(off).max() < 0.35


@pytest.mark.parametrize(("spacing", "rms"), [((0.6, 0.6, 1.25), 0.05), ((0.5, 0.5, 3.0), 0.12)])
def test_coarse_slices_leave_no_staircase(spacing, rms) -> None:
    bone = Bone(rod(11, (0.5, 0.2, 1.0)), 3.5, 1300.0)
    volume, labels = scan({"rod": bone}, (24, 16, 18), Scan(spacing, 0.8, spacing[2], 15.0))
    found = surface.one(volume, labels, "rod", simplify_mm=0.0)
    at = found.mesh.vertices
    off = bone.distance(*at[np.abs(at[:, 2]) < 11].T)
    assert off.std() < rms
    assert abs(off.mean()) < 0.05


def test_joint_space_narrower_than_the_blur_moves_no_edge_and_contact_crosses_none() -> None:
    for gap, limit in ((1.5, 0.05), (0.0, 0.4)):
        bones = {"head": Bone(ball(10), None, 1200.0, offset=(0, -10 - gap / 2, 0)),
                 "socket": Bone(ball(10), None, 1200.0, offset=(0, 10 + gap / 2, 0))}  # fmt: skip
        volume, labels = scan(bones, (14, 24, 14), Scan(noise_hu=15.0))
        found = surface.bones(volume, labels)
        for name, sign in (("head", -1), ("socket", 1)):
            at = found[name].mesh.vertices - bones[name].offset
            facing = (np.linalg.norm(at, axis=1) > 1) & (at[:, 1] * -sign > 9.0)
            off = bones[name].distance(*at[facing].T)
            assert abs(off.mean()) < limit, (gap, name)
            assert (found[name].mesh.vertices[:, 1] * sign).min() > gap / 2 - 0.45
        again = surface.relabel(labels, found)
        for name in bones:
            a, b = again.mask(name), labels.mask(name)
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.98


def test_surface_is_closed_free_of_crossings_and_within_its_bound() -> None:
    bone = Bone(rod(8, TILT, 11), 2.0, 1300.0)
    volume, labels = scan({"rod": bone}, (14, 14, 17), Scan(noise_hu=18.0))
    full, few = (surface.one(volume, labels, "rod", simplify_mm=b) for b in (0.0, 0.03))
    assert len(few.mesh.faces) < 0.8 * len(full.mesh.faces)
    assert 0 < few.bound_mm <= 0.03
    assert nearby.apart_mm(full.mesh, few.mesh, 1.0) == pytest.approx(few.bound_mm)
    for found in (full, few):
        said = found.describe()
        assert said["watertight"]
        assert said["self_crossings"] == 0
        assert measure.manifold_status(found.mesh) == "NoError"
        assert said["volume_mm3"] == pytest.approx(np.pi * 64 * 22, rel=0.02)
        assert len(found.sigma_mm) == len(found.mesh.vertices)


def test_libigl_finds_no_crossing_either() -> None:
    igl = pytest.importorskip("igl")
    cgal = pytest.importorskip("igl.copyleft.cgal")
    bone = Bone(rod(8, TILT, 11), 1.2, 1300.0)
    volume, labels = scan({"rod": bone}, (14, 14, 17), Scan(noise_hu=18.0))
    mesh = surface.one(volume, labels, "rod").mesh
    assert igl is not None
    pairs = cgal.remesh_self_intersections(np.array(mesh.vertices), np.array(mesh.faces, np.int64), detect_only=True)[2]
    assert len(pairs) == 0


def test_crossing_faces_are_found_where_they_were_planted() -> None:
    volume, labels = scan({"b": Bone(ball(8))}, (12, 12, 12), Scan())
    mesh = surface.bone(volume, labels, "b")
    assert not nearby.crossing_faces(mesh).any()
    bent = mesh.vertices.copy()
    top = int(bent[:, 2].argmax())
    bent[top, 2] -= 18.0
    assert nearby.crossing_faces(Mesh(bent, mesh.faces)).any()


def test_ragged_labels_still_give_a_surface_without_crossings() -> None:
    bone = Bone(rod(8, TILT, 9), 1.5, 1100.0)
    volume, labels = scan({"rod": bone}, (13, 13, 14), Scan(noise_hu=18.0))
    random = np.random.default_rng(3)
    ragged = labels.values.copy()
    ragged[random.random(ragged.shape) < 0.25] = 0
    ragged[5:9, 10:14, 4:24] = 1
    found = surface.one(volume, Labels(labels.grid, ragged, labels.names), "rod")
    assert measure.is_manifold(found.mesh)
    assert not nearby.crossing_faces(found.mesh).any()


def test_distances_agree_with_a_sphere() -> None:
    volume, labels = scan({"b": Bone(ball(8))}, (12, 12, 12), Scan())
    mesh = surface.bone(volume, labels, "b")
    points = np.random.default_rng(0).normal(size=(2000, 3))
    points *= (np.linalg.norm(mesh.vertices, axis=1).mean() + 0.2) / np.linalg.norm(points, axis=1, keepdims=True)
    away = nearby.distance_within(points, mesh, 0.5)
    assert away.mean() == pytest.approx(0.2, abs=0.02)
    assert (nearby.distance_within(points * 1.2, mesh, 0.5) == 0.5).all()


def test_voxels_inside_a_mesh_are_those_the_point_test_finds() -> None:
    volume, labels = scan({"rod": Bone(rod(7, TILT, 8))}, (12, 12, 13), Scan())
    mesh = surface.bone(volume, labels, "rod")
    window, odd = inside.voxels(mesh, labels.grid)
    index = np.argwhere(np.ones(odd.shape, bool))
    points = labels.grid.to_patient(index + [s.start for s in window])
    assert (inside.inside(mesh, points).reshape(odd.shape) != odd).sum() == 0


def test_a_bone_cut_by_the_scan_says_so_and_ends_flat() -> None:
    bone = Bone(rod(8, (0.0, 0.05, 1.0)), 3.0, 1300.0)
    volume, labels = scan({"rod": bone}, (13, 13, 8), Scan(noise_hu=15.0))
    found = surface.one(volume, labels, "rod", simplify_mm=0.0)
    assert found.cut
    assert found.describe()["cut_by_scan"]
    low = volume.grid.pose.origin_mm[2] - 0.5 * volume.grid.spacing_mm[2]
    end = found.mesh.vertices[:, 2] < low + 0.02
    assert end.sum() > 50
    assert np.median(found.sigma_mm[end]) > 0.2
    rim = ~end & (np.abs(found.mesh.vertices[:, 2]) < 6)
    assert abs(bone.distance(*found.mesh.vertices[rim].T).mean()) < 0.03


def test_same_input_same_surface_whatever_the_threads(monkeypatch) -> None:
    volume, labels = scan({"a": Bone(ball(6), offset=(-8, 0, 0)), "b": Bone(ball(6), offset=(8, 0, 0))},
                          (17, 9, 9), Scan(noise_hu=15.0))  # fmt: skip
    first = surface.bones(volume, labels)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = {name: surface.one(volume, labels, name) for name in ("a", "b")}
    for name in first:
        assert first[name].mesh.vertices.tobytes() == again[name].mesh.vertices.tobytes()
        assert first[name].sigma_mm.tobytes() == again[name].sigma_mm.tobytes()


def test_blur_is_read_from_the_scan() -> None:
    for fwhm in (0.7, 1.1):
        bones = {"a": Bone(rod(8, (1.0, 0.3, 0.1), 14), 4.0, 1300.0, offset=(0, 0, -9)),
                 "b": Bone(rod(8, TILT, 14), 4.0, 1300.0, offset=(0, 0, 18))}  # fmt: skip
        how = Scan((0.6, 0.6, 0.8), fwhm, fwhm, 15.0)
        volume, labels = scan(bones, (18, 14, 36), how)
        found = surface.sharpness(volume, labels)
        want = np.sqrt((fwhm / FWHM) ** 2 + np.array(how.spacing_mm) ** 2 / 12)
        assert found.edges > 50
        assert np.abs(found.blur_mm / want - 1).max() < 0.15


def test_edge_of_a_blurred_layer_is_exact_at_any_contrast() -> None:
    grid = Grid(Pose(), np.array([0.4, 0.4, 0.4]), (40, 12, 12))
    x = np.arange(40) * 0.4
    for cortex, thick, at in ((600.0, 1.0, 8.1), (1800.0, 1.6, 7.7), (1200.0, 9.0, 8.0)):
        s = 0.45
        line = 30 + (cortex - 30) * ndtr((x - at + thick) / s) + (40 - cortex) * ndtr((x - at) / s)
        hu = np.repeat(np.rint(line), 144).reshape(grid.shape).astype(np.int16)
        labels = np.zeros(grid.shape, np.uint8)
        labels[x < at] = 1
        given = edges.prior(1, cortex=(1250.0, 400.0), flesh=(20.0, 90.0))
        how = edges.Scan(hu, labels, 1, grid.spacing_mm, np.full(3, s), 4.0)
        found = edges.fit(how, np.array([[7.6, 2.3, 2.4]]), np.array([[1.0, 0, 0]]), np.zeros(1), given,
                          reach_mm=(4.0, 2.6), search=True, rounds=40)  # fmt: skip
        assert found.parameters[0, edges.EDGE] == pytest.approx(at - 7.6, abs=0.012)


def test_refusals_name_the_bone() -> None:
    grid = Grid(Pose(), np.ones(3), (8, 8, 8))
    volume, labels = (
        Volume(grid, np.zeros((8, 8, 8), np.int16)),
        Labels(grid, np.zeros((8, 8, 8), np.uint8), {"hip": 1}),
    )
    with pytest.raises(GeometryError, match="hip has no voxel"):
        surface.bone(volume, labels, "hip")
    with pytest.raises(InputError, match="no femur"):
        surface.bone(volume, labels, "femur")


def test_files_hold_mesh_and_sigma(tmp_path: Path) -> None:
    import trimesh

    volume, labels = scan({"b": Bone(ball(8))}, (12, 12, 12), Scan())
    found = surface.one(volume, labels, "b")
    for suffix in meshfile.SUFFIXES:
        folder = tmp_path / suffix[1:]
        page = json.loads(
            meshfile.write_meshes(folder, {"b": (found.mesh, found.sigma_mm, found.describe())}, suffix).read_text()
        )
        row = page["meshes"]["b"]
        body = trimesh.load(folder / row["file"])
        assert body.volume == pytest.approx(found.mesh.volume_mm3, rel=1e-4)
        assert body.is_watertight
        assert row["sigma_in_file"] == (suffix == ".ply")
        assert ("sigma" in page.get("note", "")) == (suffix != ".ply")
        assert {"volume_mm3", "area_mm2", "watertight", "triangles", "simplification_bound_mm", "sigma_median_mm",
                "sigma_p95_mm", "no_edge_share", "cut_by_scan"} <= set(row)  # fmt: skip
    mesh, sigma = meshfile.read_ply(tmp_path / "ply" / "b.ply")
    assert np.allclose(mesh.vertices, found.mesh.vertices, atol=1e-5)
    assert sigma is not None
    assert np.allclose(sigma, found.sigma_mm, rtol=1e-6)
    with pytest.raises(InputError, match=r"must end in"):
        meshfile.write_mesh(tmp_path / "b.xyz", found.mesh)
