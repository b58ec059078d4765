"""What a person gives a knee plan is done and said, or refused by name; what is told of odds and limits is so."""

from __future__ import annotations

from typing import Any

import drawn_knees
import pytest

from implantforge.core import FitError, InputError
from implantforge.implants import Case, knee_femoral, knee_tibial, knee_total
from implantforge.pipeline import recipe


@pytest.fixture(scope="module")
def left() -> Case:
    side, meshes, truth = drawn_knees.draw(2)
    return drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))


def whole(alignment: str, femoral: dict[str, Any], tibial: dict[str, Any], **own: Any) -> knee_total.TotalParams:
    parts = {"femoral": knee_femoral.FemoralParams(**femoral), "tibial": knee_tibial.TibialParams(**tibial)}
    return knee_total.TotalParams(alignment=alignment, **parts, **own)


@pytest.mark.parametrize(
    ("alignment", "femoral", "tibial"),
    [
        ("functional", {"valgus_deg": 8.0, "turn_deg": 5.0}, {"valgus_deg": -8.0}),
        ("functional", {"external_deg": 6.0}, {"valgus_deg": 2.0}),
        ("mechanical", {"valgus_deg": -2.0, "external_deg": 1.0}, {}),
        ("kinematic", {"external_deg": 4.0}, {"slope_deg": 1.0}),
        ("functional", {"rotation": "tea"}, {}),
    ],
)
def test_given_angles_win_and_are_told(left: Case, alignment: str, femoral: Any, tibial: Any) -> None:
    fit = knee_total.plan(left, whole(alignment, femoral, tibial))
    f, t = (fit.parts[name].metrics for name in ("femoral", "tibial"))
    said = next(line for line in fit.params["told"] if line.startswith("Given, not found by the " + alignment))
    if "valgus_deg" in femoral:
        assert f["valgus_deg"] == femoral["valgus_deg"]
        assert f"femoral component {femoral['valgus_deg']:+.1f} deg of valgus" in said
    turn = femoral.get("turn_deg", femoral.get("external_deg"))
    if turn is not None:
        assert f["external_to_condyles_deg"] == turn
    if "rotation" in femoral:
        assert f["external_to_epicondyles_deg"] == pytest.approx(0.0, abs=1e-9)
        assert "along the epicondyles" in said
    assert f"turned {f['external_to_condyles_deg']:+.1f} deg outward" in said
    for key, value in tibial.items():
        assert t[key] == value
        assert f"{value:+.1f} deg of valgus" in said or f"{value:.1f} deg of slope" in said
    assert "Given" not in str([one.params for one in fit.parts.values()])


def test_what_is_not_given_evens_the_gaps(left: Case) -> None:
    """One cut given 2 deg off: the other still takes what is left, and nothing is said of what nobody gave."""
    fit = knee_total.plan(left, whole("functional", {}, {"valgus_deg": 1.0}))
    assert abs(fit.metrics["imbalance_extension_mm"]) < 0.5
    assert abs(fit.metrics["imbalance_flexion_mm"]) < 0.5
    plain = knee_total.plan(left, knee_total.TotalParams())
    assert "Given" not in " ".join(plain.params["told"])


