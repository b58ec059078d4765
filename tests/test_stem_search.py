"""The stem search in a canal that is a cone: which size, how deep, and what a wider canal changes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from implantforge.core import Array, Field, Pose
from implantforge.implants.hip_stem import StemParams
from implantforge.stages import fit as seating
from implantforge.stages.fit import stems, stemsearch

CUT = seating.cut_normal(45.0)
ASKED = stemsearch.Asked("taper wedge", None, None, 2.2, 0.3, 0.65)


def cone(wider_mm: float) -> stemsearch.Canal:
    """A round canal 15 mm wide 60 mm under the cut, with 6 deg of taper below and a trumpet above, as a femur's is; its head
    lies 40 mm to the side."""
    slope = np.tan(np.radians(3.0))

    def wall(points: Array) -> Array:
        height = points[:, 2] + 60.0
        radius = (15.0 + wider_mm) / 2 + slope * height + np.maximum(height + 6.0, 0.0) ** 2 / 110.0
        return np.hypot(points[:, 0], points[:, 1]) - radius

    bounds = np.array([[-60.0, -60.0, -260.0], [60.0, 60.0, 60.0]])
    return stemsearch.Canal(Field(wall, bounds), Pose(), np.array([40.0, 0.0, 30.0]), CUT)


@cache
def found(wider_mm: float = 0.0) -> list[dict[str, Any]]:
    return stemsearch.search(ASKED, cone(wider_mm))


def test_the_size_is_what_the_styles_agree_on_and_every_body_fits() -> None:
    rows = found()
    assert rows[0]["size"] == int(np.floor(rows[0]["agreed"] + 0.5))
    assert all(row["overlap_mm"] <= ASKED.overlap_limit_mm for row in rows)
    own = [row["score"] for row in rows if row["size"] == rows[0]["size"]]
    assert own == sorted(own, reverse=True)


def test_a_wider_canal_asks_for_as_much_more() -> None:
    agreed = [found(wider)[0]["agreed"] for wider in (0.0, 1.0, 2.0)]
    assert np.diff(agreed) == pytest.approx([1.0, 1.0], abs=0.25)


def test_no_deeper_body_of_the_size_would_go_in() -> None:
    best = found()[0]
    style = best["style"]._replace(depth_ratio=best["style"].depth_ratio + 3 * stemsearch.DEPTH_STEP)
    stem = stems.body(best["width_mm"], best["length_mm"], style, ASKED.exponent)
    beyond = seating.overlap_mm(
        cone(0.0).wall, best["pose"].apply(stems.surface_points(stem, CUT)), ASKED.overlap_limit_mm
    )
    assert beyond > ASKED.overlap_limit_mm or best["style"].depth_ratio >= stemsearch.DEPTHS[1]


def test_every_body_of_the_size_rests_at_the_seat_that_the_styles_share() -> None:
    own = [row for row in found() if row["size"] == found()[0]["size"]]
    apart = [np.linalg.norm(row["pose"].origin_mm - own[0]["pose"].origin_mm) for row in own]
    assert len(own) >= stemsearch.TRIED and max(apart) < 2 * np.hypot(*stemsearch.REACHES[0]) + 0.1


def test_a_rough_wall_does_not_move_the_seat() -> None:
    smooth = cone(0.0)

    def rough(points: Array) -> Array:
        return smooth.wall.evaluate(points) + 0.12 * np.sin(points @ np.array([0.9, 0.7, 0.31]) + 1.0)

    other = stemsearch.search(ASKED, smooth._replace(wall=Field(rough, smooth.wall.bounds)))[0]["pose"]
    assert np.linalg.norm(other.origin_mm - found()[0]["pose"].origin_mm) < 0.35
    assert other.rotation[:, 2] @ found()[0]["pose"].rotation[:, 2] > np.cos(np.radians(0.35))


def test_a_size_asked_for_is_held_and_one_too_large_is_not_found() -> None:
    size = found()[0]["size"]
    assert {row["size"] for row in stemsearch.search(ASKED._replace(size=size - 1), cone(0.0))} == {size - 1}
    assert stemsearch.search(ASKED._replace(size=16), cone(0.0)) == []


def test_a_length_that_its_family_has_not_is_refused() -> None:
    for family, good, bad in (("short", 100.0, 180.0), ("fit and fill", 180.0, 85.0), ("taper wedge", 90.0, 80.0)):
        assert StemParams(family=family, stem_length_mm=good).stem_length_mm == good
        with pytest.raises(ValidationError, match=f"stem_length_mm = {bad:g} is none of a {family} stem's"):
            StemParams(family=family, stem_length_mm=bad)
