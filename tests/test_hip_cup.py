"""The cup on sockets whose answer is known: a bowl of bone with a planted diameter, floor, opening and rim."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from implantforge.core import Anatomy, FitError, Grid, Labels, Landmark, Mesh, Pose, Volume
from implantforge.geom import measure, meshing, shapes
from implantforge.implants import Case, hip_cup
from implantforge.implants.hip_cup import SIZES, CupParams
from implantforge.stages import bearings, printability, socket

CENTRE = np.array([70.0, 10.0, 20.0])
MIRROR = np.array([-1.0, 1.0, 1.0])
SIGMA_MM = 0.3


def bowl(diameter_mm: float, wall_mm: float, sunk_mm: float = 0.0) -> Mesh:
    """Left socket about CENTRE: a hollow ball of bone, cut sunk_mm deeper than its middle, opening 45/18 radiographic."""
    way = socket.opening(np.eye(3), "left", 45.0, 18.0)
    radius = diameter_mm / 2.0
    bone = shapes.sphere(CENTRE, radius + wall_mm) - shapes.sphere(CENTRE, radius)
    return meshing.polygonise(bone & shapes.half_space(CENTRE - sunk_mm * way, way), 1.0)


def case_of(mesh: Mesh, diameter_mm: float, side: Any = "left", move: Pose | None = None, both: bool = True) -> Case:
    """Mesh as a hip bone of the side with its landmarks as measured; move carries everything but the scan."""
    move = move or Pose()
    flip = np.ones(3) if side == "left" else MIRROR
    other = "right" if side == "left" else "left"
    marks = {"asis": CENTRE + [45.0, -55.0, 60.0], "pubic_tubercle": CENTRE + [-45.0, -55.0, -25.0]}
    own = {name: Landmark(name, move.apply(at * flip), 1.0, "planted") for name, at in marks.items()}
    far = {name: Landmark(name, move.apply(at * MIRROR * flip), 1.0, "planted") for name, at in marks.items()}
    own["acetabulum_center"] = Landmark("acetabulum_center", move.apply(CENTRE * flip), SIGMA_MM, "planted")
    anatomy = {f"hip_{side}": Anatomy(f"hip_{side}", side, own, {}, {"acetabulum_radius_mm": diameter_mm / 2.0})}
    if both:
        anatomy[f"hip_{other}"] = Anatomy(f"hip_{other}", other, far)  # type: ignore[arg-type]
    grid = Grid(Pose(np.eye(3), CENTRE * flip - 50.0), np.full(3, 20.0), (6, 6, 6))
    volume = Volume(grid, np.full(grid.shape, 700, np.int16))
    given = mesh if side == "left" else mesh.mirrored_x()
    labels = Labels(grid, np.zeros(grid.shape, np.uint8), {})
    return Case(side, volume, labels, {f"hip_{side}": given.moved(move)}, anatomy)


@lru_cache(maxsize=1)
def planned() -> tuple[Case, Any]:
    case = case_of(bowl(48.3, 9.0), 48.3)
    return case, hip_cup.plan(case, CupParams())


def test_forty_fifteen_is_the_tabled_normal() -> None:
    right = socket.opening(np.eye(3), "right", 40.0, 15.0)
    assert [-right[0], -right[1], right[2]] == pytest.approx([0.6209, 0.2588, -0.7399], abs=1e-4)
    assert socket.opening(np.eye(3), "left", 40.0, 15.0) * MIRROR == pytest.approx(right)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coat_mm", [1.0, 1.2, 1.5])
def test_no_wall_of_any_size_is_too_thin(size: int, coat_mm: float) -> None:
    for elliptic in (0.0, 2.0):
        params = CupParams(coat_mm=coat_mm, elliptic_mm=elliptic)
        r = hip_cup.shell(size, params)
        assert hip_cup.solid_wall_mm(size, params) >= 2.5 - 1e-6
        least = max(rules.min_wall_mm for rules in printability.RULES.values())
        seat = r.outer - r.bore - hip_cup.SEAT_DEPTH_MM - (hip_cup.SEAT_MM - params.screw_hole_mm) / 2
        assert min(seat, hip_cup.COLLAR_MM, params.coat_mm) > least
        assert all(
            row.passed for row in hip_cup._screw_checks({f"screw_{i}_bone_mm": 20.0 for i in (1, 2, 3)}, r, params)
        )
    thick = bearings.options(2 * hip_cup.shell(size, CupParams(coat_mm=1.0)).bore)
    assert thick and min(row.liner_mm for row in thick) >= 4.0


def test_heads_go_where_the_book_lets_them() -> None:
    first = {}
    for size in SIZES:
        bore = 2 * hip_cup.shell(size, CupParams()).bore
        for row in bearings.options(bore):
            first.setdefault(row.head_mm, size)
    assert first == {28.0: 44, 32.0: 48, 36.0: 52, 40.0: 56}
    assert bearings.advised(2 * hip_cup.shell(54, CupParams()).bore).head_mm == 36.0  # type: ignore[union-attr]
    assert bearings.options(30.0) == () and bearings.advised(30.0) is None


def test_the_thinnest_wall_is_where_it_was_worked_out() -> None:
    """Solid left once machined, measured along rays on the fields of design with the stock taken away."""
    params = CupParams(bore_stock_mm=0.3, screw_holes=False)
    r = hip_cup.shell(44, params)
    final = hip_cup._bore(r, 0.0)
    inner = shapes.sphere(np.zeros(3), r.solid)
    turn = np.radians(np.linspace(12.0, 80.0, 120))
    on = r.solid * np.stack([np.sin(turn), np.zeros_like(turn), -np.cos(turn)], axis=1)
    assert np.abs(inner(on)).max() < 1e-9
    assert final(on).min() == pytest.approx(hip_cup.solid_wall_mm(44, params), abs=0.02)


@pytest.mark.parametrize("size", [46, 52, 60])
def test_a_planted_socket_gets_its_size_and_place(size: int) -> None:
    diameter = size - 4.0 + 0.7
    case = case_of(bowl(diameter, 9.0), diameter)
    fit = hip_cup.plan(case, CupParams())
    m = fit.metrics
    assert m["size"] == size
    assert fit.pose.origin_mm == pytest.approx(CENTRE, abs=1e-9)
    assert m["bone_left_medial_mm"] == pytest.approx(diameter / 2 + 9.0 - (size - 1.0) / 2, abs=0.15)
    assert m["coverage_pct"] > 85.0
    assert m["contact_hu_median"] == 700.0
    assert 0.0 < m["size_larger_probability_pct"] + m["size_smaller_probability_pct"] < 50.0
    ranks = [row["rank"] for row in fit.alternatives]
    assert ranks == list(range(1, len(SIZES) + 1)) and fit.reason == fit.alternatives[0]["why"]
    assert {row["size"] for row in fit.alternatives} == set(SIZES)
    gap = np.array(fit.params["gap_samples"]["gap_mm"])
    assert np.median(gap) == pytest.approx(-0.5)


def test_even_odds_on_the_border_between_two_sizes() -> None:
    case = case_of(bowl(49.0, 9.0), 49.0)
    m = hip_cup.plan(case, CupParams()).metrics
    assert m["size"] == 52
    assert m["size_larger_probability_pct"] == pytest.approx(50.0, abs=0.5)


def test_a_thin_floor_moves_the_cup_outward_and_a_thinner_one_is_refused() -> None:
    fit = hip_cup.plan(case_of(bowl(48.0, 3.0), 48.0), CupParams())
    assert fit.metrics["size"] == 52
    # reamed 25.5 of 27.0: half a millimetre short; moved straight outward it gains it at the floor's edge, by the cosine
    assert fit.metrics["center_shift_medial_mm"] == pytest.approx(-0.5 / np.cos(np.radians(30.0)), abs=0.12)
    assert fit.metrics["bone_left_medial_mm"] == pytest.approx(2.0, abs=0.02)
    with pytest.raises(
        FitError,
        match=r"no size fits hip_left \(socket 48.0 mm wide\): .*leaves 1\.\d mm behind the floor \(4\.0 needed\)",
    ):
        hip_cup.plan(case_of(bowl(48.0, 1.6), 48.0), CupParams(floor_mm=4.0))
    with pytest.raises(ValidationError, match=r"size = 51 is none of 44, 46,.*66"):  # before anything is planned
        CupParams(size=51)


def test_a_shallow_socket_asks_for_medial_bone_and_no_more_than_it_asks() -> None:
    case = case_of(bowl(48.0, 12.0, sunk_mm=10.0), 48.0)
    fit = hip_cup.plan(case, CupParams())
    assert fit.metrics["center_shift_medial_mm"] > 0.5
    assert fit.metrics["coverage_pct"] == pytest.approx(75.0, abs=0.5)
    assert fit.metrics["coverage_pct"] >= 75.0


def test_left_and_right_are_mirror_images() -> None:
    case, left = planned()
    right = hip_cup.plan(case_of(case.bones["hip_left"], 48.3, "right"), CupParams())
    assert right.metrics["size"] == left.metrics["size"]
    assert right.pose.origin_mm * MIRROR == pytest.approx(left.pose.origin_mm, abs=0.02)
    assert right.pose.rotation[:, 2] * MIRROR == pytest.approx(left.pose.rotation[:, 2], abs=1e-9)
    for name in ("coverage_pct", "bone_left_medial_mm", "coverage_posterior_pct", "screw_1_bone_mm"):
        assert right.metrics[name] == pytest.approx(left.metrics[name], abs=0.6)
    ours, theirs = hip_cup.design(left, CupParams(rim_fins=True)), hip_cup.design(right, CupParams(rim_fins=True))
    points = np.random.default_rng(4).uniform(-30.0, 30.0, (20_000, 3))
    for part in ("envelope", "porous", "solid"):
        patient = left.pose.apply(points) * MIRROR
        assert getattr(theirs, part)(right.pose.inverse_apply(patient)) == pytest.approx(
            getattr(ours, part)(points), abs=0.03
        )


def test_a_moved_patient_gets_the_moved_plan() -> None:
    case, fit = planned()
    a, b = np.radians([25.0, -14.0])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    move = Pose(turn, np.array([31.0, -17.0, 250.0]))
    other = hip_cup.plan(case_of(case.bones["hip_left"], 48.3, move=move), CupParams())
    assert other.metrics["size"] == fit.metrics["size"]
    assert other.pose.origin_mm == pytest.approx(move.apply(fit.pose.origin_mm), abs=0.02)
    assert other.pose.rotation == pytest.approx(move.rotation @ fit.pose.rotation, abs=1e-9)
    assert other.metrics["coverage_pct"] == pytest.approx(fit.metrics["coverage_pct"], abs=0.6)
    assert "contact_hu_median" not in other.metrics  # the scan was not moved


def test_the_same_case_gives_the_same_plan() -> None:
    case, fit = planned()
    again = hip_cup.plan(case, CupParams())
    assert again.params == fit.params and again.metrics == fit.metrics and again.alternatives == fit.alternatives


def test_one_side_alone_takes_the_scans_axes_and_says_so() -> None:
    case, _ = planned()
    fit = hip_cup.plan(case_of(case.bones["hip_left"], 48.3, both=False), CupParams())
    assert fit.params["frame"].startswith("scan axes")
    assert fit.pose.rotation[:, 2] == pytest.approx(socket.opening(np.eye(3), "left", 40.0, 15.0))


@pytest.mark.parametrize("fins", [False, True])
def test_part_is_closed_and_its_datums_lie_on_the_mesh(fins: bool) -> None:
    case, fit = planned()
    params = CupParams(rim_fins=fins, elliptic_mm=1.0 if fins else 0.0)
    made = hip_cup.design(fit, params)
    mesh = meshing.polygonise(made.envelope, 0.5)
    assert measure.is_manifold(mesh) and measure.manifold_status(mesh) == "NoError"
    assert len(measure.components(mesh)[1]) == 1
    for row in hip_cup.checks(case, fit, made, mesh.moved(fit.pose), params):
        assert row.source.strip()
        assert row.passed or row.severity == "flag", f"{row.name} {row.value} {row.unit}, limit {row.sense} {row.limit}"
    rows = {row["name"]: row for row in made.machined}
    at, axis = np.array(rows["liner bore"]["center_mm"]), np.array(rows["liner bore"]["axis"])
    away = mesh.moved(fit.pose).vertices - at
    height, across = away @ axis, np.linalg.norm(np.cross(away, axis), axis=1)
    cone = rows["liner taper"]
    slope = np.tan(np.radians(cone["included_angle_deg"] / 2))
    assert cone["large_diameter_mm"] - cone["small_diameter_mm"] == pytest.approx(2 * slope * cone["length_mm"])
    off = (cone["large_diameter_mm"] / 2 + height * slope - across) * np.cos(np.arctan(slope))
    on_cone = (height > -cone["length_mm"] + 0.6) & (height < -0.2) & (off > 0) & (off < 1.5)
    assert on_cone.sum() > 500
    assert off[on_cone] == pytest.approx(params.bore_stock_mm, abs=0.02)
    flat = (np.abs(height - params.rim_stock_mm) < 0.1) & (across < 24.0)
    assert height[flat & (across > 22.5)] == pytest.approx(params.rim_stock_mm, abs=0.02)


def test_stock_told_is_the_stock_printed() -> None:
    _, fit = planned()
    params = CupParams(screw_holes=False)
    rows = {row["name"]: row for row in hip_cup.design(fit, params).machined}
    r = hip_cup.shell(52, params)
    ball = shapes.sphere(np.zeros(3), r.outer) & shapes.half_space(np.zeros(3), [0, 0, 1.0])
    whole = [
        meshing.polygonise(ball - hip_cup._bore(r, stock), 0.5).volume_mm3 for stock in (params.bore_stock_mm, 0.0)
    ]
    told = rows["liner bore"]["stock_mm3"] + rows["liner taper"]["stock_mm3"]
    assert whole[0] - whole[1] == pytest.approx(told, rel=0.02)


def test_screws_pass_through_solid_and_porous_behind_the_spine_line() -> None:
    case, fit = planned()
    params = CupParams()
    made = hip_cup.design(fit, params)
    holes = [row for row in made.machined if row["kind"] == "hole"]
    assert len(holes) == 3
    spine = case.anatomy["hip_left"].at("asis") - fit.pose.origin_mm
    for row in holes:
        at, way = np.array(row["at_mm"]), np.array(row["axis"])
        along = fit.pose.inverse_apply(at + np.arange(-1.0, 4.0, 0.25)[:, None] * way)
        assert made.envelope(along).min() > 3.0 - 0.1
        assert (made.porous(along) > 0).all()
        flat = way - (way @ fit.pose.rotation[:, 2]) * fit.pose.rotation[:, 2]
        assert flat @ spine > 0  # on the upper side of the line across
        assert np.cross(fit.pose.rotation[:, 2], spine) @ flat < 0  # and on the posterior side of the spine's line
        assert flat @ np.array([0.0, 1.0, 0.0]) > -10.0
    assert np.mean([row["axis"] for row in holes], axis=0)[1] > 0.2  # posterior
    assert np.mean([row["axis"] for row in holes], axis=0)[2] > 0.2  # superior


def test_metal_beyond_the_floor_is_counted() -> None:
    seat = socket.of(bowl(48.0, 3.0), socket.opening(np.eye(3), "left", 40.0, 15.0), np.array([-1.0, 0, 0]), 1.0)
    assert seat.through_mm3(CENTRE, 26.0) == 0.0
    deep = CENTRE - [6.0, 0.0, 0.0]
    found = seat.through_mm3(deep, 26.0)
    at = np.random.default_rng(1).uniform(-26.0, 26.0, (400_000, 3))
    way = at / np.linalg.norm(at, axis=1, keepdims=True)
    out = (np.linalg.norm(at, axis=1) < 26.0) & (np.linalg.norm(at - [6.0, 0, 0], axis=1) > 27.0) & (way[:, 0] < -0.5)
    out &= way @ seat.opening < 0.0
    assert found == pytest.approx(out.mean() * 52.0**3, rel=0.08)
    assert seat.floor_left_mm(deep, 25.5) < 0.0
