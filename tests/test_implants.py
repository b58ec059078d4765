"""The contract every implant keeps, run on its own phantom, and the planted truth along the way from HU to plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from implantforge import implants
from implantforge.core import Field, Grid, InputError, Labels, Mesh, Pose, Volume
from implantforge.geom import measure, meshing
from implantforge.geom.inside import inside
from implantforge.implants import Case, hip_stem
from implantforge.stages import anatomy, fit, phantoms, segment, surface

SPACING_MM = (1.1, 1.1, 1.3)
SEED = 3


@pytest.fixture(scope="module")
def patient() -> Any:
    return phantoms.hip(SEED, spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def labels(patient: Any) -> Labels:
    return segment.bones(patient.volume)


def case_of(volume: Volume, labels: Labels, side: str) -> Case:
    name = f"femur_{side}"
    mesh = surface.bone(volume, labels, name)
    return Case(side, volume, labels, {name: mesh}, {name: anatomy.examine(name, mesh, volume)})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def left(patient: Any, labels: Labels) -> Case:
    return case_of(patient.volume, labels, "left")


@pytest.fixture(scope="module")
def planned(left: Case) -> Any:
    return hip_stem.plan(left, hip_stem.StemParams())


def test_segment_keeps_bones_and_sides_apart(patient: Any, labels: Labels) -> None:
    truth = patient.labels
    for name in truth.names:
        if name.startswith("femur"):
            ours = labels.mask(name)
            others = [truth.mask(other) for other in truth.names if other != name]
            assert sum(int((ours & other).sum()) for other in others) <= 20
            overlap = 2.0 * (ours & truth.mask(name)).sum() / (ours.sum() + truth.mask(name).sum())
            assert overlap > 0.93
    assert np.argwhere(labels.mask("femur_left"))[:, 0].mean() > np.argwhere(labels.mask("femur_right"))[:, 0].mean()


def test_scan_without_a_femur_is_refused(patient: Any) -> None:
    head = patient.truth["femur_left"]["head_center_mm"]
    above = int(patient.volume.grid.to_index(np.array(head))[2] + 45.0 / SPACING_MM[2])
    iliac_wings = patient.volume.crop((0, 0, above), patient.volume.grid.shape)
    with pytest.raises(InputError, match="no femur"):
        segment.bones(iliac_wings)
    air = Volume(patient.volume.grid, np.full(patient.volume.grid.shape, -1000, np.int16))
    with pytest.raises(InputError, match="no bone"):
        segment.bones(air)


def test_surface_lies_on_the_planted_bone(patient: Any, left: Case) -> None:
    from scipy.spatial import cKDTree

    mesh, truth = left.bones["femur_left"], patient.meshes["femur_left"]
    assert measure.is_manifold(mesh)
    center = np.array(patient.truth["femur_left"]["head_center_mm"])
    near = mesh.vertices[np.abs(mesh.vertices[:, 2] - center[2]) < 100.0]
    corners = truth.vertices[truth.faces]
    normals = truth.face_cross / np.linalg.norm(truth.face_cross, axis=1, keepdims=True)
    face = cKDTree(corners.mean(axis=1)).query(near)[1]
    off = np.abs(np.einsum("ij,ij->i", near - corners[face, 0], normals[face]))
    assert off.mean() < 0.3
    assert np.percentile(off, 95) < 0.8


def test_anatomy_finds_what_was_planted(patient: Any, left: Case) -> None:
    found, truth = left.anatomy["femur_left"], patient.truth["femur_left"]
    assert np.linalg.norm(found.at("head_center") - truth["head_center_mm"]) < 0.5
    assert found.measures["neck_shaft_angle_deg"] == pytest.approx(truth["neck_shaft_angle_deg"], abs=2.0)
    assert found.measures["isthmus_diameter_mm"] == pytest.approx(truth["isthmus_width_mm"], abs=1.0)
    assert np.linalg.norm(found.at("lesser_trochanter") - truth["lesser_trochanter_mm"]) < 6.0
    assert "condyles" in found.refused["anteversion_deg"]


def test_stem_stays_inside_the_planted_bone_and_restores_the_head(patient: Any, planned: Any) -> None:
    made = hip_stem.design(planned, hip_stem.StemParams())
    assert fit.outside_mm3(patient.meshes["femur_left"], made, planned.pose) == 0.0
    x, z = planned.params["offset_mm"], planned.params["head_height_mm"]
    head = planned.pose.apply(np.array([x, 0.0, z]))
    assert np.linalg.norm(head - patient.truth["femur_left"]["head_center_mm"]) < 0.6
    assert planned.metrics["fill_mid_pct"] >= 70.0
    cone = made.machined[0]
    on_taper = np.array(cone["base_mm"]) + 9.0 * np.array(cone["axis"])
    assert on_taper == pytest.approx(head, abs=1e-9)
    assert planned.reason == planned.alternatives[0]["why"]
    assert [row["rank"] for row in planned.alternatives] == list(range(1, len(planned.alternatives) + 1))
    # those of the canal's own size by fill, then its neighbours by theirs
    own = [row["score"] for row in planned.alternatives if row["size"] == planned.params["size"]]
    others = [row["score"] for row in planned.alternatives[len(own) :]]
    assert own == sorted(own, reverse=True) and others == sorted(others, reverse=True)
    assert all(row["size"] == planned.params["size"] for row in planned.alternatives[: len(own)])


def whole_case(implant: Any, patient: Any, left: Case) -> Case:
    """The left side with every bone the implant needs or uses: the femur from the scan, others as they were planted."""
    names = {*implant.bones("left"), *implant.helpful("left")} - set(left.bones)
    bones = {name: patient.meshes[name] for name in sorted(names)}
    found = {name: anatomy.examine(name, mesh) for name, mesh in bones.items() if name in anatomy.KNOWN}
    return replace(left, bones={**left.bones, **bones}, anatomy={**left.anatomy, **found})


HIP = sorted(
    name
    for name, one in implants.registry().items()
    if one.region == "hip" and not any(row.name.endswith("template") for row in implants.parameters(one.Params))
)
"""Knees have a patient of their own: test_knee_implants.py; a maker's own template has tests of its own."""


