"""The box of a stabilised component against bone whose answer is known: a block, and a drawn femur with it set aside."""

from __future__ import annotations

import drawn_knees
import numpy as np
import pytest

from implantforge.core import Fit, Mesh, Pose
from implantforge.geom import meshing, shapes
from implantforge.implants import Case, knee_femoral
from implantforge.stages.knee import box, condyles, sizes

PS = knee_femoral.FemoralParams(cruciate="PS")
SIZE = sizes.femoral(68.0)


def block(right_mm: float, left_mm: float) -> Mesh:
    """Bone from x = -right to x = left, wide enough in the other directions."""
    across = (right_mm + left_mm) / 2
    at = np.array([(left_mm - right_mm) / 2, 0.0, 40.0])
    return meshing.polygonise(shapes.box(at, [2 * across, 120.0, 120.0]), 2.0)


@pytest.mark.parametrize("ap", [52.0, 64.0, 76.0])
def test_boxes_are_as_wide_as_catalogues_say(ap: float) -> None:
    inner, wide = condyles.box_mm(sizes.femoral(ap))
    assert 16.0 <= 2 * wide <= 22.0
    assert wide - inner == condyles.BOX_WALL_MM
    s = condyles.shape(sizes.femoral(ap), 1.0, True, 7.0)
    assert s.housing is not None
    assert s.hollow is not None
    _, at = sizes.notch_mm(sizes.femoral(ap))
    row = np.array([[x, at + 2.0, 16.0] for x in (inner - 0.1, inner + 0.1, wide - 0.1, wide + 0.1)])
    assert (s.hollow(row) < 0).tolist() == [True, False, False, False]
    assert (s.housing(row) < 0).tolist() == [True, True, True, False]


def test_bone_beside_a_box_is_what_the_block_leaves() -> None:
    shape, wide = condyles.shape(SIZE, 1.0, True, 7.0), condyles.box_mm(SIZE)[1]
    found = box.beside(block(30.0, 26.0), Pose(np.eye(3), np.zeros(3)), SIZE, shape)
    assert found.least_mm == pytest.approx((30.0 - wide, 26.0 - wide), abs=0.5)
    moved = box.beside(block(30.0, 26.0), Pose(np.eye(3), np.array([6.0, 0.0, 0.0])), SIZE, shape)
    assert moved.least_mm == pytest.approx((36.0 - wide, 20.0 - wide), abs=0.5)


def test_a_box_that_leaves_the_bone_is_counted_and_one_in_the_notch_is_not() -> None:
    shape, wide = condyles.shape(SIZE, 1.0, True, 7.0), condyles.box_mm(SIZE)[1]
    fit = Fit(
        "knee_femoral", {"ap_mm": 68.0, "narrow": False, "side": "left", "cuts": []}, Pose(np.eye(3), np.zeros(3)), {}
    )
    made = knee_femoral.design(fit, PS)

    def beyond(bone: Mesh) -> float:
        found = box.beside(bone, fit.pose, SIZE, shape)
        return knee_femoral.outside_mm3(bone, made, fit.pose, shape, found, 1.0)[1]

    whole = block(34.0, 34.0)
    notch = shapes.box([0.0, 30.0, 0.0], [14.0, 60.0, 60.0])
    open_behind = meshing.polygonise(shapes.box([0.0, 0.0, 40.0], [68.0, 120.0, 120.0]) - notch, 1.0)
    assert beyond(whole) == 0.0
    assert beyond(open_behind) == 0.0
    # the left wall stands 1 mm out of the bone: one wall's worth of metal and more is beyond
    out = beyond(block(34.0, wide - 1.0))
    assert shape.housing is not None
    low, high = shape.housing.bounds
    wall = (high[1] - low[1]) * (high[2] - sizes.FEMORAL_MM)
    assert 0.5 * wall < out


def test_the_check_names_the_condyle_that_is_left_thin() -> None:
    side, meshes, truth = drawn_knees.draw(2)
    case: Case = drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))
    fit = knee_femoral.plan(case, PS)
    size = sizes.femoral(float(fit.params["ap_mm"]), bool(fit.params["narrow"]))
    shape, bone = condyles.shape(size, 1.0, True, 7.0), case.bones["femur_left"]
    sound = box.beside(bone, fit.pose, size, shape)
    assert min(sound.least_mm) > 18.0
    lateral = Fit(fit.implant, fit.params, fit.pose.compose(Pose(np.eye(3), np.array([14.0, 0.0, 0.0]))), fit.metrics)
    thin = box.beside(bone, lateral.pose, size, shape)
    assert thin.least_mm[1] == pytest.approx(sound.least_mm[1] - 14.0, abs=3.0)
    made = knee_femoral.design(lateral, PS)
    mesh = meshing.polygonise(made.envelope, 2.0).moved(lateral.pose)
    rows = {row.name: row for row in knee_femoral.checks(case, lateral, made, mesh, PS)}
    assert rows["box_bone_medial_mm"].passed
    assert not rows["box_bone_lateral_mm"].passed
    assert rows["box_bone_lateral_mm"].severity == "fail"
    assert "Lombardi" in rows["box_bone_lateral_mm"].source
