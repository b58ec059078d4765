"""Sigmas that mean what they say, on drawn bones and by drawing lots; bones upright in pictures whichever way they lie."""

from __future__ import annotations

import io
from dataclasses import replace

import drawn_bones
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from test_anatomy_hard import sampled

from implantforge.core import Anatomy, Landmark, Mesh, Pose
from implantforge.report import bones as pictures
from implantforge.stages import anatomy
from implantforge.stages.anatomy import lines, scatter, stance
from implantforge.stages.anatomy.femur import angle

LEG = ("hip_left", "hip_right", "femur_left", "tibia_left")


@pytest.fixture(scope="module")
def meshes() -> dict[str, Mesh]:
    return dict(zip(LEG, sampled(LEG, 41)))


@pytest.fixture(scope="module")
def found(meshes: dict[str, Mesh]) -> dict[str, Anatomy]:
    return anatomy.examine_all(meshes)


def test_sigmas_are_as_wide_as_the_errors() -> None:
    rng, ratios = np.random.default_rng(77), []
    for kind in ("femur", "femur", "tibia", "femur", "tibia"):
        bone = drawn_bones.draw(rng, kind, "whole")
        page = anatomy.examine(f"{kind}_{bone.side}", bone.mesh)
        ratios += [np.linalg.norm(mark.at_mm - bone.points[name]) / mark.sigma_mm
                   for name, mark in page.landmarks.items() if name in bone.points]  # fmt: skip
    assert len(ratios) > 40
    # of a distance that is Gaussian in three ways, half lie within 0.77 sigma as sigma is meant here
    assert np.mean(np.array(ratios) < 2.0) > 0.85 and 0.4 < np.median(ratios) < 1.2


def test_sigmas_of_measures_by_drawing_lots(found: dict[str, Anatomy]) -> None:
    told = scatter.of_measures(found)
    rng, many = np.random.default_rng(1), {}
    axes = {"shaft", "subtrochanteric", "proximal_shaft", "medial_plateau", "lateral_plateau", "acetabulum"}
    for _ in range(250):
        pages = {}
        for bone, page in found.items():
            marks = {}
            for name, mark in page.landmarks.items():
                wide = np.hypot(mark.sigma_mm, 0.0 if name in scatter.EXTREMES else scatter.definition_mm(mark))
                derived = name in ("knee_center", "plateau_center", "ankle_center")
                marks[name] = replace(mark, at_mm=mark.at_mm + (not derived) * wide / 3**0.5 * rng.standard_normal(3))
            frames = dict(page.frames)
            for name in axes & set(frames):
                sigma = np.radians(scatter._axis_deg(page, name))
                x, y, _ = frames[name].rotation.T
                turn = Rotation.from_rotvec(sigma * (rng.standard_normal() * x + rng.standard_normal() * y)).as_matrix()
                frames[name] = Pose(turn @ frames[name].rotation, frames[name].origin_mm)
            pages[bone] = lines.anew(replace(page, landmarks=marks, frames=frames), set(marks) - set(lines.MIDDLES))
        pages = lines.paired(pages)
        for bone, values in {**{bone: page.measures for bone, page in pages.items()}, **lines.legs(pages)}.items():
            for name, value in values.items():
                many.setdefault((bone, name), []).append(value)
    tried = (("femur_left", "neck_shaft_angle_deg"), ("femur_left", "anteversion_deg"), ("femur_left", "mldfa_deg"),
             ("femur_left", "epicondylar_to_condylar_deg"), ("hip_left", "inclination_deg"),
             ("hip_right", "anteversion_deg"),
             ("tibia_left", "posterior_slope_medial_deg"), ("tibia_left", "tibial_torsion_deg"), ("leg_left", "hka_deg"),
             ("leg_left", "leg_length_mm"), ("hip_left", "pelvic_tilt_deg"))  # fmt: skip
    for bone, name in tried:
        assert told[bone][name] == pytest.approx(np.std(many[bone, name]), rel=0.25), (bone, name)
    assert told["femur_left"]["head_radius_mm"] > 0.0 and "head_residual_mm" not in told["femur_left"]


def test_what_a_person_set_has_its_scatter_once() -> None:
    ours = Landmark("asis", np.zeros(3), 1.0, "shape-model+surface")
    assert scatter.definition_mm(ours) == scatter.RATERS_MM["asis"]
    assert scatter.definition_mm(replace(ours, method=scatter.HAND)) == 0.0
    assert scatter.definition_mm(replace(ours, name="head_center")) == 0.0
    knee = np.hypot(scatter.RATERS_MM["medial_epicondyle"], scatter.RATERS_MM["lateral_epicondyle"]) / 2
    assert scatter.definition_mm(replace(ours, name="knee_center")) == pytest.approx(knee)


@pytest.mark.parametrize("bone", ["femur_left", "hip_left", "tibia_left"])
def test_a_bone_in_any_pose_stands_upright(found: dict[str, Anatomy], bone: str) -> None:
    page = found[bone]
    assert stance.upright({bone: page})[1] == 0.0
    for seed in range(6):
        pose = Pose(Rotation.random(random_state=seed).as_matrix(), np.array([30.0, -400.0, 70.0]))
        moved = stance.turned(page, pose.rotation)
        turn, degrees = stance.upright({bone: moved})
        back = turn @ pose.rotation
        assert degrees == 0.0 or angle(back @ [0.0, 0.0, 1.0], np.array([0.0, 0.0, 1.0])) < 15.0
        assert degrees > 0.0 or np.degrees(Rotation.from_matrix(pose.rotation).magnitude()) < 45.0
        again = stance.turned(moved, turn)
        gaps = [np.linalg.norm(again.at(name) - again.at("asis" if "hip" in bone else next(iter(page.landmarks)))
                               - back @ (mark.at_mm - page.at("asis" if "hip" in bone else next(iter(page.landmarks)))))
                for name, mark in page.landmarks.items()]  # fmt: skip
        assert max(gaps) < 1e-9


def test_the_picture_of_a_tibia_upside_down(meshes: dict[str, Mesh], found: dict[str, Anatomy]) -> None:
    from implantforge.cli.measuring import _picture

    over, name = Pose(np.diag([1.0, -1.0, -1.0]), np.zeros(3)), "tibia_left"
    for mesh, page in (
        (meshes[name], found[name]),
        (meshes[name].moved(over), stance.turned(found[name], over.rotation)),
    ):
        image = Image.open(io.BytesIO(_picture({name: mesh}, {name: page}, {}, scatter.of_measures({name: page}), 300)))
        pixels = np.asarray(image.convert("RGB"))
        inks = {tuple(ink) for ink in pixels.reshape(-1, 3).tolist()}
        for ink in (pictures.AXIS, pictures.DOT, pictures.ANGLE, pictures.HAND):
            assert ink in inks
        # bone between the columns of names: the plateau is broad and above, the ankle narrow and below, either way round
        bone = pixels[:, pictures.MARGIN_PX - 15 : pixels.shape[1] // 2 - pictures.MARGIN_PX].min(axis=2) < 250
        rows = bone.sum(axis=1)
        rows = rows[np.flatnonzero(rows)[0] : np.flatnonzero(rows)[-1]]
        assert rows[: len(rows) // 6].mean() > 1.3 * rows[-len(rows) // 6 :].mean()
