"""What is let in and what is not: skulls, two bones in a file, inside out, of no one's size; and what is said."""

from __future__ import annotations

from itertools import pairwise

import drawn_bones
import numpy as np
import pytest
import trimesh
from test_anatomy_hard import bridged, sampled

from implantforge.core import Anatomy, AnatomyError, InputError, Mesh
from implantforge.stages import anatomy
from implantforge.stages.anatomy import body, identify

NAME = "femur_left"


@pytest.fixture(scope="module")
def femur() -> Mesh:
    return drawn_bones.draw(np.random.default_rng(3), "femur", "whole", "left").mesh


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]),
                np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)]))  # fmt: skip


def ball(radius: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0), finer: int = 4) -> Mesh:
    made = trimesh.creation.icosphere(finer, radius)
    return Mesh(np.asarray(made.vertices) + at, np.asarray(made.faces, np.int32))


def shell(mesh: Mesh, share: float = 0.92) -> Mesh:
    """A body hollowed: its own surface, smaller and turned, inside it."""
    return joined(mesh, Mesh(mesh.vertices * share, mesh.faces[:, ::-1]))


def vault() -> Mesh:
    return shell(Mesh(ball(1.0, finer=5).vertices * [72.0, 92.0, 65.0], ball(1.0, finer=5).faces))


def test_a_vault_is_a_skull_and_these_are_not() -> None:
    cube = trimesh.creation.box([150, 150, 150]).subdivide().subdivide().subdivide().subdivide()
    box = Mesh(np.asarray(cube.vertices), np.asarray(cube.faces, np.int32))
    girdle = sampled(("hip_left", "hip_right", "sacrum"), 32)
    assert anatomy.examine("skull", vault()).measures["symmetry_rms_mm"] < 0.1
    half = drawn_bones.cut(vault(), np.array([0.0, 0.0, 1.0]), -5.0, True)
    assert anatomy.examine("skull", half).measures["symmetry_rms_mm"] < 0.1
    cases = (
        (box, "solid"), (ball(80.0), "solid"), (girdle[2], "solid"), (shell(box), "no vault"), (shell(ball(80.0)), "a ball"),
        (bridged(girdle, ((0, 1), (0, 2), (1, 2)), 7.0), "no vault"),
    )  # fmt: skip
    for mesh, why in cases:
        with pytest.raises(AnatomyError, match=f"skull: not a skull.*{why}"):
            anatomy.examine("skull", mesh)


@pytest.mark.slow
def test_a_real_skull_and_its_pieces(shared_data, tmp_path) -> None:
    from click.testing import CliRunner

    from implantforge.cli import _cli as program
    from implantforge.cli.reading import read_mesh

    scan = shared_data / "ct" / "dry_skull_bone_kernel.zip"
    done = CliRunner().invoke(program, ["mesh", str(scan), "--out", str(tmp_path / "m")], standalone_mode=False)
    assert done.exception is None, done.output
    whole = read_mesh(tmp_path / "m" / "skull.stl")
    assert anatomy.examine("skull", whole).measures["symmetry_rms_mm"] < 1.0
    low, high = whole.vertices[:, 2].min(), whole.vertices[:, 2].max()
    for share in (0.3, 0.5, 0.7):
        level = low + share * (high - low)
        for sign in (1.0, -1.0):
            piece = drawn_bones.cut(whole, np.array([0.0, 0.0, sign]), sign * level, True)
            if sign > 0 or share > 0.3:
                assert anatomy.examine("skull", piece).measures["symmetric_pct"] > 80.0


def test_two_bones_in_one_mesh(femur: Mesh) -> None:
    tibia = drawn_bones.draw(np.random.default_rng(4), "tibia", "whole", "left").mesh
    for other in (tibia, Mesh(femur.vertices + [150.0, 0.0, 0.0], femur.faces)):
        with pytest.raises(
            InputError, match=r"femur_left: two bones in one mesh: a piece of \d+ cm2, \d+ mm .* own file"
        ):
            identify.one(joined(femur, other), NAME)
    alone = identify.one(femur, NAME)
    blob = ball(9.0, tuple(femur.vertices[0] + 60.0), 3)
    told = identify.one(joined(femur, blob), NAME)
    assert np.array_equal(told.mesh.vertices, femur.vertices) and alone.measures == {}
    area = 4 * np.pi * 81.0 / (np.linalg.norm(femur.face_cross, axis=1).sum() / 2)
    assert told.measures[body.LEFT_OUT] == 1.0
    assert told.measures[body.LEFT_OUT_PCT] == pytest.approx(100 * area, rel=0.02)
    assert told.measures[body.LEFT_OUT_MM] == pytest.approx(18.0 * 3**0.5, rel=0.02)
    assert any("1 more piece" in text for text in anatomy.flags(Anatomy(NAME, "left", {}, {}, told.measures)))
    # the wall of the marrow is no second bone, however large
    assert body.one(joined(femur, Mesh(femur.vertices.mean(axis=0) + 0.9 * (femur.vertices - femur.vertices.mean(axis=0)),
                                       femur.faces[:, ::-1])), NAME)[1] == {}  # fmt: skip


