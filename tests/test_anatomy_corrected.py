"""A person's landmarks: what rests on them is measured anew, nothing else moves by a bit, nonsense is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import drawn_bones
import numpy as np
import pytest
from click.testing import CliRunner

from implantforge.core import Anatomy, Array, InputError, Mesh
from implantforge.stages import anatomy, export
from implantforge.stages.anatomy import corrected, femur, hip, identify, tibia
from implantforge.stages.anatomy.femur import angle
from implantforge.stages.anatomy.seen import Seen

NAME = "femur_left"


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return drawn_bones.draw(np.random.default_rng(3), "femur", "whole", "left").mesh


@pytest.fixture(scope="module")
def seen(mesh: Mesh) -> Seen:
    return identify.one(mesh, NAME)


@pytest.fixture(scope="module")
def page(seen: Seen) -> Anatomy:
    return femur.of(seen.anew({}))


def on_bone(mesh: Mesh, page: Anatomy, name: str, by_mm: float) -> Array:
    """A vertex about so far from a landmark."""
    away = np.linalg.norm(mesh.vertices - page.at(name), axis=1)
    return mesh.vertices[int(np.abs(away - by_mm).argmin())]


def truth(mesh: Mesh, marks: Anatomy) -> dict[str, float]:
    """Measures of a left femur by their definitions, from its landmarks and vertices alone."""
    at, shaft = marks.at, marks.frames["shaft"]
    up = at("head_center") - at("knee_center")
    up = up / np.linalg.norm(up)
    across = at("posterior_lateral_condyle") - at("posterior_medial_condyle")
    across = across - (across @ up) * up
    across /= np.linalg.norm(across)
    joint = at("distal_lateral_condyle") - at("distal_medial_condyle")
    neck = at("head_center") - at("shaft_below_trochanter")
    axis = shaft.rotation[:, 2]
    return {
        "length_mm": float(np.ptp(mesh.vertices @ up)),
        "mldfa_deg": 90.0 - float(np.degrees(np.arctan2(joint @ up, joint @ across))),
        "mechanical_to_shaft_deg": angle(up, axis),
        "anteversion_deg": float(np.degrees(np.arctan2(neck @ np.cross(across, up), -(neck @ across)))),
        "epicondylar_width_mm": float(np.linalg.norm(at("lateral_epicondyle") - at("medial_epicondyle"))),
        "offset_mm": float(np.linalg.norm(np.cross(at("head_center") - shaft.origin_mm, axis))),
        "head_height_above_lesser_trochanter_mm": float((at("head_center") - at("lesser_trochanter")) @ axis),
        "neck_shaft_angle_deg": angle(at("head_center") - at("neck_center"), -axis),
    }


CASES = {
    "head_center": set(),
    "medial_epicondyle": {"head_radius_mm", "offset_mm", "neck_shaft_angle_deg", "neck_shaft_angle_proximal_deg",
                          "head_height_above_lesser_trochanter_mm", "shaft_length_below_head_mm"},
    "posterior_lateral_condyle": {"length_mm", "mechanical_to_shaft_deg", "offset_mm", "neck_shaft_angle_deg"},
    "distal_medial_condyle": {"length_mm", "anteversion_deg", "version_lee_deg", "mechanical_to_shaft_deg", "offset_mm"},
    "lesser_trochanter": {"length_mm", "version_lee_deg", "mldfa_deg", "offset_mm", "neck_shaft_angle_deg"},
}  # fmt: skip
"""Landmark -> measures that do not rest on it."""


@pytest.mark.parametrize("name", CASES)
def test_what_rests_on_a_correction_follows_it_and_nothing_else(
    mesh: Mesh, seen: Seen, page: Anatomy, name: str
) -> None:
    at = page.at(name) + [2.0, 3.0, -2.5] if name == "head_center" else on_bone(mesh, page, name, 4.0)
    again = femur.of(seen.anew(corrected.chosen(page, {name: at}, seen)))
    mark = again.landmarks[name]
    assert np.array_equal(mark.at_mm, at) and mark.method == corrected.METHOD
    assert mark.sigma_mm == corrected.PERSON_MM[name]
    want, before = truth(mesh, again), truth(mesh, page)
    for key, value in want.items():
        assert again.measures[key] == pytest.approx(value, abs=1e-6), key
        assert page.measures[key] == pytest.approx(before[key], abs=1e-6), key
    assert set(again.measures) == set(page.measures)
    for key in CASES[name]:
        assert again.measures[key] == page.measures[key], key
    for key, frame in page.frames.items():
        if name in ("distal_medial_condyle", "posterior_lateral_condyle"):
            assert np.array_equal(again.frames[key].rotation, frame.rotation), key
    for key, old in page.landmarks.items():
        if key != name and key not in ("knee_center", "shaft_below_trochanter", "neck_center", "neck_base"):
            assert np.array_equal(again.at(key), old.at_mm), key
    if name == "head_center":
        assert np.array_equal(again.frames["isb"].origin_mm, at)
        x = again.frames["shaft"].rotation[:, 0]
        toward = at - again.frames["shaft"].origin_mm
        assert x @ np.cross(again.frames["shaft"].rotation[:, 2], toward) == pytest.approx(0.0, abs=1e-6)
        assert again.measures["head_radius_mm"] != page.measures["head_radius_mm"]
    if name == "medial_epicondyle":
        ends = again.landmarks["medial_epicondyle"], again.landmarks["lateral_epicondyle"]
        assert np.allclose(again.at("knee_center"), (ends[0].at_mm + ends[1].at_mm) / 2)
        sigma = np.hypot(ends[0].sigma_mm, ends[1].sigma_mm) / 2
        assert again.landmarks["knee_center"].sigma_mm == pytest.approx(sigma, abs=1e-3)
        assert sigma > page.landmarks["knee_center"].sigma_mm


def test_both_hips_follow_a_corrected_spine() -> None:
    from test_anatomy_hard import sampled

    bones = dict(zip(("hip_left", "hip_right"), sampled(("hip_left", "hip_right"), 22)))
    ours = anatomy.examine_all(bones)
    spot = on_bone(bones["hip_left"], ours["hip_left"], "asis", 6.0)
    found = anatomy.examine_all(bones, {"hip_left.asis": spot})
    spines = [spot, ours["hip_right"].at("asis")]
    tubercles = [page.at("pubic_tubercle") for page in ours.values()]
    frame = hip.plane(spines[0] - spines[1], sum(spines) / 2 - sum(tubercles) / 2)
    for name, page in found.items():
        want = hip.angles(ours[name].frames["acetabulum"].rotation[:, 2], frame, page.side)
        assert want != pytest.approx({key: ours[name].measures[key] for key in want}, abs=0.05)
        assert {key: page.measures[key] for key in want} == pytest.approx(want, abs=1e-9)
        for key in ("acetabulum_radius_mm", "rim_residual_mm"):
            assert page.measures[key] == ours[name].measures[key]


def test_nonsense_is_refused_by_name(mesh: Mesh, seen: Seen, page: Anatomy) -> None:
    inner, outer = page.at("medial_epicondyle"), page.at("lateral_epicondyle")
    off = seen.match.turn(np.array([-1.0, 0.0, 0.0]))
    cases: tuple[tuple[dict[str, Array], str], ...] = (
        (
            {"medial_epicondyle": outer, "lateral_epicondyle": inner},
            "medial_epicondyle .*lateral_epicondyle: are the two swapped",
        ),
        ({"head_center": page.at("head_center") + [17.0, 0.0, 0.0]}, "head_center was moved by 17 mm .16 at most"),
        ({"medial_epicondyle": inner + 9.0 * off}, "medial_epicondyle lies 9 mm off the bone"),
        ({"medial_epicondile": inner}, "no landmark medial_epicondile; did you mean medial_epicondyle"),
        ({"canal_flare_index": inner}, "canal_flare_index is a measure or a frame"),
        (
            {"greater_trochanter": page.at("greater_trochanter") * [-1.0, -1.0, 1.0]},
            "coordinateSystem names the wrong one",
        ),
    )
    for given, words in cases:
        with pytest.raises(InputError, match=words):
            corrected.chosen(page, given, seen)
    shin = drawn_bones.draw(np.random.default_rng(22), "tibia", "whole", "left").mesh
    shin_ = identify.one(shin, "tibia_left")
    ours = tibia.of(shin_)
    spines = {f"{a}_spine": ours.at(f"{b}_spine") for a, b in (("medial", "lateral"), ("lateral", "medial"))}
    with pytest.raises(InputError, match="medial_spine and lateral_spine are swapped"):
        corrected.chosen(ours, spines, shin_)
    with pytest.raises(InputError, match=r"femur_right\.head_center: no such bone here; there are femur_left"):
        anatomy.examine_all({NAME: mesh}, {"femur_right.head_center": inner})


def test_a_landmark_cut_off_may_be_given() -> None:
    bone = drawn_bones.draw(np.random.default_rng(8), "femur", "proximal")
    name = f"femur_{bone.side}"
    ours = anatomy.examine(name, bone.mesh)
    assert "isb" in ours.refused and "knee_center" in ours.refused
    given = {f"{name}.{mark}": bone.points[mark] for mark in ("medial_epicondyle", "lateral_epicondyle")}
    found = anatomy.examine(name, bone.mesh, None, given)
    assert "isb" not in found.refused and "knee_center" not in found.refused
    middle = (bone.points["medial_epicondyle"] + bone.points["lateral_epicondyle"]) / 2
    assert np.allclose(found.at("knee_center"), middle)
    assert angle(found.frames["isb"].rotation[:, 1], found.at("head_center") - middle) < 1e-4


def test_the_verb_says_what_was_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Anatomy, mesh: Mesh
) -> None:
    from implantforge.cli import _cli as program
    from implantforge.stages import meshfile

    meshfile.write_mesh(tmp_path / "f.ply", mesh)
    given = tmp_path / "x.mrk.json"
    asked = ["landmarks", f"{NAME}={tmp_path / 'f.ply'}", "--landmarks", str(given)]
    export.write_markups(given, {f"{NAME}.head_center": page.landmarks["head_center"]})
    text = json.loads(given.read_text("utf-8"))
    said = CliRunner().invoke(program, asked, standalone_mode=False)
    assert (
        said.exception is None
        and "0 of 1 landmarks in x.mrk.json differ from ours: nothing is corrected" in said.output
    )
    text["markups"][0]["controlPoints"][0]["position"][0] += 2.0
    given.write_text(json.dumps(text), "utf-8")
    said = CliRunner().invoke(program, asked, standalone_mode=False)
    assert said.exception is None and "corrected by hand: femur_left.head_center" in said.output
    for words, why in (
        ('{"markups": [{"controlPoints": []}]}', "no placed point"),
        ("{}", "no Slicer markups file: it has no list"),
    ):
        given.write_text(words, "utf-8")
        with pytest.raises(InputError, match=why):
            corrected.read_markups(given)
    with pytest.raises(InputError, match="does not exist"):
        corrected.read_markups(tmp_path / "none.mrk.json")