def keeps_the_contract(implant: Any, case: Case, planned: Any = None, params: Any = None) -> Any:
    """Every part closed, manifold and whole; every check sourced, with a unit, and passed or a flag. The plan."""
    params = params or implant.Params()
    planned = planned or implant.plan(case, params)
    designs, rows = {}, []
    for member in implant.members(params):
        fit = member.of(planned)
        made = designs[member.name] = member.implant.design(fit, member.params)
        mesh = meshing.polygonise(made.envelope, 0.8)
        assert measure.is_manifold(mesh)
        assert measure.manifold_status(mesh) == "NoError"
        assert len(measure.components(mesh)[1]) == 1
        rows += member.implant.checks(case, fit, made, mesh.moved(fit.pose), member.params)
    if isinstance(implant, implants.System):
        rows += implant.checks(case, planned, designs, params)
    for row in rows:
        assert row.source.strip()
        assert row.unit
        assert row.passed or row.severity == "flag", f"{row.name} {row.value} {row.unit}, limit {row.sense} {row.limit}"
    return planned


@pytest.mark.parametrize("name", HIP)
def test_every_implant_makes_closed_parts_with_sourced_checks(
    name: str, patient: Any, left: Case, request: pytest.FixtureRequest
) -> None:
    implant = implants.get(name)
    given = request.getfixturevalue("planned") if name == "hip_stem" else None
    keeps_the_contract(implant, whole_case(implant, patient, left), given)


TOY = """
'''A peg in the head of the femur: an implant type is one file.'''

import numpy as np

from implantforge.core import Design, Fit, Lattice, Pose, check
from implantforge.geom import shapes
from implantforge.implants import Implant, Params, mm
from implantforge.stages.phantoms import hip


class PegParams(Params):
    length_mm: float = mm(20.0, 5.0, 40.0, "length", source="toy")


def plan(case, params):
    at = case.anatomy[f"femur_{case.side}"].at("head_center")
    return Fit("peg", {"length_mm": params.length_mm}, Pose(np.eye(3), at), {})


def design(fit, params):
    peg = shapes.capsule([0.0, 0.0, 0.0], [0.0, 0.0, fit.params["length_mm"]], 4.0)
    return Design(peg, peg & shapes.half_space([0.0, 0.0, 5.0], [0.0, 0.0, 1.0]), peg, Lattice())


def checks(case, fit, made, part, params):
    return (check("length_mm", np.ptp(part.vertices[:, 2]), "mm", "<=", 30.0, "toy standard"),)


IMPLANT = Implant("peg", "a peg", "hip", ("femur_{side}",), PegParams, plan, design, checks, hip)
"""


