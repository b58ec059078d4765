"""Small decisions of the straight line: which side, which part of the scan."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from implantforge import implants
from implantforge.core import InputError
from implantforge.pipeline import recipe, steps


def test_both_sides_possible_needs_a_person():
    class Both:
        implant, case = toy.IMPLANT, recipe.CaseParams()

    found = ["femur_left", "femur_right"]
    with pytest.raises(InputError, match="--side left or --side right"):
        steps.side(Both, found, "unknown")  # type: ignore[arg-type]
    assert steps.side(Both, found, "right") == "right"  # type: ignore[arg-type]
    assert steps.side(Both, found[:1], "unknown") == "left"  # type: ignore[arg-type]


def test_a_bone_that_is_not_shown_is_named_with_what_to_do():
    class Knee:
        implant, case = implants.get("knee_total"), recipe.CaseParams()

    with pytest.raises(InputError, match=r"^knee_total: needs the left femur and the left tibia \(or the same of the right "
                       r"side\); this scan shows the left femur, the right hip bone and the sacrum: give one that also "
                       r"shows the left tibia$"):  # fmt: skip
        steps.side(Knee, ["femur_left", "hip_right", "sacrum"], "unknown")  # type: ignore[arg-type]


def test_crop_covers_the_region_and_its_margin():
    volume, _ = toy.ball()
    start, stop = steps.index_box(volume, toy.CENTRE_MM[None], 7.0)
    low, high = volume.grid.to_patient(np.array([start, np.array(stop) - 1], float))
    assert (low <= toy.CENTRE_MM - 7.0).all() and (high >= toy.CENTRE_MM + 7.0).all()
    assert (low >= toy.CENTRE_MM - 11.0).all() and (high <= toy.CENTRE_MM + 11.0).all()
