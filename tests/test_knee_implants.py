"""The contract of the knee implants on drawn legs: planted place, mirror, move, closed parts, sourced checks, datums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import drawn_knees
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implantforge import implants
from implantforge.core import Anatomy, Fit, FitError, Landmark, Pose
from implantforge.geom import measure, meshing, shapes
from implantforge.implants import Case, _tray, knee_femoral, knee_tibial, knee_total
from implantforge.stages import anatomy

SEED = 2
FUNCTIONAL = knee_total.TotalParams(alignment="functional")
PARTS = {"femoral": knee_femoral, "tibial": knee_tibial}


@pytest.fixture(scope="module")
def left() -> Case:
    side, meshes, truth = drawn_knees.draw(SEED)
    assert side == "left"
    return drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))


@pytest.fixture(scope="module")
def planned(left: Case) -> Fit:
    return knee_total.plan(left, FUNCTIONAL)


def mapped(case: Case, side: Any, meshes: Any, place: Any) -> Case:
    """The case with other meshes and its landmarks carried along."""
    pages = {}
    for name, page in case.anatomy.items():
        bone = name.replace(case.side, side)
        marks = {n: Landmark(n, place(m.at_mm), m.sigma_mm, m.method) for n, m in page.landmarks.items()}
        pages[bone] = Anatomy(bone, side, marks)
    return drawn_knees.case(side, meshes, pages)


def test_found_landmarks_plan_what_the_planted_ones_do(left: Case, planned: Fit) -> None:
    found = {name: anatomy.examine(name, mesh) for name, mesh in left.bones.items()}
    mine = knee_total.plan(replace(left, anatomy=found), FUNCTIONAL)
    for name, fit in mine.parts.items():
        true = planned.parts[name]
        assert fit.params["size"] == true.params["size"]
        assert np.linalg.norm(fit.pose.origin_mm - true.pose.origin_mm) < 1.0
        turn = Rotation.from_matrix(fit.pose.rotation.T @ true.pose.rotation).magnitude()
        assert np.degrees(turn) < 1.5
    assert mine.params["insert_mm"] == planned.params["insert_mm"]


def test_gaps_match_and_the_stack_fills_them(planned: Fit) -> None:
    m = planned.metrics
    gaps = [m[f"gap_{way}_{part}_mm"] for way in ("extension", "flexion") for part in ("medial", "lateral")]
    assert np.ptp(gaps) <= 0.5
    assert m["stack_mm"] == pytest.approx(m["gap_extension_mm"], abs=1e-6)
    femur, tibia = planned.parts["femoral"].metrics, planned.parts["tibial"].metrics
    assert gaps[0] == pytest.approx(femur["distal_medial_mm"] + tibia["resection_medial_mm"] + 4.0)
    assert abs(m["hka_after_deg"] - 180.0) <= 3.0
    assert planned.reason == planned.alternatives[0]["why"]
    for fit in (planned, *planned.parts.values()):
        assert [row["rank"] for row in fit.alternatives] == list(range(1, len(fit.alternatives) + 1))
        chances = [fit.metrics.get(f"size_{name}probability_pct") for name in ("smaller_", "", "larger_")]
        assert None in chances or sum(chances) == pytest.approx(100.0)


def test_what_the_limit_leaves_one_release_evens() -> None:
    """A knee bowed beyond the limit: both gaps slant alike, and the limit holds."""
    side, meshes, truth = drawn_knees.draw(41)
    m = knee_total.plan(drawn_knees.case(side, meshes, drawn_knees.pages(side, truth)), FUNCTIONAL).metrics
    assert abs(m["hka_after_deg"] - 180.0) == pytest.approx(3.0)
    assert abs(m["imbalance_extension_mm"]) > 1.0
    assert m["imbalance_flexion_mm"] == pytest.approx(m["imbalance_extension_mm"], abs=0.05)


def test_mechanical_is_square_and_kinematic_resurfaces(left: Case) -> None:
    square = knee_total.plan(left, knee_total.TotalParams(alignment="mechanical"))
    axes, thigh = left.anatomy["femur_left"], square.parts["femoral"]
    up = axes.at("head_center") - axes.at("intercondylar_notch")
    distal = next(row for row in thigh.params["cuts"] if row["name"] == "femur distal")
    assert -np.array(distal["normal"]) @ up / np.linalg.norm(up) == pytest.approx(1.0, abs=1e-9)
    assert square.metrics["hka_after_deg"] == pytest.approx(180.0)
    assert "hka_before_deg" in square.metrics
    bone = left.bones["femur_left"].vertices
    near = bone[np.linalg.norm(bone - axes.at("intercondylar_notch"), axis=1) < 70.0]
    assert ((near - distal["point_mm"]) @ np.array(distal["normal"])).max() == pytest.approx(9.0, abs=1e-6)
    same = knee_total.plan(left, knee_total.TotalParams(alignment="kinematic")).metrics
    assert max(abs(same["imbalance_extension_mm"]), abs(same["imbalance_flexion_mm"])) < 0.3
    assert abs(same["gap_difference_mm"]) <= 0.5 + 1e-6


def test_a_mirrored_knee_gets_the_mirrored_plan(left: Case, planned: Fit) -> None:
    flip = np.array([-1.0, 1.0, 1.0])
    meshes = {name.replace("left", "right"): mesh.mirrored_x() for name, mesh in left.bones.items()}
    other = knee_total.plan(mapped(left, "right", meshes, lambda at: at * flip), FUNCTIONAL)
    for name, fit in other.parts.items():
        true = planned.parts[name]
        assert fit.params["size"] == true.params["size"]
        assert fit.pose.origin_mm * flip == pytest.approx(true.pose.origin_mm, abs=0.1)
        assert fit.pose.rotation[:, 2] * flip == pytest.approx(true.pose.rotation[:, 2], abs=1e-4)
    part = knee_tibial.TibialParams()
    a, b = (knee_tibial.design(fit.parts["tibial"], part).envelope for fit in (planned, other))
    at = np.random.default_rng(0).uniform([-40, -30, -40], [40, 30, 9], (4000, 3))
    assert a(at) == pytest.approx(b(at * flip), abs=1e-3)


def test_a_moved_knee_gets_the_moved_plan(left: Case, planned: Fit) -> None:
    move = Pose(Rotation.from_rotvec([0.4, -0.7, 1.9]).as_matrix(), np.array([31.0, -170.0, 250.0]))
    meshes = {name: mesh.moved(move) for name, mesh in left.bones.items()}
    other = knee_total.plan(mapped(left, "left", meshes, move.apply), FUNCTIONAL)
    for name, fit in other.parts.items():
        true = planned.parts[name]
        assert fit.params["size"] == true.params["size"]
        assert fit.pose.origin_mm == pytest.approx(move.apply(true.pose.origin_mm), abs=0.1)
        assert move.rotation.T @ fit.pose.rotation == pytest.approx(true.pose.rotation, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "change"),
    [("femoral", {}), ("femoral", {"cruciate": "PS"}), ("tibial", {}), ("tibial", {"fixation": "pegs"})],
)
def test_parts_are_closed_and_their_checks_sourced(left: Case, planned: Fit, name: str, change: dict[str, Any]) -> None:
    module, fit = PARTS[name], planned.parts[name]
    params = getattr(FUNCTIONAL, name).model_copy(update=change)
    made = module.design(fit, params)
    mesh = meshing.polygonise(made.envelope, 0.8)
    assert measure.is_manifold(mesh)
    assert measure.manifold_status(mesh) == "NoError"
    assert len(measure.components(mesh)[1]) == 1
    for row in module.checks(left, fit, made, mesh.moved(fit.pose), params):
        assert row.source.strip()
        assert row.unit
        assert row.passed or row.severity == "flag", f"{row.name} {row.value} {row.unit}, limit {row.sense} {row.limit}"
    at = mesh.vertices[::7] * 0.999
    assert (np.minimum(made.solid(at), made.porous(at)) <= np.maximum(made.envelope(at), 0) + 1e-6).all()


def test_metal_beyond_the_bone_is_counted(left: Case, planned: Fit) -> None:
    fit, params = planned.parts["tibial"], FUNCTIONAL.tibial
    aside = fit.pose.compose(Pose(np.eye(3), np.array([0.0, 25.0, 0.0])))
    made = knee_tibial.design(fit, params)
    bone = left.bones["tibia_left"]
    assert _tray.outside_mm3(bone, made, fit.pose, 1.0) == (0.0, 0.0)
    assert _tray.outside_mm3(bone, made, aside, 1.0)[1] > 100.0


def test_datums_of_the_tray_agree_with_its_mesh(planned: Fit) -> None:
    fit, params = planned.parts["tibial"], FUNCTIONAL.tibial
    made = knee_tibial.design(fit, params)
    rows = {row["name"]: row for row in made.machined}
    mesh = meshing.polygonise(made.envelope, 0.4).moved(fit.pose)
    inside = knee_tibial.outline_field(float(fit.params["ml_mm"]), 1.0)(fit.pose.inverse_apply(mesh.vertices)) < -4.0
    for name, stock in (("tray plane", params.rim_stock_mm), ("bone face", 0.0)):
        away = (mesh.vertices[inside] - rows[name]["at_mm"]) @ np.array(rows[name]["axis"]) - stock
        flat = away[np.abs(away) < 0.03]
        assert len(flat) > 10_000
        assert np.abs(np.percentile(flat, [0.5, 50, 99.5])).max() < 0.02
    axis, foot = np.array(rows["keel axis"]["axis"]), np.array(rows["keel axis"]["at_mm"])
    local = mesh.vertices - foot
    deep = local @ axis
    stem = local[(deep > 25.0) & (deep < 30.0)]
    across = stem - np.outer(stem @ axis, axis)
    assert np.linalg.norm(across.mean(axis=0)) < 0.1
    assert {
        "femur distal",
        "femur posterior",
        "femur anterior",
        "femur anterior chamfer",
        "femur posterior chamfer",
        "tibia",
    } == {row["name"] for row in planned.params["cuts"]}


def test_wholes_and_refusals(left: Case, planned: Fit) -> None:
    rows = knee_total.checks(left, planned, {}, FUNCTIONAL)
    assert all(row.source and (row.passed or row.severity == "flag") for row in rows)
    femoral = {"bearing_material": "unsuitable"}
    made = knee_femoral.design(planned.parts["femoral"], FUNCTIONAL.femoral)
    mesh = meshing.polygonise(made.envelope, 1.2).moved(planned.parts["femoral"].pose)
    found = {
        row.name: row for row in knee_femoral.checks(left, planned.parts["femoral"], made, mesh, FUNCTIONAL.femoral)
    }
    for name, word in femoral.items():
        assert word in found[name].source
        assert not found[name].passed
        assert found[name].severity == "flag"
    with pytest.raises(FitError, match="no size 53"):
        knee_femoral.plan(left, knee_femoral.FemoralParams(size=53))
    with pytest.raises(FitError, match=r"the size asked, 52, does not fit femur_left .*: it notches"):
        knee_femoral.plan(left, knee_femoral.FemoralParams(size=52))
    with pytest.raises(FitError, match="the insert asked, 20 mm, does not fill a gap"):
        knee_total.plan(left, knee_total.TotalParams(insert_mm=20.0))
    known = implants.registry()
    assert {"knee_femoral", "knee_tibial", "knee_total"} <= set(known)
    assert known["knee_total"].bones("right") == ("femur_right", "tibia_right")


@pytest.mark.parametrize(
    ("extension", "flexion", "alignment", "words"),
    [
        (0.4, -0.5, "mechanical", ()),
        (
            -2.1,
            -0.3,
            "mechanical",
            ("medial side 2.1 mm tighter in extension", "release the medial side", 'alignment = "fun'),
        ),
        (1.2, 2.4, "functional", ("lateral side 2.4 mm tighter in flexion", "until it opens 2.4 mm", "limit_deg = 3")),
        (-1.2, 0.9, "mechanical", ("no release serves both",)),
    ],
)
def test_the_side_to_release_is_the_tight_one(extension: float, flexion: float, alignment: str, words: Any) -> None:
    """Imbalance is the medial less the lateral gap: below zero the medial side is tight."""
    m = {"imbalance_extension_mm": extension, "imbalance_flexion_mm": flexion}
    told = knee_total._release(m, knee_total.TotalParams(alignment=alignment))
    assert bool(told) is bool(words)
    assert all(word in told for word in words)


def test_the_plan_is_told_in_sentences(left: Case, planned: Fit) -> None:
    square = knee_total.plan(left, knee_total.TotalParams(alignment="mechanical"))
    text, m = " ".join(square.params["told"]), square.metrics
    assert f"Insert {m['insert_mm']:.0f} mm" in text
    assert "angle 180.0 deg after (before: " in text
    assert "Uneven gaps: " + square.params["release"] in text
    rows = {
        row.name: row for row in knee_total.checks(left, square, {}, knee_total.TotalParams(alignment="mechanical"))
    }
    assert square.params["release"] in rows["gap_imbalance_mm"].source
    assert "Uneven" not in " ".join(planned.params["told"])
    # a plate of bone 40 x 36 x 23 mm stands for a patella: 23 - 8.5 leaves 14.5
    plate = meshing.polygonise(shapes.box([0.0, 0.0, 0.0], [40.0, 23.0, 36.0]), 2.0)
    found = knee_total._patella(replace(left, bones={**left.bones, "patella_left": plate}))
    assert found["patella_thickness_mm"] == pytest.approx(23.0, abs=0.1)
    assert found["patella_width_mm"] == pytest.approx(36.0, abs=0.1)
    assert (found["patella_button_mm"], found["patella_bone_left_mm"]) == (32.0, pytest.approx(14.5, abs=0.1))