def carried(case: Case, move: Pose) -> Case:
    """A case moved rigidly: scan, labels, surfaces and anatomy."""
    grid = replace(case.volume.grid, pose=move.compose(case.volume.grid.pose))
    found = {
        name: replace(
            page,
            landmarks={key: replace(mark, at_mm=move.apply(mark.at_mm)) for key, mark in page.landmarks.items()},
            frames={key: move.compose(frame) for key, frame in page.frames.items()},
        )
        for name, page in case.anatomy.items()
    }
    labels = Labels(grid, case.labels.values, case.labels.names)
    bones = {name: mesh.moved(move) for name, mesh in case.bones.items()}
    return Case(case.side, replace(case.volume, grid=grid), labels, bones, found)


def test_a_total_hip_changes_leg_and_offset_by_what_is_asked(patient: Any, left: Case) -> None:
    from implantforge.implants import hip_total

    case = whole_case(hip_total.IMPLANT, patient, left)
    params = hip_total.HipParams(leg_length_change_mm=4.0, offset_change_mm=-2.0, head_length="L")
    fit = hip_total.plan(case, params)
    rows = {(row["head_length"], row["head_mm"]): row for row in fit.params["heads"]}
    planned = next(row for (length, _), row in rows.items() if length == "L")
    assert planned["leg_length_change_mm"] == pytest.approx(4.0, abs=1e-3)
    assert planned["offset_change_mm"] == pytest.approx(-2.0, abs=1e-3)
    cone = hip_stem.design(fit.parts["stem"], params.stem).machined[0]
    head = np.array(cone["base_mm"]) + (9.0 + 3.5) * np.array(cone["axis"])
    frame = np.array(fit.parts["cup"].params["frame_rotation"])
    assert (fit.parts["cup"].pose.origin_mm - head) @ frame == pytest.approx([-2.0, 0.0, -4.0], abs=1e-6)
    widest = {length: row["leg_length_change_mm"] for (length, _), row in rows.items()}
    steps = np.diff([widest[name] for name in ("S", "M", "L", "XL")])
    assert steps == pytest.approx(steps[0], abs=0.01) and steps[0] > 1.5
    assert [row["rank"] for row in fit.alternatives] == list(range(1, len(fit.alternatives) + 1))
    assert fit.metrics["rom_flexion_deg"] > 90.0


def test_cup_lies_where_the_socket_was_planted(patient: Any, left: Case) -> None:
    implant = implants.get("hip_cup")
    case = whole_case(implant, patient, left)
    fit = implant.plan(case, implant.Params())
    truth = patient.truth["femur_left"]
    shift = np.linalg.norm(fit.pose.origin_mm - truth["cup_center_mm"])
    assert shift < abs(fit.metrics["center_shift_medial_mm"]) + 0.5
    assert abs(fit.metrics["size"] - (2 * truth["cup_radius_mm"] + 4.0)) < 1.3
    assert fit.metrics["bone_left_medial_mm"] >= 2.0


def test_taper_is_printed_with_stock_outside_the_machined_cone(planned: Any) -> None:
    params = hip_stem.StemParams()
    made = hip_stem.design(planned, params)
    cone = made.machined[0]
    axis, base = planned.pose.rotation.T @ cone["axis"], planned.pose.inverse_apply(np.array(cone["base_mm"]))
    side = np.cross(axis, [0.0, 1.0, 0.0])
    for share in (0.05, 0.5, 0.95):
        radius = cone["large_diameter_mm"] / 2 * (1 - share) + cone["small_diameter_mm"] / 2 * share
        at = base + share * cone["length_mm"] * axis
        edge = at + np.array([1.0, -1.0])[:, None] * radius * side / np.linalg.norm(side)
        assert made.envelope(edge) == pytest.approx(-params.taper_stock_mm, abs=0.03)
    assert cone["large_diameter_mm"] - cone["small_diameter_mm"] == pytest.approx(2 * 13.0 * np.tan(np.radians(17 / 6)))


