"""Knee arithmetic on shapes whose answer is known: curves, cut planes, gaps, cover and overhang."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from implantforge.core import Anatomy, AnatomyError, Landmark, Mesh, Pose
from implantforge.geom import meshing, shapes
from implantforge.stages.knee import condyles, cover, distal, femoral, frames, sizes, tibial

RADIUS, ASIDE = 22.0, 24.0


def anatomy(bone: str, **points: Any) -> Anatomy:
    marks = {name: Landmark(name, np.array(at, float), 0.3, "planted") for name, at in points.items()}
    return Anatomy(bone, bone.partition("_")[2], marks, refused={"head_center": "cut off", "ankle_center": "cut off"})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def femur() -> Mesh:
    """Two balls side by side under a shaft: every plane's cut is known."""
    shaft = shapes.cylinder([0.0, -10.0, 20.0], [0.0, -10.0, 170.0], 14.0)
    balls = shapes.sphere([-ASIDE, 0.0, RADIUS], RADIUS) | shapes.sphere([ASIDE, 0.0, RADIUS], RADIUS)
    return meshing.polygonise(balls | shaft | shapes.box([0.0, -10.0, 28.0], [50.0, 20.0, 16.0]), 1.0)


def marks_of_femur(**more: Any) -> Anatomy:
    r, a = RADIUS, ASIDE
    return anatomy(
        "femur_left", intercondylar_notch=(0, 0, 10.0), knee_center=(0, 0, 20.0), posterior_medial_condyle=(-a, r, r),
        posterior_lateral_condyle=(a, r, r), distal_medial_condyle=(-a, 0, 0), distal_lateral_condyle=(a, 0, 0),
        medial_epicondyle=(-a - r, 0, r), lateral_epicondyle=(a + r, 0, r), **more,
    )  # fmt: skip


@pytest.mark.parametrize("ap", sizes.FEMORAL_AP_MM)
def test_femoral_curves_have_their_radii_and_thicknesses(ap: float) -> None:
    size = sizes.femoral(float(ap))
    assert 30.0 <= size.radii[0] <= 45.0
    assert 22.0 <= size.radii[1] <= 28.0
    assert 18.0 <= size.radii[2] <= 22.0
    curve = sizes.curve_points(size.radii, size.top_mm)
    assert np.ptp(curve[:, 0]) == pytest.approx(ap, abs=0.01)
    assert curve[:, 1].min() == pytest.approx(0.0, abs=1e-9)
    assert size.cuts["distal"][0][1] == sizes.FEMORAL_MM
    assert curve[:, 0].max() - size.cuts["posterior"][0][0] == pytest.approx(sizes.FEMORAL_MM, abs=0.01)
    for name in ("anterior chamfer", "posterior chamfer"):
        point, normal = (np.array(v) for v in size.cuts[name])
        assert abs(normal) == pytest.approx([0.5**0.5, 0.5**0.5])
        assert ((curve - point) @ normal).max() == pytest.approx(sizes.CHAMFER_MM, abs=0.01)
    corners = size.corners()
    assert (np.diff(corners[:, 0]) < 1e-9).all()
    front = np.array(size.cuts["anterior"][0])
    flange = (front - curve[-1]) @ -np.array(size.cuts["anterior"][1])
    assert flange == pytest.approx(sizes.FLANGE_MM, abs=0.01)
    assert 1.25 <= size.ml_mm / (ap - sizes.FEMORAL_MM - sizes.FLANGE_MM) <= 1.41
    assert sizes.femoral(float(ap), True).ml_mm == pytest.approx(size.ml_mm - sizes.NARROW_MM)


@pytest.mark.parametrize("ap", [52.0, pytest.param(64.0, marks=pytest.mark.slow), 76.0])
def test_walls_hold_at_both_ends_of_the_series(ap: float) -> None:
    from implantforge.implants import knee_femoral

    size = sizes.femoral(ap, True)
    shape = condyles.shape(size, 1.0, False, 7.0)
    assert knee_femoral.thinnest_mm(size, shape, 1.0) >= condyles.SKIN_MM
    x = condyles.aside_mm(size)
    curve = sizes.curve_points(size.radii, size.top_mm)
    inner = curve[(curve[:, 0] > 0) & (curve[:, 1] < 0.5 * size.tip_mm)]
    on = np.column_stack([np.full(len(inner), x), inner])
    assert np.abs(shape.joint(on)).max() < 0.02


