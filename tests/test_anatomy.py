"""Landmarks by shape: truth from the model's own points, from raters, from moving, mirroring and cutting a bone."""

from __future__ import annotations

import csv
from pathlib import Path

import drawn_bones
import fast_simplification
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from implantforge.core import AnatomyError, InputError, Mesh, Pose
from implantforge.stages import anatomy
from implantforge.stages.anatomy import atlas, corrected, hip, lines, marks, register, seen, skull, sphere
from implantforge.stages.anatomy.femur import angle


@pytest.fixture(scope="module")
def femur() -> drawn_bones.Drawn:
    return drawn_bones.draw(np.random.default_rng(3), "femur", "whole", "left")


@pytest.fixture(scope="module")
def measured(femur):
    return anatomy.examine("femur_left", femur.mesh)


def read(path: Path) -> Mesh:
    body = trimesh.load(path, force="mesh")
    body.merge_vertices()
    return Mesh(np.asarray(body.vertices), np.asarray(body.faces))


def test_a_whole_femur_in_any_pose(femur, measured):
    marks_ = measured.landmarks
    assert np.linalg.norm(marks_["head_center"].at_mm - femur.points["head_center"]) < 0.5
    for one, other in (("medial_epicondyle", "lateral_epicondyle"),
                       ("posterior_medial_condyle", "posterior_lateral_condyle")):  # fmt: skip
        assert angle(marks_[other].at_mm - marks_[one].at_mm, femur.points[other] - femur.points[one]) < 1.0
    assert measured.frames["shaft"].rotation[:, 2] @ femur.up > 0.95
    assert {"anteversion_deg", "version_lee_deg", "neck_shaft_angle_deg", "length_mm", "offset_mm"} <= set(
        measured.measures
    )
    assert all(mark.sigma_mm > 0 for mark in marks_.values())
    isb = measured.frames["isb"]
    assert np.allclose(isb.origin_mm, marks_["head_center"].at_mm)
    assert angle(isb.rotation[:, 1], marks_["head_center"].at_mm - marks_["knee_center"].at_mm) < 1e-4


def test_moved_bone_moved_answer(femur, measured):
    pose = Pose(Rotation.random(random_state=5).as_matrix(), np.array([310.0, -77.0, 1200.0]))
    again = anatomy.examine("femur_left", femur.mesh.moved(pose))
    assert set(again.landmarks) == set(measured.landmarks)
    for name, mark in measured.landmarks.items():
        assert np.linalg.norm(pose.apply(mark.at_mm) - again.landmarks[name].at_mm) < 0.05, name
    for name, value in measured.measures.items():
        assert again.measures[name] == pytest.approx(value, abs=0.05), name


def test_mirrored_bone_mirrored_answer(femur, measured):
    again = anatomy.examine("femur_right", femur.mesh.mirrored_x())
    for name, mark in measured.landmarks.items():
        assert np.linalg.norm(mark.at_mm * [-1, 1, 1] - again.landmarks[name].at_mm) < 0.05, name
    for name in ("anteversion_deg", "neck_shaft_angle_deg", "epicondylar_to_condylar_deg", "mldfa_deg"):
        assert again.measures[name] == pytest.approx(measured.measures[name], abs=0.05), name