def test_inside_out_is_turned_and_said(femur: Mesh) -> None:
    turned = Mesh(femur.vertices, femur.faces[:, ::-1])
    one, other = anatomy.examine(NAME, femur), anatomy.examine(NAME, turned)
    assert other.measures[body.TURNED] == 1.0 and body.TURNED not in one.measures
    assert any("inside out" in text for text in anatomy.flags(other)) and not anatomy.flags(one)
    for name, mark in one.landmarks.items():
        assert np.linalg.norm(mark.at_mm - other.at(name)) < 0.05, name
    for cut_ in (False, True):
        height = femur.vertices @ np.array([0.0, 0.0, 1.0])
        piece = drawn_bones.cut(femur, np.array([0.0, 0.0, 1.0]), float(np.median(height)), cut_)
        assert body.volume_mm3(piece) > 0.0 > body.volume_mm3(Mesh(piece.vertices, piece.faces[:, ::-1]))


def test_a_pelvis_inside_out_is_said_of_both_hips() -> None:
    girdle = joined(*sampled(("hip_left", "hip_right"), 32))
    found = anatomy.examine_all({"pelvis": Mesh(girdle.vertices, girdle.faces[:, ::-1])})
    assert set(found) == {"hip_left", "hip_right"}
    assert all(any("inside out" in text for text in anatomy.flags(page)) for page in found.values())


def test_a_childs_tibia_has_its_slope() -> None:
    mesh = drawn_bones.draw(np.random.default_rng(6), "tibia", "whole", "left").mesh
    ours, child = (anatomy.examine("tibia_left", Mesh(mesh.vertices * size, mesh.faces)) for size in (1.0, 0.5))
    assert child.measures["posterior_slope_deg"] == pytest.approx(ours.measures["posterior_slope_deg"], abs=1.0)
    assert child.measures["length_mm"] == pytest.approx(0.5 * ours.measures["length_mm"], rel=0.01)


def test_sizes_of_children_of_giants_and_of_no_one(femur: Mesh) -> None:
    flagged, scales = {}, []
    for factor in (0.5, 1.0, 1.3):
        seen = identify.one(Mesh(femur.vertices * factor, femur.faces), NAME)
        scales.append(seen.match.scale)
        flagged[factor] = seen.measures.get("size_to_grown")
    assert flagged[1.0] is None and flagged[0.5] == pytest.approx(0.5, abs=0.06)
    assert flagged[1.3] == pytest.approx(1.3, abs=0.1)
    assert all(one < other for one, other in pairwise(scales))
    page = Anatomy(NAME, "left", {}, {}, {"size_to_grown": flagged[0.5]})
    assert any("child" in text and f"{flagged[0.5]:.2f} times" in text for text in anatomy.flags(page))
    with pytest.raises(
        (AnatomyError, InputError), match=r"femur_left: \d+ from corner to corner, a femur measures 60-650 mm"
    ):
        identify.one(Mesh(femur.vertices * 1.5, femur.faces), NAME)
    half = drawn_bones.cut(femur, np.array([0.0, 0.0, 1.0]), float(np.median(femur.vertices[:, 2])), True)
    for factor in (0.21, 1.6):
        with pytest.raises(AnatomyError, match=r"femur_left: no one has it of this size: .* mm from corner to corner"):
            identify.one(Mesh(half.vertices * factor, half.faces), NAME)


@pytest.mark.parametrize("part", ["proximal", "distal"])
def test_a_measure_that_a_cut_bone_lacks_is_refused_not_left_out(part: str) -> None:
    page = anatomy.examine(NAME, drawn_bones.draw(np.random.default_rng(8), "femur", part, "left").mesh)
    for name in anatomy.OWED["femur"]:
        assert (name in page.measures) != (name in page.refused), name
    assert any(name in page.refused for name in anatomy.OWED["femur"])