@pytest.mark.parametrize("width", sizes.TRAY_ML_MM)
@pytest.mark.parametrize("handed", [1.0, -1.0])
def test_trays_keep_their_box_and_mirror(width: float, handed: float) -> None:
    tray = sizes.tray(width, handed)
    assert np.ptp(tray.outline, axis=0) == pytest.approx([width, tray.ap_mm], abs=1e-9)
    assert 38.0 <= tray.ap_mm <= 56.0
    other = sizes.tray(width, -handed).outline[::-1] * [-1.0, 1.0]
    assert tray.outline == pytest.approx(other)
    turn = np.roll(tray.outline, -1, axis=0) - tray.outline
    assert np.sum(tray.outline[:, 0] * turn[:, 1] - tray.outline[:, 1] * turn[:, 0]) > 0


def test_a_tray_one_mm_wider_all_round_covers_all_and_hangs_over_by_one() -> None:
    outline = np.asarray(sizes.tray(73.0).outline)
    along = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    out = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1)[:, None]
    bone = cover.plate(cover.closed(outline - 1.0 * out))
    seen = cover.seen(bone, outline, np.zeros(2))
    assert seen.coverage_pct == pytest.approx(100.0, abs=0.05)
    assert seen.overhang_mm == pytest.approx(1.0, abs=0.05)
    laid = cover.lay(bone, outline, np.array([2.0, -1.5]))
    assert laid.shift_mm == pytest.approx([0.0, 0.0], abs=0.1)
    assert laid.overhang_mm == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("past_mm", "told"), [(2.0, True), (-0.5, False)])
def test_bone_past_the_widest_tray_is_told(past_mm: float, told: bool) -> None:
    """A face as the widest tray, grown all round: nothing wider is in the series."""
    from implantforge.implants import _tray

    outline = np.asarray(sizes.tray(sizes.TRAY_ML_MM[-1]).outline)
    along = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    out = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1)[:, None]
    best = tibial.rows(cover.plate(cover.closed(outline + past_mm * out)), [sizes.tray(w) for w in sizes.TRAY_ML_MM])[0]
    assert best["ml_mm"] == 85.0
    assert best["overhang_mm"] == pytest.approx(-past_mm, abs=0.1)
    assert ("series ends at 85 mm" in _tray._told(best, 1, best, 85.0)["why"]) is told
    assert not _tray.series_ends(82.0, 85.0, -3.0)


def test_area_and_distance_of_a_round_face() -> None:
    turn = np.linspace(0.0, 2 * np.pi, 721)[:-1]
    disc = cover.plate(cover.closed(20.0 * np.column_stack([np.cos(turn), np.sin(turn)]) + [3.0, -2.0]))
    assert disc.area_mm2 == pytest.approx(np.pi * 400.0, rel=2e-3)
    assert disc.middle == pytest.approx([3.0, -2.0], abs=0.01)
    points = np.array([[3.0, -2.0], [13.0, -2.0], [26.0, -2.0], [63.0, -2.0]])
    assert disc(points) == pytest.approx([-20.0, -10.0, 3.0, 40.0], abs=0.06)


def test_cuts_take_from_round_condyles_what_the_planes_say(femur: Mesh) -> None:
    frame = frames.femur(femur, marks_of_femur(head_center=(0.0, 0.0, 410.0)), 6.0)
    assert not frame.assumed
    assert frame.pose.rotation == pytest.approx(np.eye(3), abs=2e-3)
    bone = distal.of(femur, frame.pose)
    asked = femoral.Asked(9.0, 0.5, None, None)
    for valgus, external in ((0.0, 0.0), (0.0, 3.0), (2.0, -1.5)):
        axes = femoral.axes(frame, "left", femoral.Angles(valgus, external))
        got = femoral.levels(bone, axes, "left", asked)
        # balls: the tangent planes turn about their middles
        lower, back = 2 * ASIDE * np.sin(np.radians(valgus)), 2 * ASIDE * np.sin(np.radians(external))
        assert max(got.distal_medial_mm, got.distal_lateral_mm) == pytest.approx(9.0, abs=1e-9)
        assert got.distal_lateral_mm - got.distal_medial_mm == pytest.approx(lower, abs=0.1)
        assert got.posterior_medial_mm - got.posterior_lateral_mm == pytest.approx(back, abs=0.1)
        below = got.distal_medial_mm + got.distal_lateral_mm
        assert got.posterior_medial_mm + got.posterior_lateral_mm == pytest.approx(below, abs=1e-9)
    assert femoral.native_valgus_deg(bone, frame.pose, "left") == pytest.approx(0.0, abs=0.1)
    edges = bone.lines(frame.pose, np.array([[0.0, RADIUS], [0.0, 4.0]])).edges
    half = np.sqrt(RADIUS**2 - (RADIUS - 4.0) ** 2)
    middle = frame.pose.origin_mm[0]
    assert edges[0] + middle == pytest.approx([-ASIDE - RADIUS, ASIDE + RADIUS], abs=0.1)
    assert edges[1] + middle == pytest.approx([-ASIDE - half, ASIDE + half], abs=0.15)