def test_a_tenth_of_the_triangles(femur, measured):
    v, f = fast_simplification.simplify(femur.mesh.vertices.copy(), femur.mesh.faces.copy(),
                                        target_count=len(femur.mesh.faces) // 10)  # fmt: skip
    again = anatomy.examine("femur_left", Mesh(v, f))
    for name, mark in measured.landmarks.items():
        assert np.linalg.norm(mark.at_mm - again.landmarks[name].at_mm) < 0.3, name


@pytest.mark.parametrize("part", ["proximal", "distal"])
def test_what_is_cut_off_is_refused_by_name(part):
    bone = drawn_bones.draw(np.random.default_rng(8), "femur", part)
    found = anatomy.examine(f"femur_{bone.side}", bone.mesh)
    shown, lost = ("head_center", "medial_epicondyle") if part == "proximal" else ("medial_epicondyle", "head_center")
    assert shown in found.landmarks and lost not in found.landmarks
    assert np.linalg.norm(found.at(shown) - bone.points[shown]) < 1.0
    assert "cut off" in found.refused[lost]
    assert "anteversion_deg" in found.refused and "anteversion_deg" not in found.measures


def test_the_wrong_bone_side_and_unit_are_named(femur):
    with pytest.raises(AnatomyError, match="other side"):
        anatomy.examine("femur_right", femur.mesh)
    with pytest.raises(AnatomyError, match="other side"):
        anatomy.examine("femur_left", femur.mesh.mirrored_x())
    for factor, word in ((1e-3, "metres"), (1 / 25.4, "inches")):
        with pytest.raises(InputError, match=word):
            anatomy.examine("femur_left", Mesh(femur.mesh.vertices * factor, femur.mesh.faces))
    tibia = drawn_bones.draw(np.random.default_rng(4), "tibia", "whole", "left")
    with pytest.raises(AnatomyError, match="not a femur"):
        anatomy.examine("femur_left", tibia.mesh)
    with pytest.raises(AnatomyError, match="cannot be measured"):
        anatomy.examine("humerus_left", femur.mesh)


def test_a_shaft_without_ends_is_refused(femur):
    height = femur.mesh.vertices @ femur.up
    low, high = height.min() + np.ptp(height) * np.array([0.3, 0.7])
    shaft = drawn_bones.cut(drawn_bones.cut(femur.mesh, femur.up, low, True), -femur.up, -high, False)
    with pytest.raises(AnatomyError):
        anatomy.examine("femur_left", shaft)


def test_blobs_holes_and_a_child(femur, measured):
    blob = trimesh.creation.icosphere(subdivisions=3, radius=9.0)
    v = np.concatenate([femur.mesh.vertices, np.asarray(blob.vertices) + femur.points["head_center"] + 40.0])
    f = np.concatenate([femur.mesh.faces, np.asarray(blob.faces, np.int32) + len(femur.mesh.vertices)])
    middle = femur.mesh.vertices[femur.mesh.faces].mean(axis=1)
    holes = np.zeros(len(f), bool)
    for point in (femur.mesh.vertices[100], femur.mesh.vertices[7000], femur.points["head_center"] + 22.0 * femur.up):
        holes[: len(middle)] |= np.linalg.norm(middle - point, axis=1) < 7.0
    found = anatomy.examine("femur_left", Mesh(v, f[~holes]))
    assert np.linalg.norm(found.at("head_center") - measured.at("head_center")) < 0.5
    child = anatomy.examine("femur_left", Mesh(femur.mesh.vertices * 0.5, femur.mesh.faces))
    assert np.linalg.norm(child.at("head_center") * 2 - measured.at("head_center")) < 1.0
    assert child.measures["neck_shaft_angle_deg"] == pytest.approx(measured.measures["neck_shaft_angle_deg"], abs=1.0)


def test_hip_bones_and_murray(femur):
    rng = np.random.default_rng(12)
    bone = drawn_bones.draw(rng, "hip", "whole")
    found = anatomy.examine(f"hip_{bone.side}", bone.mesh)
    for name in ("asis", "psis", "pubic_tubercle", "ischial_spine"):
        assert np.linalg.norm(found.at(name) - bone.points[name]) < 1.5, name
    assert "app" in found.refused and not set(hip.ANGLES) & set(found.measures)
    other = "right" if bone.side == "left" else "left"
    assert all(f"hip_{other}" in found.refused[name] for name in hip.ANGLES)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for ri, ra, oi, oa, ai, aa in ((40, 15, 38.38, 19.28, 42.27, 22.63), (45, 20, 41.64, 27.24, 48.36, 27.24),
                                       (30, 5, 29.87, 5.77, 30.38, 9.92), (50, 25, 43.97, 35.96, 54.37, 31.33)):  # fmt: skip
            i, a = np.radians([ri, ra])
            way = np.array([sign * np.sin(i) * np.cos(a), -np.sin(a), -np.cos(i) * np.cos(a)])
            got = hip.angles(way, np.eye(3), side)
            want = (ri, ra, ai, aa, oi, oa)
            assert np.allclose([got[name] for name in hip.ANGLES], want, atol=0.01)


def test_tibia_and_leg():
    bone = drawn_bones.draw(np.random.default_rng(6), "tibia", "whole")
    found = anatomy.examine(f"tibia_{bone.side}", bone.mesh)
    for name in ("medial_malleolus", "tuberosity", "medial_spine"):
        assert np.linalg.norm(found.at(name) - bone.points[name]) < 1.5, name
    assert found.landmarks["lateral_malleolus"].sigma_mm >= 5.0
    up = found.at("plateau_center") - found.at("ankle_center")
    assert angle(up, bone.up) < 10.0 and "isb" in found.frames
    assert lines.legs({found.bone: found}) == {}


def test_corrections_replace_ours(femur, measured, tmp_path):
    from implantforge.stages import export

    path = tmp_path / "x.mrk.json"
    export.write_markups(path, {f"femur_left.{name}": mark for name, mark in measured.landmarks.items()})
    back = corrected.read_markups(path)
    same = corrected.apply({"femur_left": measured}, back)["femur_left"]
    assert not any("hand" in mark.method for mark in same.landmarks.values())
    head = measured.at("head_center") + [0.0, 2.0, 0.0]
    page = corrected.apply({"femur_left": measured}, back | {"femur_left.head_center": head})["femur_left"]
    assert page.landmarks["head_center"].method == corrected.METHOD and np.allclose(page.at("head_center"), head)
    assert np.allclose(page.frames["isb"].origin_mm, head)
    assert page.measures["offset_mm"] != measured.measures["offset_mm"]
    text = path.read_text("utf-8").replace('"LPS"', '"RAS"')
    path.write_text(text, "utf-8")
    assert np.allclose(corrected.read_markups(path)["femur_left.head_center"], measured.at("head_center") * [-1, -1, 1],
                       atol=1e-3)  # fmt: skip
    with pytest.raises(InputError, match="moved by"):
        corrected.apply({"femur_left": measured}, {"femur_left.head_center": head + 100.0})
    with pytest.raises(InputError, match="no landmark"):
        corrected.apply({"femur_left": measured}, {"femur_left.nose": head})
    with pytest.raises(InputError, match="no such bone"):
        corrected.apply({"femur_left": measured}, {"femur_right.head_center": head})
    path.write_text("{}", "utf-8")
    with pytest.raises(InputError, match="no Slicer markups"):
        corrected.read_markups(path)


def test_remeasuring_from_landmarks_agrees(measured):
    """A correction of nothing but a thousandth leaves every measure where it was."""
    nudged = {"femur_left.head_center": measured.at("head_center") + [0.011, 0, 0]}
    again = corrected.apply({"femur_left": measured}, nudged)["femur_left"]
    for name, value in measured.measures.items():
        assert again.measures[name] == pytest.approx(value, abs=0.1), name


def test_skull_symmetry():
    ball = trimesh.creation.icosphere(subdivisions=5, radius=1.0)
    v = np.asarray(ball.vertices)
    v = v * [72.0, 92.0, 65.0]
    v[:, 2] += 12.0 * np.exp(-(((v[:, 1] + 80.0) / 25.0) ** 2) - (v[:, 0] / 40.0) ** 2)
    v[:, 1] -= 8.0 * (v[:, 2] < -30.0)
    pose = Pose(Rotation.random(random_state=2).as_matrix(), np.array([10.0, 20.0, 30.0]))
    # a shell, as a skull is: its inner table lies 6 mm and more inside
    faces = np.concatenate([np.asarray(ball.faces), np.asarray(ball.faces)[:, ::-1] + len(v)])
    found = anatomy.examine("skull", Mesh(pose.apply(np.concatenate([v, 0.91 * v])), faces))
    assert angle(found.frames["midsagittal"].rotation[:, 0], pose.rotation[:, 0]) % 180 == pytest.approx(0, abs=0.5) or (
        angle(found.frames["midsagittal"].rotation[:, 0], -pose.rotation[:, 0]) < 0.5)  # fmt: skip
    assert found.measures["symmetry_rms_mm"] < 0.5 and "frankfort" in found.refused
    with pytest.raises(InputError, match="mm"):
        skull.measure(Mesh(v / 1000, np.asarray(ball.faces)))


def test_closest_point_of_triangles():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(200, 3, 3))
    point = rng.normal(size=3)
    want = trimesh.triangles.closest_point(corners, np.tile(point, (200, 1)))
    assert np.allclose(seen.closest(corners, point), want, atol=1e-9)


