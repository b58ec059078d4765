"""Total hips against answers known beforehand: contact of neck and liner, of bone and bone, leg length and offset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from implantforge.core import Anatomy, Array, Landmark, Pose
from implantforge.stages import bearings, legs, motion
from implantforge.stages.fit import stems
from implantforge.stages.motion import MOTIONS, Joint, Motion

DOWN = np.array([0.0, 0.0, -1.0])
FREE = np.zeros((0, 3))


def nothing(points: Array) -> Array:
    return np.ones(len(points))


def joint(opening: Array, neck: Array, lean: float, handed: float = 1.0) -> Joint:
    return Joint(opening / np.linalg.norm(opening), neck / np.linalg.norm(neck), lean, FREE, nothing, handed)


@pytest.mark.parametrize(("head_mm", "neck_mm"), [(28.0, 12.0), (32.0, 12.4), (36.0, 10.0)])
def test_a_round_neck_touches_the_liner_at_the_textbook_angle(head_mm: float, neck_mm: float) -> None:
    lean = motion.lean_deg([(head_mm / 2, 0.0)], [(0.0, neck_mm / 2), (50.0, neck_mm / 2)])
    assert lean == pytest.approx(np.degrees(np.arccos(neck_mm / head_mm)), abs=0.002)
    ends = [motion.reach(joint(DOWN, DOWN, lean), MOTIONS[name]).deg for name in ("flexion", "extension")]
    assert sum(ends) == pytest.approx(180.0 - 2.0 * np.degrees(np.arcsin(neck_mm / head_mm)), abs=0.15)


def test_a_recessed_rim_frees_the_neck_and_a_raised_one_holds_it() -> None:
    neck = [(0.0, 6.0), (50.0, 6.0)]
    level, deep, high = (motion.lean_deg([(18.0, h)], neck) for h in (0.0, -3.0, 3.0))
    assert high < level < deep
    # the edge (R, h) lies at radius sqrt(R2 + h2), turned by atan(h / R) against the level one
    for h, lean in ((-3.0, deep), (3.0, high)):
        far, turned = np.hypot(18.0, h), np.degrees(np.arctan2(h, 18.0))
        assert lean == pytest.approx(np.degrees(np.arccos(6.0 / far)) - turned, abs=0.002)


def test_long_heads_bring_the_taper_out_to_the_rim() -> None:
    leans = {
        name: motion.lean_deg([(14.0, 0.0)], bearings.neck(12.4, length))
        for name, length in bearings.LENGTHS_MM.items()
    }
    plain = np.degrees(np.arccos(6.2 / 14.0))
    assert leans["S"] == leans["M"] == pytest.approx(plain, abs=0.002)
    assert leans["XL"] < plain - 2.0
    wide = motion.lean_deg([(18.0, 0.0)], bearings.neck(12.4, 0.0))
    assert wide > leans["M"] + 5.0


def test_a_tilted_cup_stops_each_motion_where_the_geometry_says() -> None:
    tilt, lean = np.radians(40.0), 60.0
    way = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    found = {
        name: motion.reach(joint(way, way, lean), MOTIONS[name]).deg for name in ("flexion", "abduction", "adduction")
    }
    # about x the part along x stays: cos(lean) = sin2 + cos2 cos(angle)
    about_x = np.degrees(np.arccos((np.cos(np.radians(lean)) - np.sin(tilt) ** 2) / np.cos(tilt) ** 2))
    assert found["flexion"] == pytest.approx(about_x, abs=0.1)
    assert found["abduction"] == pytest.approx(lean, abs=0.1)
    assert found["adduction"] == pytest.approx(lean, abs=0.1)
    about_z = np.degrees(np.arccos((np.cos(np.radians(lean)) - np.cos(tilt) ** 2) / np.sin(tilt) ** 2))
    outward = motion.reach(joint(way, way, lean), Motion("external", 0.0, 179.0, 40.0)).deg
    assert outward == pytest.approx(about_z, abs=0.1)


def test_motions_go_the_clinics_way_on_both_sides() -> None:
    toes = np.array([0.0, -1.0, 0.0])
    for handed in (1.0, -1.0):
        lateral = np.array([handed, 0.0, 0.0])
        knee = {name: motion.turned(one, 20.0, handed) @ DOWN for name, one in MOTIONS.items() if not one.flexed_deg}
        assert knee["flexion"][1] < -0.3 < 0.3 < knee["extension"][1]
        assert knee["abduction"] @ lateral > 0.3 > -0.3 > knee["adduction"] @ lateral
        assert (motion.turned(MOTIONS["external_rotation"], 20.0, handed) @ toes) @ lateral > 0.3
        bent = motion.turned(MOTIONS["internal_rotation_at_90"], 30.0, handed)
        assert bent @ DOWN == pytest.approx([0.0, -1.0, 0.0], abs=1e-9)
        # flexed, turning the toes inward swings the shin outward: it hangs down, and its foot goes lateral
        assert (bent @ -toes) @ lateral > 0.4


def test_bone_meets_a_wall_at_the_planted_angle() -> None:
    femur = np.array([[0.0, 0.0, -100.0], [5.0, 0.0, -60.0]])
    held = Joint(DOWN, DOWN, 119.0, femur, lambda p: p[:, 1] + 50.0, 1.0)
    reach = motion.reach(held, MOTIONS["flexion"])
    assert reach.bony_deg == pytest.approx(30.0, abs=0.06)
    assert reach.at_mm is not None and reach.at_mm == pytest.approx([0.0, -50.0, -86.6], abs=0.2)
    assert motion.reach(held, MOTIONS["extension"]).deg == 90.0
    assert motion.reach(replace(held, still=lambda p: np.full(len(p), -1.0)), MOTIONS["flexion"]).deg == 0.0


def femur(move: Pose, head: Array, side: str = "left") -> Anatomy:
    """A straight femur: shaft 40 mm lateral of the head, lesser trochanter 50 mm down, moved."""
    lateral = np.array([1.0 if side == "left" else -1.0, 0.0, 0.0])
    at = {
        "head_center": head,
        "lesser_trochanter": head + 35.0 * lateral - [0, -15.0, 50.0],
        "neck_center": head + 15 * lateral,
    }
    marks = {name: Landmark(name, move.apply(point), 0.5, "planted") for name, point in at.items()}
    shaft = Pose(move.rotation @ np.diag([1.0, 1.0, 1.0]), move.apply(head + 40.0 * lateral - [0, 0, 80.0]))
    return Anatomy("femur", side, marks, {"shaft": shaft, "proximal_shaft": shaft})  # type: ignore[arg-type]


def test_leg_length_and_offset_do_not_ask_how_the_leg_lay() -> None:
    head = np.array([90.0, 5.0, -10.0])
    turn = np.radians(25.0)
    spin = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    lain = Pose(spin, head - spin @ head)  # about the head's own centre
    flat, bent = (legs.share(head, femur(move, head), np.eye(3), np.zeros(3)) for move in (Pose(), lain))
    assert flat == pytest.approx(bent, abs=1e-9)
    assert flat == pytest.approx((60.0, 130.0), abs=1e-9)
    right = legs.share(head * [-1, 1, 1], femur(Pose(), head * [-1, 1, 1], "right"), np.eye(3), np.zeros(3))
    assert right == pytest.approx(flat)
    higher = legs.share(head + [0, 0, 7.0], femur(Pose(), head + [0, 0, 7.0]), np.eye(3), np.zeros(3))
    assert higher.length_mm == pytest.approx(flat.length_mm - 7.0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_shift_wanted_is_the_shift_read(side: str) -> None:
    a = np.radians(12.0)
    frame = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    wanted = legs.Share(6.0, -3.0)
    moved = legs.shift(wanted, frame, side)
    assert legs.change(moved, frame, side) == pytest.approx(wanted)
    assert moved @ frame[:, 1] == pytest.approx(0.0)
    lateral = frame[:, 0] if side == "left" else -frame[:, 0]
    assert moved @ lateral == pytest.approx(-3.0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_femur_is_stood_upright_by_its_own_axis(side: str) -> None:
    handed = 1.0 if side == "left" else -1.0
    turn = np.radians(-20.0) * handed
    spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]])
    found = femur(Pose(spin, np.zeros(3)), np.zeros(3), side)
    axis = legs.mechanical(found, 0.0)
    assert not axis.seen and "condyles not seen" in axis.how
    assert np.degrees(np.arccos(axis.up[2])) == pytest.approx(legs.VALGUS_DEG)
    rotation = motion.upright(axis.up, axis.lateral, handed)
    assert rotation @ rotation.T == pytest.approx(np.eye(3)) and np.linalg.det(rotation) == pytest.approx(1.0)
    neck = rotation @ (spin @ np.array([handed, 0.0, -0.4]))  # straight lateral before the leg was turned
    assert legs.version_deg(neck, side) == pytest.approx(0.0, abs=0.5)
    assert legs.version_deg(
        motion.upright(*legs.mechanical(found, 15.0)[:2], handed) @ (spin @ [handed, 0, -0.4]), side
    ) == (pytest.approx(15.0, abs=0.7))


@pytest.mark.parametrize("size", sorted(stems.SIZES))
def test_the_lateral_neck_reaches_further_at_the_same_height(size: int) -> None:
    plain, lateral = (stems.off_the_shelf(name, size) for name in ("standard", "lateral"))
    assert lateral[0] - plain[0] == pytest.approx(6.0) and lateral[1] == plain[1]
    assert plain[3] == pytest.approx(132.0) and 125.0 <= lateral[3] < plain[3]
    assert 32.0 <= plain[0] <= 54.0


def test_every_family_makes_bodies_that_taper_to_their_tip() -> None:
    for family in stems.FAMILIES.values():
        for style in family.styles:
            for width, length in stems.SIZES.values():
                body = stems.body(width, length * style.length_ratio, style, 2.2)
                middle = -stems.WAIST_MM
                assert np.interp(middle, body.z, body.lateral) == pytest.approx(width / 2, abs=0.1)
                for row in (body.medial, body.lateral, body.depth):
                    assert (np.diff(row) >= -1e-9).all() and row[0] >= 2.5


def test_a_motion_that_nothing_ends_is_told_as_at_least_what_was_followed() -> None:
    from implantforge.implants import hip_total

    reach = {"flexion": motion.Reach(121.34, 150.0, None), "extension": motion.Reach(90.0, 90.0, None)}
    row = {"head_mm": 36.0, "head_length": "M", "leg_length_change_mm": 0.0, "offset_change_mm": 0.0, "liner_mm": 5.1,
           "rom_short_deg": 0.0, "score": -0.1, "reach": reach, "wanted": True}  # fmt: skip
    told = hip_total._shown(row)
    assert (told["rom_flexion_deg"], told["rom_extension_deg"]) == (121.3, ">= 90")
    small = {**row, "head_mm": 32.0}
    assert "liner 5.1 mm: nearest to the leg length and offset wanted, with 0 deg" in hip_total._why(row, row)
    same = "scores the same, 0 deg of motion short: as good as the one above; of equals the larger head goes first"
    assert hip_total._why(small, row, row).endswith(same)
    assert hip_total._why({**row, "head_length": "L"}, row, row).endswith("of equals the length nearer to M goes first")
    other = {**row, "score": -0.14, "liner_mm": 4.2, "wanted": False}
    assert "liner 4.2 mm (under the 5 wanted); scores 0.04 less, 0 deg" in hip_total._why(other, row, small)