def test_a_slant_given_by_hand_is_flagged(left: Case) -> None:
    params = whole("functional", {"valgus_deg": 8.0}, {"valgus_deg": -8.0})
    rows = {row.name: row for row in knee_total.checks(left, knee_total.plan(left, params), {}, params)}
    assert rows["hka_off_straight_deg"].passed
    assert not rows["ldfa_off_deg"].passed
    assert not rows["mpta_off_deg"].passed


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("knee_total", ["femoral.alignment=kinematic"], ("femoral.alignment = kinematic", "alignment = functional")),
        ("knee_total", ["tibial.alignment=mechanical"], ("tibial.alignment = mechanical", "alignment = functional")),
        ("knee_total", ["femoral.rotation=tea", "femoral.turn_deg=2"], ("femoral.turn_deg = 2", "rotation = tea")),
        ("knee_femoral", ["rotation=tea", "external_deg=5"], ("external_deg = 5", "rotation = tea")),
        ("knee_femoral", ["turn_deg=2", "external_deg=5"], ("external_deg = 5", "turn_deg = 2")),
    ],
)
def test_two_that_say_one_angle_are_refused_by_name(name: str, settings: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        recipe.load(name, [f"params.{one}" for one in settings])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_alone_tells_what_was_given(left: Case) -> None:
    thigh = knee_femoral.plan(left, knee_femoral.FemoralParams(rotation="tea"))
    assert "along the epicondyles" in " ".join(thigh.params["told"])
    shin = knee_tibial.plan(left, knee_tibial.TibialParams(alignment="kinematic", valgus_deg=-2.0))
    assert shin.metrics["valgus_deg"] == -2.0
    assert "-2.0 deg of valgus" in " ".join(shin.params["told"])


def test_a_box_is_told_with_the_bone_it_leaves(left: Case) -> None:
    kept, boxed = (knee_total.plan(left, whole("functional", {"cruciate": kind}, {})) for kind in ("CR", "PS"))
    assert "posterior cruciate kept (CR)" in kept.reason
    assert "posterior cruciate replaced (PS)" in boxed.reason
    assert "Posterior cruciate replaced (PS)" in " ".join(boxed.params["told"])
    m = boxed.parts["femoral"].metrics
    assert 18.0 < min(m["box_bone_medial_mm"], m["box_bone_lateral_mm"]) < 32.0
    assert f"{m['box_bone_medial_mm']:.1f} / {m['box_bone_lateral_mm']:.1f} mm of bone beside it" in boxed.reason
    assert boxed.parts["femoral"].metrics["size"] == kept.parts["femoral"].metrics["size"]


@pytest.mark.parametrize(
    ("cruciate", "slope", "passed"), [("PS", 3.0, True), ("PS", 5.0, False), ("CR", 5.0, True), ("CR", 1.0, False)]
)
def test_slope_suits_the_cruciate_or_fails_and_is_told(left: Case, cruciate: str, slope: float, passed: bool) -> None:
    params = whole("mechanical", {"cruciate": cruciate}, {"slope_deg": slope})
    fit = knee_total.plan(left, params)
    name = "slope_stabilised_deg" if cruciate == "PS" else "slope_cruciate_kept_deg"
    row = next(row for row in knee_total.checks(left, fit, {}, params) if row.name == name)
    assert row.passed is passed
    assert row.severity == ("fail" if cruciate == "PS" else "flag")
    assert (f"deg of slope, where {cruciate} asks for" in " ".join(fit.params["told"])) is not passed


@pytest.mark.parametrize("seed", [2, 5])
def test_odds_agree_with_the_rank_and_name_what_is_listed(seed: int) -> None:
    """Kinematic knees whose next smaller size nearly fits: 2 was told 55 % for a size that notches."""
    side, meshes, truth = drawn_knees.draw(seed)
    case = drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))
    for more in ({"alignment": "kinematic"}, {"rotation": "tea", "shaft_valgus_deg": 6.0}):
        fit = knee_femoral.plan(case, knee_femoral.FemoralParams(**more))
        odds, m = fit.params["depth_odds_pct"], fit.metrics
        listed = {f"{row['ap_mm']:.0f}": row["odds_pct"] for row in fit.alternatives}
        assert odds.items() <= listed.items()
        assert max(odds, key=odds.__getitem__) == f"{m['size']:.0f}"
        assert odds[f"{m['size']:.0f}"] == pytest.approx(m["size_probability_pct"], abs=0.011)
        assert sum(odds.values()) == pytest.approx(100.0, abs=2.0)
        assert [row["rank"] for row in fit.alternatives] == list(range(1, len(fit.alternatives) + 1))
        for value in (m[f"size_{way}probability_pct"] for way in ("", "smaller_", "larger_")):
            assert value == round(value, 2)
    assert "size_probability_pct" not in knee_femoral.plan(case, knee_femoral.FemoralParams(size=70)).metrics


def test_wide_odds_stay_those_of_their_own_depth() -> None:
    """An axis that is assumed: any smaller depth may be likelier than the one chosen, the next one never is."""
    found = [{"ap_mm": float(ap), "flange_proud_mm": 1.58 + (ap - 64), "shift_mm": 0.0} for ap in range(52, 77, 2)]
    best = found[6]
    size = knee_femoral.sizes.femoral(64.0)
    chances, odds = knee_femoral._chances(found, best, size, 2.0, knee_femoral.FemoralParams())
    assert chances["size_smaller_probability_pct"] > chances["size_probability_pct"]
    assert max(odds, key=odds.__getitem__) == "64"
    assert {"60", "62", "66"} <= set(odds)
    rows = knee_femoral._worth_telling([best, *found[7:], *(row for row in reversed(found[:6]))], odds)
    assert set(odds) <= {f"{row['ap_mm']:.0f}" for row in rows}


def test_limits_are_told_with_enough_digits(left: Case) -> None:
    assert knee_total._beyond(4.014, 4.0) == "+4.01"
    assert knee_total._beyond(-4.0004, 4.0) == "-4.001"
    assert knee_total._beyond(4.3, 4.0) == "+4.3"
    fit = knee_total.plan(left, knee_total.TotalParams())
    far = [row for row in fit.alternatives if "too far" in row["why"]]
    assert far
    assert all("(4 allowed)" in row["why"] for row in far)
    side, meshes, truth = drawn_knees.draw(12)
    small = drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))
    with pytest.raises(FitError, match="the tray asked, 85 mm, does not fit tibia_left"):
        knee_tibial.plan(small, knee_tibial.TibialParams(size=85))


@pytest.mark.parametrize(("depth", "said"), [(9.0, False), (16.0, True), (4.0, True)])
def test_a_cut_out_of_the_ordinary_is_told(left: Case, depth: float, said: bool) -> None:
    fit = knee_tibial.plan(left, knee_tibial.TibialParams(resection_mm=depth))
    words = f"tibia is cut {depth:.1f} mm under its higher plateau, where 8-10 mm are customary"
    assert (words in fit.reason) is said
    assert (words in " ".join(fit.params["told"])) is said


def test_slope_leaves_the_gaps_and_that_is_said(left: Case) -> None:
    fit = knee_total.plan(left, whole("functional", {}, {"slope_deg": 7.0}))
    assert fit.metrics["gap_difference_mm"] == pytest.approx(0.0, abs=0.5)
    assert "slope does not widen the flexion gap" in " ".join(fit.params["told"])