def test_spheres_on_part_of_a_ball():
    ball = trimesh.creation.icosphere(subdivisions=5, radius=24.0)
    v, f = np.asarray(ball.vertices) + [5.0, 6.0, 7.0], np.asarray(ball.faces, np.int32)
    bump = np.linalg.norm(v - [5, 6, 31], axis=1) < 6.0
    v[bump] += 0.2 * (v[bump] - [5, 6, 7])
    normals, area = atlas.vertex_normals(v, f)
    found = sphere.robust_sphere(v, normals, area, v[v[:, 2] > 5.0])
    assert np.allclose(found.center_mm, [5, 6, 7], atol=0.05) and found.radius_mm == pytest.approx(24.0, abs=0.05)


def test_a_head_that_dips_toward_its_neck_keeps_the_centre_of_its_ball():
    """Two thirds of the surface lie on the ball, the rest sinks by up to 2 mm on one side, as heads do at the neck."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=24.0)
    v, f = np.asarray(ball.vertices), np.asarray(ball.faces, np.int32)
    low = np.clip((-v[:, 2] - 2.0) / 12.0, 0.0, 1.0) * np.clip(v[:, 0] / 12.0, 0.0, 1.0)
    v = v * (1.0 - 2.0 * low / 24.0)[:, None]
    normals, area = atlas.vertex_normals(v, f)
    found = sphere.robust_sphere(v, normals, area, v[v[:, 2] > -14.0])
    assert np.linalg.norm(found.center_mm) < 0.05 and found.radius_mm == pytest.approx(24.0, abs=0.05)


def test_samples_lie_on_the_surface_and_mirror(femur):
    cloud = register.sample(femur.mesh, 500)
    image = register.sample(femur.mesh.mirrored_x(), 500)
    assert np.allclose(cloud.points * [-1, 1, 1], image.points, atol=1e-6)
    assert np.allclose(np.linalg.norm(cloud.normals, axis=1), 1.0)


def test_marks_of_the_mean_make_sense():
    mine, mean = marks.of("femur"), atlas.mean("femur")
    at = {name: mean.mean[vertex] for name, vertex in mine.vertex.items()}
    assert at["medial_epicondyle"][0] < at["intercondylar_notch"][0] < at["lateral_epicondyle"][0]
    assert at["greater_trochanter"][2] > at["lesser_trochanter"][2] > at["lateral_epicondyle"][2]
    axes = marks.of("hip").axes
    assert np.allclose(axes.T @ axes, np.eye(3)) and np.linalg.det(axes) > 0


def test_raters(shared_data):
    """Real bones: the left femur and both hip bones of a subject against five raters."""
    folder = shared_data / "meshes" / "vsd_z027"
    femur_ = anatomy.examine("femur_left", read(folder / "Femur_L.stl"))
    hips = anatomy.examine_all(
        {f"hip_{side}": read(folder / f"Hip_{side[0].upper()}.stl") for side in ("left", "right")}
    )
    assert "app" in hips["hip_left"].frames and "app" not in hips["hip_left"].refused
    assert np.linalg.norm(femur_.at("head_center") - hips["hip_left"].at("acetabulum_center")) < 1.0
    names = {"Lesser Trochanter (LT)": "lesser_trochanter", "Lateral Epicondyle (LEC)": "lateral_epicondyle",
             "Posterior Medial Condyle (PMC)": "posterior_medial_condyle"}  # fmt: skip
    pelvis = {"Left ASIS": "asis", "Left PSIS": "psis", "Left Ischial Spine (IS)": "ischial_spine"}
    with (folder / "landmarks_5_raters.csv").open() as stream:
        for row in csv.DictReader(stream):
            at = np.array([float(row[f"{axis}_mean"]) for axis in "xyz"])
            limit = max(3.0, 2.0 * float(row["inter_rater_sd_mm"]))
            page, name = (femur_, names) if row["bone"] == "Femur" else (hips["hip_left"], pelvis)
            if row["landmark"] in name:
                assert np.linalg.norm(page.at(name[row["landmark"]]) - at) < limit, row["landmark"]


def test_upside_down_is_found(shared_data):
    mesh = read(shared_data / "meshes" / "vsd_z027" / "Tibia_L.stl")
    turned = mesh.moved(Pose(np.diag([1.0, -1.0, -1.0]), np.zeros(3)))
    found = anatomy.examine("tibia_left", turned)
    assert found.at("plateau_center")[2] < found.at("ankle_center")[2] - 300.0
