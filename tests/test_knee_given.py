"""What a person gives a knee plan is done and said, or refused by name."""

from __future__ import annotations

from typing import Any

import drawn_knees
import pytest

from implantforge.core import InputError
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
