"""Bones as CT gives them: fused, full of bumps, coarse, huge, a whole pelvis; moved and mirrored; corrected by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import drawn_bones
import manifold3d
import numpy as np
import pytest
import trimesh
from click.testing import CliRunner
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from implantforge.core import Anatomy, AnatomyError, Array, InputError, Landmark, Mesh, Pose
from implantforge.geom import shapemodel
from implantforge.report import bones
from implantforge.stages import anatomy
from implantforge.stages.anatomy import corrected, identify, lines, pelvis, rings


def solid(mesh: Mesh) -> manifold3d.Manifold:
    return manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices.copy(), mesh.faces.astype(np.uint64)))


def surface(body: manifold3d.Manifold) -> Mesh:
    made = body.to_mesh64()
    return Mesh(np.asarray(made.vert_properties)[:, :3], np.asarray(made.tri_verts).astype(np.int32))


def bridged(meshes: list[Mesh], pairs: tuple[tuple[int, int], ...], radius: float) -> Mesh:
    """Bones grown together where they come nearest to each other."""
    body = manifold3d.Manifold()
    for mesh in meshes:
        body = body + solid(mesh)
    for one, other in pairs:
        far, near = cKDTree(meshes[other].vertices).query(meshes[one].vertices)
        at = (meshes[one].vertices[far.argmin()] + meshes[other].vertices[near[far.argmin()]]) / 2
        body = body + manifold3d.Manifold.sphere(radius, 32).translate([float(x) for x in at])
    return surface(body)


def sampled(names: tuple[str, ...], seed: int) -> list[Mesh]:
    """Bones of one drawn patient, in one frame."""
    shape, bones = shapemodel.load(1)
    weights = np.random.default_rng(seed).standard_normal(len(shape.sd)).clip(-1.5, 1.5)
    return [Mesh(np.asarray(bones[name][0] @ shape.nodes(weights)), bones[name][1]) for name in names]


@pytest.mark.parametrize("kind", ["hip", "tibia"])
def test_moved_and_mirrored(kind: str) -> None:
    bone = drawn_bones.draw(np.random.default_rng(21), kind, "whole", "left")
    found = anatomy.examine(f"{kind}_left", bone.mesh)
    pose = Pose(Rotation.random(random_state=9).as_matrix(), np.array([-140.0, 60.0, 900.0]))
    moved = anatomy.examine(f"{kind}_left", bone.mesh.moved(pose))
    mirrored = anatomy.examine(f"{kind}_right", bone.mesh.mirrored_x())
    for name, mark in found.landmarks.items():
        assert np.linalg.norm(pose.apply(mark.at_mm) - moved.landmarks[name].at_mm) < 0.05, name
        assert np.linalg.norm(mark.at_mm * [-1, 1, 1] - mirrored.landmarks[name].at_mm) < 0.05, name
    for name, value in found.measures.items():
        assert moved.measures[name] == pytest.approx(value, abs=0.05), name
        assert mirrored.measures[name] == pytest.approx(value, abs=0.05), name


def test_a_tibia_of_a_tenth_of_the_triangles() -> None:
    import fast_simplification

    mesh = drawn_bones.draw(np.random.default_rng(23), "tibia", "whole", "left").mesh
    v, f = fast_simplification.simplify(mesh.vertices.copy(), mesh.faces.copy(), target_count=len(mesh.faces) // 10)
    few, many = anatomy.examine("tibia_left", Mesh(v, f)), anatomy.examine("tibia_left", mesh)
    for name, mark in many.landmarks.items():
        assert np.linalg.norm(mark.at_mm - few.at(name)) < 0.3, name


def test_corrections_of_a_tibia_and_a_hip() -> None:
    both = dict(zip(("hip_left", "hip_right"), sampled(("hip_left", "hip_right"), 22)))
    shin = {"tibia_left": drawn_bones.draw(np.random.default_rng(22), "tibia", "whole", "left").mesh}
    for bones_, mark, measure in ((shin, "medial_malleolus", "tibial_torsion_deg"),
                                  (shin, "posterior_lateral_tibia", "posterior_slope_medial_deg"),
                                  (both, "asis", "inclination_deg")):  # fmt: skip
        name, pages = next(iter(bones_)), anatomy.examine_all(bones_)
        page = pages[name]
        nudged = lines.paired(corrected.apply(pages, {f"{name}.{mark}": page.at(mark) + [0.011, 0.0, 0.0]}))[name]
        for key, value in page.measures.items():
            assert nudged.measures[key] == pytest.approx(value, abs=0.05), key
        # across the bone: a turn of what rests on the landmark
        push = 8.0 * np.cross(page.at(mark) - bone_middle(page), [0.3, 0.5, 0.8])
        push *= 8.0 / np.linalg.norm(push)
        page_ = lines.paired(corrected.apply(pages, {f"{name}.{mark}": page.at(mark) + push}))[name]
        assert page_.landmarks[mark].method == corrected.METHOD
        assert abs(page_.measures[measure] - page.measures[measure]) > 0.05, measure


def bone_middle(page: Any) -> Array:
    return np.mean([mark.at_mm for mark in page.landmarks.values()], axis=0)


def test_a_fused_fibula() -> None:
    tibia, fibula = sampled(("tibia_left", "fibula_left"), 31)
    alone = anatomy.examine("tibia_left", tibia)
    fused = anatomy.examine("tibia_left", bridged([tibia, fibula], ((0, 1),), 6.0))
    for name in ("tuberosity", "medial_malleolus", "plateau_center", "medial_spine"):
        assert np.linalg.norm(fused.at(name) - alone.at(name)) < 1.5, name
    assert fused.landmarks["lateral_malleolus"].method == "fused-fibula"
    assert np.linalg.norm(fused.at("lateral_malleolus") - fibula.vertices[fibula.vertices[:, 2].argmin()]) < 4.0


@pytest.fixture(scope="module")
def girdle() -> list[Mesh]:
    return sampled(("hip_left", "hip_right", "sacrum"), 32)


def test_a_whole_pelvis_in_one_surface(girdle: list[Mesh]) -> None:
    alone = anatomy.examine_all({"hip_left": girdle[0], "hip_right": girdle[1]})
    pose = Pose(Rotation.random(random_state=3).as_matrix(), np.array([100.0, -50.0, 30.0]))
    fused = bridged(girdle, ((0, 1), (0, 2), (1, 2)), 7.0).moved(pose)
    found = anatomy.examine_all({"pelvis": fused})
    assert list(found) == ["hip_left", "hip_right"] and "app" in found["hip_left"].frames
    for name, page in alone.items():
        assert np.linalg.norm(pose.apply(page.at("acetabulum_center")) - found[name].at("acetabulum_center")) < 0.5
        for mark in ("asis", "psis", "ischial_spine"):
            assert np.linalg.norm(pose.apply(page.at(mark)) - found[name].at(mark)) < 2.0, (name, mark)
        assert found[name].measures["inclination_deg"] == pytest.approx(page.measures["inclination_deg"], abs=2.0)
    with pytest.raises(AnatomyError, match="hip_left"):
        anatomy.examine("hip_left", fused)
    with pytest.raises(InputError, match="given as well"):
        anatomy.examine_all({"pelvis": fused, "hip_left": girdle[0]})


def test_what_is_no_pelvis(girdle: list[Mesh]) -> None:
    with pytest.raises(InputError, match="mm"):
        pelvis.split(Mesh(girdle[0].vertices / 1000.0, girdle[0].faces))
    with pytest.raises(AnatomyError, match="pelvis"):
        pelvis.split(girdle[0])


def test_five_thousand_triangles_and_osteophytes() -> None:
    import fast_simplification

    bone = drawn_bones.draw(np.random.default_rng(33), "femur", "whole", "right")
    v, f = fast_simplification.simplify(bone.mesh.vertices.copy(), bone.mesh.faces.copy(), target_count=5000)
    bumpy = drawn_bones.bumpy(bone.mesh, np.random.default_rng(1), 25)
    for mesh, limit in ((Mesh(v, f), 0.5), (bumpy, 1.5)):
        found = anatomy.examine("femur_right", mesh)
        assert np.linalg.norm(found.at("head_center") - bone.points["head_center"]) < limit
        assert np.linalg.norm(found.at("lateral_epicondyle") - bone.points["lateral_epicondyle"]) < 5.0


@pytest.mark.slow
def test_two_million_triangles() -> None:
    bone = drawn_bones.draw(np.random.default_rng(34), "femur", "whole", "left")
    v, f = bone.mesh.vertices, bone.mesh.faces
    while len(f) < 1_500_000:
        v, f = trimesh.remesh.subdivide(v, f)
    few, many = anatomy.examine("femur_left", bone.mesh), anatomy.examine("femur_left", Mesh(v, f.astype(np.int32)))
    for name, mark in few.landmarks.items():
        assert np.linalg.norm(mark.at_mm - many.at(name)) < 0.3, name


def test_a_cut_bone_is_less_sure() -> None:
    rng = np.random.default_rng(35)
    whole = drawn_bones.draw(rng, "femur", "whole", "left")
    height = whole.mesh.vertices @ whole.up
    piece = drawn_bones.cut(whole.mesh, whole.up, float(height.max() - 0.35 * np.ptp(height)), True)
    one, other = anatomy.examine("femur_left", whole.mesh), anatomy.examine("femur_left", piece)
    for name in ("greater_trochanter", "lesser_trochanter"):
        assert other.landmarks[name].sigma_mm > one.landmarks[name].sigma_mm
    # what the shaft does not show is said, and the angle rests on what it shows
    assert "neck_shaft_angle_shaft_deg" in other.refused and "neck_shaft_angle_shaft_deg" not in one.refused
    assert other.measures["neck_shaft_angle_deg"] == other.measures["neck_shaft_angle_proximal_deg"]
    assert other.measures["neck_shaft_angle_deg"] == pytest.approx(
        one.measures["neck_shaft_angle_proximal_deg"], abs=1.0
    )


def test_rings_are_the_sections_one_by_one() -> None:
    from implantforge.geom.sections import loop_around

    mesh = drawn_bones.draw(np.random.default_rng(36), "femur", "whole", "left").mesh
    rng = np.random.default_rng(0)
    for _ in range(4):
        way = rng.normal(size=3)
        at = 0.9 * mesh.vertices[rng.integers(0, len(mesh.vertices), 8)] + 0.1 * mesh.vertices.mean(axis=0)
        for point, ring in zip(at, rings.around(mesh, at, way)):
            loop = loop_around(mesh, point, way)
            assert (loop is None) == (ring is None)
            if loop is not None and ring is not None:
                assert ring.area_mm2 == pytest.approx(loop.area_mm2, abs=1e-6)
                assert np.allclose(ring.centroid_mm, loop.centroid_mm, atol=1e-6)


def tagged(path: Path, mesh: Mesh, words: str) -> None:
    """An STL or PLY as 3D Slicer writes it, with its space in the header."""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    data = body.export(file_type=path.suffix[1:])
    if path.suffix == ".stl":
        data = f"3D Slicer output. {words}".encode().ljust(80)[:80] + data[80:]
    else:
        data = data.replace(b"comment ", f"comment 3D Slicer output. {words}\ncomment ".encode(), 1)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".stl", ".ply"])
def test_a_files_own_space(tmp_path: Path, suffix: str) -> None:
    from implantforge.cli.reading import read_mesh

    mesh = drawn_bones.draw(np.random.default_rng(37), "tibia", "whole", "left").mesh
    flip = np.array([-1.0, -1.0, 1.0])
    tagged(tmp_path / f"lps{suffix}", mesh, "SPACE=LPS")
    tagged(tmp_path / f"ras{suffix}", Mesh(mesh.vertices * flip, mesh.faces), "SPACE=RAS")
    one, other = (read_mesh(tmp_path / f"{space}{suffix}") for space in ("lps", "ras"))
    assert np.allclose(one.vertices.mean(axis=0), mesh.vertices.mean(axis=0), atol=0.01 * np.ptp(mesh.vertices))
    assert np.allclose(np.sort(one.vertices, axis=0), np.sort(other.vertices, axis=0), atol=1e-3)


@pytest.mark.slow
def test_landmarks_of_a_pelvis_by_command(girdle: list[Mesh], tmp_path: Path) -> None:
    from implantforge.cli import _cli as program

    mesh = bridged(girdle, ((0, 1), (0, 2), (1, 2)), 7.0)
    trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(tmp_path / "p.stl")
    picture = tmp_path / "p.png"
    asked = ["landmarks", f"pelvis={tmp_path / 'p.stl'}", "--json", "--picture", str(picture)]
    done = CliRunner().invoke(program, asked, standalone_mode=False)
    assert done.exception is None, done.exception
    page = json.loads(done.output[done.output.index("{") :])
    assert {"hip_left", "hip_right"} <= set(page) and "app" in page["hip_left"]["frames"]
    assert picture.stat().st_size > 10_000


def test_names_in_a_picture_never_lie_on_each_other() -> None:
    rng = np.random.default_rng(40)
    for count in (0, 1, 2, 7, 30, 90):
        levels = np.sort(rng.uniform(0.0, 600.0, count)) if count != 7 else np.full(7, 300.0)
        placed = bones.spaced(levels, 30.0, 580.0, 15.0)
        assert len(placed) == count
        if count > 1:
            assert np.diff(placed).min() >= min(15.0, 550.0 / (count - 1)) - 1e-9
        assert ((placed >= 30.0 - 1e-9) & (placed <= 580.0 + 1e-9)).all()
    # far enough apart already: none moves; one crowd is spread about its middle
    assert np.allclose(bones.spaced(np.array([50.0, 90.0, 400.0]), 30.0, 580.0, 15.0), [50.0, 90.0, 400.0])
    assert np.allclose(bones.spaced(np.full(3, 300.0), 30.0, 580.0, 15.0), [285.0, 300.0, 315.0])


@pytest.mark.slow
def test_a_build_with_a_persons_landmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's head given 3 mm further back: the fit follows it, and anatomy, manifest, markups and report say by whom."""
    import toy

    from implantforge import report
    from implantforge.core import Landmark
    from implantforge.pipeline import recipe, steps
    from implantforge.pipeline.build import build
    from implantforge.stages import export

    real = steps.anatomy
    toy.install(monkeypatch)
    monkeypatch.setattr(steps, "anatomy", real)

    def examine(name: str, mesh: Mesh, volume: Any, given: dict[str, Array]) -> Any:
        return corrected.apply({name: toy.measure(mesh, volume, name=name)}, given)[name]

    monkeypatch.setattr(steps.bone_anatomy, "examine", examine)
    (tmp_path / "toy.toml").write_text(toy.RECIPE)
    (tmp_path / "ct.zip").write_text("voxels")
    moved = toy.CENTRE_MM + [0.0, 3.0, 0.0]
    given = tmp_path / "by_hand.mrk.json"
    export.write_markups(given, {"femur_left.head_center": Landmark("head_center", moved, 1.0, "person")})
    pages, texts = [], []
    for out, file in (("ours", None), ("theirs", given)):
        build(recipe.load(str(tmp_path / "toy.toml"), ()), tmp_path / out, tmp_path / "ct.zip", landmarks=file)
        read = {name: json.loads((tmp_path / out / name).read_text("utf-8"))
                for name in ("anatomy.json", "fit.json", "manifest.json", "landmarks.mrk.json")}  # fmt: skip
        pages.append(read)
        texts.append(report.write(tmp_path / out).read_text("utf-8"))
    ours, theirs = (page["anatomy.json"]["femur_left"]["landmarks"]["head_center"] for page in pages)
    assert ours["method"] == "sphere-lsq" and theirs["method"] == corrected.METHOD
    assert np.allclose(np.array(theirs["at_mm"]) - ours["at_mm"], [0.0, 3.0, 0.0], atol=1e-3)
    assert "landmarks_by_hand" not in pages[0]["manifest.json"]
    assert pages[1]["manifest.json"]["landmarks_by_hand"] == ["femur_left.head_center"]
    at = pages[1]["landmarks.mrk.json"]["markups"][0]["controlPoints"][0]["position"]
    assert np.allclose(at, moved, atol=1e-3)
    shifts = [np.array(page["fit.json"]["gap_samples"]["points_mm"][0]) for page in pages]
    assert np.allclose(shifts[1] - shifts[0], [0.0, 3.0, 0.0], atol=1e-3)
    for word in ("corrected by hand", "виправлено вручну"):
        assert word not in texts[0] and word in texts[1]