def test_overhang_counts_along_a_steep_side_and_off_one_that_a_cut_grazes() -> None:
    """A wall at x = 30 on the left and a slope of 3 deg on the right: the slope's edge runs 19 mm for 1 mm of height."""
    lean = np.radians(3.0)
    slope = shapes.half_space([-20.0, 0.0, 0.0], [-np.sin(lean), 0.0, np.cos(lean)])
    bone = distal.Distal(
        Pose(np.eye(3), np.zeros(3)), np.zeros((1, 3)), slope & shapes.half_space([30.0, 0, 0], [1.0, 0, 0])
    )
    for height in (-0.5, -0.52, -1.0):
        lines = bone.lines(Pose(np.eye(3), np.zeros(3)), np.array([[0.0, height]]))
        edge = -20.0 + height / np.tan(lean)
        assert lines.edges[0] == pytest.approx([edge, 30.0], abs=0.05)
        assert lines.over(np.array([31.5]), 1) == pytest.approx([1.5], abs=0.01)
        assert lines.over(np.array([28.0]), 1) == pytest.approx([-2.0], abs=0.01)
        assert lines.over(np.array([edge - 5.0]), -1) == pytest.approx([distal.GRAZING * 5.0 * np.sin(lean)], abs=0.01)
        assert lines.over(np.array([edge + 2.0]), -1) == pytest.approx([-2.0], abs=0.05)


def test_tibial_cut_is_exactly_as_deep_as_asked() -> None:
    page = anatomy(
        "tibia_left", medial_plateau=(-20.0, 2.0, 1.0), lateral_plateau=(22.0, 0.0, 4.0), medial_spine=(-3.0, 0, 9.0),
        lateral_spine=(3.0, 0, 9.0), ankle_center=(0.0, 0.0, -350.0), cruciate=(0.0, 20.0, 0.0),
        tendon_medial_border=(0.0, -25.0, -40.0),
    )  # fmt: skip
    ball = meshing.polygonise(shapes.sphere([0.0, 0.0, 0.0], 30.0), 4.0)
    frame = frames.tibia(ball, page, frames.akagi(page))
    assert frame.pose.rotation == pytest.approx(np.eye(3), abs=1e-9)
    for slope, valgus in ((0.0, 0.0), (3.0, 0.0), (5.0, -2.0)):
        pose, medial, lateral = tibial.cut(page, frame, slope, valgus, 9.0)
        assert max(medial, lateral) == pytest.approx(9.0)
        for part, removed in (("medial", medial), ("lateral", lateral)):
            height = (page.at(f"{part}_plateau") - pose.origin_mm) @ pose.rotation[:, 2]
            assert height == pytest.approx(removed, abs=1e-9)
        up = pose.rotation[:, 2]
        assert np.degrees(np.arctan2(up[1], up[2])) == pytest.approx(slope, abs=0.02)
        assert np.degrees(np.arctan2(up[0], up[2])) == pytest.approx(valgus, abs=0.02)
    native = tibial.native_valgus_deg(page, frame, 0.0)
    assert native == pytest.approx(-np.degrees(np.arctan2(3.0, 42.0)))
    _, medial, lateral = tibial.cut(page, frame, 0.0, native, 9.0)
    assert medial == pytest.approx(lateral, abs=1e-9)


def test_without_head_the_shaft_leads_and_says_so(femur: Mesh) -> None:
    frame = frames.femur(femur, marks_of_femur(), 6.0)
    assert frame.assumed
    assert "assumed" in frame.how
    up = frame.pose.rotation[:, 2]
    assert np.degrees(np.arctan2(-up[0], up[2])) == pytest.approx(6.0, abs=0.3)
    keep = femur.vertices[:, 2] < 85.0
    short = Mesh(femur.vertices, femur.faces[keep[femur.faces].all(axis=1)])
    with pytest.raises(AnatomyError, match="no mechanical axis: cut off"):
        frames.femur(short, marks_of_femur(), 6.0)


def test_buttons_leave_bone_and_inserts_polyethylene() -> None:
    found = sizes.button(44.0, 24.0)
    assert found is not None
    assert found.diameter_mm == 41.0
    assert found.bone_left_mm == pytest.approx(14.0)
    assert sizes.button(24.0, 24.0) is None
    assert sizes.button(44.0, 18.0) is None
    assert min(sizes.INSERTS_MM) - sizes.DISH_MM >= 6.0