def mirrored(volume: Volume) -> Volume:
    shape = np.array(volume.grid.shape)
    last = volume.grid.to_patient(np.array([shape[0] - 1.0, 0.0, 0.0]))
    grid = Grid(Pose(np.eye(3), last * [-1.0, 1.0, 1.0]), volume.grid.spacing_mm, volume.grid.shape)
    return Volume(grid, np.ascontiguousarray(volume.hu[::-1]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mirrored_patient_gets_the_mirrored_plan(
    patient: Any, labels: Labels, left: Case, planned: Any, side: str
) -> None:
    """The mirrored CT is segmented anew. The size that the canal asks for is the same to a tenth; a whole size follows
    from it wherever it is not within that tenth of a border, as the right hip's is (8.47)."""
    here = left if side == "left" else case_of(patient.volume, labels, side)
    wanted = planned if side == "left" else hip_stem.plan(here, hip_stem.StemParams())
    across = "right" if side == "left" else "left"
    volume = mirrored(patient.volume)
    case = case_of(volume, segment.bones(volume), across)
    ours, theirs = case.anatomy[f"femur_{across}"], here.anatomy[f"femur_{side}"]
    for name in ("head_center", "lesser_trochanter"):
        assert ours.at(name) * [-1.0, 1.0, 1.0] == pytest.approx(theirs.at(name), abs=0.5)
    other = hip_stem.plan(case, hip_stem.StemParams())
    asks = wanted.metrics["canal_size"]
    assert other.metrics["canal_size"] == pytest.approx(asks, abs=0.1)
    border = abs(asks % 1.0 - 0.5) < 0.1
    assert abs(other.params["size"] - wanted.params["size"]) <= int(border)
    assert border == (side == "right")
    assert other.pose.origin_mm * [-1.0, 1.0, 1.0] == pytest.approx(wanted.pose.origin_mm, abs=1.0)


def test_a_moved_patient_gets_the_moved_plan(patient: Any, labels: Labels, left: Case, planned: Any) -> None:
    turn = np.radians(20.0)
    spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]])
    move = Pose(spin, np.array([31.0, -17.0, 250.0]))
    grid = replace(patient.volume.grid, pose=move.compose(patient.volume.grid.pose))
    moved = case_of(Volume(grid, patient.volume.hu), Labels(grid, labels.values, labels.names), "left")
    ours, theirs = moved.anatomy["femur_left"], left.anatomy["femur_left"]
    for name in ("head_center", "neck_center", "greater_trochanter"):
        assert ours.at(name) == pytest.approx(move.apply(theirs.at(name)), abs=0.05)
    other = hip_stem.plan(moved, hip_stem.StemParams())
    assert other.params["size"] == planned.params["size"]
    assert other.pose.origin_mm == pytest.approx(move.apply(planned.pose.origin_mm), abs=0.7)


def test_seat_centres_a_peg_in_a_round_hole() -> None:
    hole = Field(lambda p: np.hypot(p[:, 0] - 2.0, p[:, 1] + 1.0) - 6.0, np.array([[-9.0] * 3, [9.0] * 3]))
    turns = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([5.0 * np.cos(turns), 5.0 * np.sin(turns), np.zeros(40)], axis=1)
    peg = np.concatenate([ring + [0, 0, z] for z in np.linspace(-20.0, 20.0, 9)])
    rest = fit.seat(peg, hole, Pose(), press_mm=0.0, reach_mm=6.0, reach_deg=4.0)
    assert rest.overlap_mm == pytest.approx(-1.0, abs=0.1)
    assert rest.pose.origin_mm[:2] == pytest.approx([2.0, -1.0], abs=0.1)


def test_inside_agrees_with_a_ball_and_with_holes() -> None:
    from implantforge.geom import shapes

    ball = meshing.polygonise(shapes.sphere((0.0, 0.0, 0.0), 10.0), 0.5)
    ring = meshing.polygonise(shapes.torus((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 8.0, 2.0), 0.4)
    points = np.random.default_rng(5).uniform(-12.0, 12.0, (20_000, 3))
    radius = np.linalg.norm(points, axis=1)
    clear = np.abs(radius - 10.0) > 0.05
    assert (inside(ball, points)[clear] == (radius < 10.0)[clear]).all()
    tube = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 8.0, points[:, 2])
    clear = np.abs(tube - 2.0) > 0.05
    assert (inside(ring, points)[clear] == (tube < 2.0)[clear]).all()
    assert not inside(Mesh(ball.vertices, ball.faces), np.array([[100.0, 0, 0]]))[0]