def test_bones_that_do_not_lie_in_one_body_are_refused() -> None:
    def page(bone: str, **at: tuple[float, float, float]) -> Anatomy:
        marks = {name: Landmark(name, np.array(place, float), 0.3, "x") for name, place in at.items()}
        return Anatomy(bone, "left", marks)

    femur = page("femur_left", head_center=(0, 0, 0), knee_center=(0, 0, -420))
    hip = page("hip_left", acetabulum_center=(0, 0, 1))
    assert lines.legs({"femur_left": femur, "hip_left": hip})["leg_left"]["head_from_socket_mm"] == pytest.approx(1.0)
    far = page("hip_left", acetabulum_center=(0, 900, 1))
    with pytest.raises(InputError, match="femur_left and hip_left lie 900 mm apart"):
        lines.legs({"femur_left": femur, "hip_left": far})


def test_a_surface_torn_all_over_is_refused_and_a_cut_one_is_not() -> None:
    ball = trimesh.creation.icosphere(5, 40.0)
    whole = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces, np.int32))
    middle = whole.vertices[whole.faces].mean(axis=1)
    identify._whole_enough(whole, "femur_left")
    identify._whole_enough(Mesh(whole.vertices, whole.faces[np.abs(middle[:, 2]) < 20]), "femur_left")
    few = np.random.default_rng(0).random(len(whole.faces)) > 0.05
    half = np.arange(len(whole.faces)) % 2 == 0
    for kept in (few, half):
        with pytest.raises(InputError, match=r"femur_left: the surface has holes everywhere .* close it first"):
            identify._whole_enough(Mesh(whole.vertices, whole.faces[kept]), "femur_left")
