"""Synthetic knees: four bones closed and a planted gap apart, or in contact over a planted area; truth in its place."""

from __future__ import annotations

import io
import json

import knees
import manifold3d
import numpy as np
import pytest

from implantforge.core import InputError, Mesh
from implantforge.stages import phantoms
from implantforge.stages.phantoms import disk, distance, knee_bones, knee_truth

COARSE = (1.6, 1.6, 2.0)
BONES = ("femur", "tibia", "fibula", "patella")


@pytest.fixture(scope="module")
def sound() -> phantoms.Phantom:
    return knees.sound()


@pytest.fixture(scope="module")
def worn() -> phantoms.Phantom:
    return knees.worn()


def _closed(mesh: Mesh) -> manifold3d.Manifold:
    solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))
    assert solid.status() == manifold3d.Error.NoError and len(solid.decompose()) == 1
    return solid


@pytest.mark.parametrize("name", ["sound", "worn"])
def test_four_closed_bones(name: str, request: pytest.FixtureRequest) -> None:
    patient = request.getfixturevalue(name)
    side = "left" if name == "sound" else "right"
    assert set(patient.meshes) == set(patient.labels.names) == {f"{bone}_{side}" for bone in BONES}
    for bone, mesh in patient.meshes.items():
        assert _closed(mesh).volume() == pytest.approx(mesh.volume_mm3, rel=1e-4), bone
    assert 2e5 < patient.meshes[f"femur_{side}"].volume_mm3 < 9e5
    assert 8e3 < patient.meshes[f"patella_{side}"].volume_mm3 < 4e4


def test_gaps_are_the_planted_ones(sound: phantoms.Phantom) -> None:
    """Measured between the final meshes, against the numbers drawn before smoothing and carving."""
    told = sound.truth["knee_left"]
    for name in ("medial", "lateral", "patella", "fibula"):
        assert told[f"gap_{name}_mm"] == pytest.approx(told["planted"][f"gap_{name}_mm"], abs=0.6), name
    assert told["contact_mm2"] == 0.0 and told["contact_center_mm"] is None


def test_contact_has_the_planted_area_and_compartment(worn: phantoms.Phantom) -> None:
    told = worn.truth["knee_right"]
    assert told["contact_mm2"] == pytest.approx(100.0, abs=25.0)
    assert told["gap_lateral_mm"] < 0.05 and told["gap_medial_mm"] > 1.0
    offset = np.subtract(told["contact_center_mm"], told["joint_middle_mm"])
    assert offset @ np.array(told["out"]) > 8.0
    to_fibula = np.subtract(told["fibula_tip_mm"], told["joint_middle_mm"])
    assert offset @ to_fibula > 0  # the side of the fibula is lateral


@pytest.mark.parametrize("name", ["sound", "worn"])
def test_landmarks_are_where_a_knee_has_them(name: str, request: pytest.FixtureRequest) -> None:
    patient = request.getfixturevalue(name)
    side, outward = ("left", 1.0) if name == "sound" else ("right", -1.0)
    told = patient.truth[f"knee_{side}"]
    up, out, front = (np.array(told[axis]) for axis in ("up", "out", "front"))
    assert np.abs(np.stack([up, out, front]) @ np.stack([up, out, front]).T - np.eye(3)).max() < 1e-5
    assert up[2] > 0.9 and out[0] * outward > 0.8 and front[1] < -0.8
    middle = np.array(told["joint_middle_mm"])
    width = np.subtract(told["epicondyle_lateral_mm"], told["epicondyle_medial_mm"]) @ out
    assert 60.0 < width < 105.0
    for which, sign in (("medial", -1.0), ("lateral", 1.0)):
        plateau = np.array(told[f"plateau_center_{which}_mm"]) - middle
        assert 10.0 < sign * (plateau @ out) < 38.0 and -16.0 < plateau @ up < 3.0
        assert (np.array(told[f"condyle_posterior_{which}_mm"]) - middle) @ front < -12.0
    assert (np.array(told["tuberosity_mm"]) - told["eminence_mm"]) @ front > 5.0
    patella = np.array(told["patella_center_mm"]) - middle
    assert 25.0 < patella @ front < 70.0 and 15.0 < patella @ up < 45.0
    fibula = np.array(told["fibula_tip_mm"]) - middle
    assert fibula @ out > 10.0 and fibula @ front < 0.0 and fibula @ up < 0.0
    assert set(knee_truth.DEFINITIONS) >= {"up", "out", "front", "tuberosity_mm", "contact_mm2"}
    assert json.loads(json.dumps(patient.truth)) == patient.truth


def test_scan_shows_the_knee(sound: phantoms.Phantom) -> None:
    """100 mm of both shafts, labels that follow the meshes, cortex and marrow, air all round, and a table."""
    grid, told = sound.volume.grid, sound.truth["knee_left"]
    assert len(set(grid.shape)) == 3
    joint = float(grid.to_index(np.array(told["joint_middle_mm"]))[2]) * grid.spacing_mm[2]
    assert joint > 100.0 and grid.shape[2] * grid.spacing_mm[2] - joint > 100.0
    patella = sound.labels.mask("patella_left").sum() * np.prod(grid.spacing_mm)
    assert patella == pytest.approx(sound.meshes["patella_left"].volume_mm3, rel=0.02)
    assert sound.labels.mask("femur_left")[:, :, -1].any() and sound.labels.mask("tibia_left")[:, :, 0].any()
    femur = sound.volume.hu[sound.labels.mask("femur_left")]
    assert np.percentile(femur, 98) > 1000 and (femur < 60).mean() > 0.05
    assert sound.volume.hu[0].max() < -900 and sound.volume.hu[:, 0].max() < -900


@pytest.mark.slow
def test_same_arguments_same_bytes() -> None:
    once, again = (phantoms.knee(3, spacing_mm=COARSE) for _ in range(2))
    np.testing.assert_array_equal(again.volume.hu, once.volume.hu)
    np.testing.assert_array_equal(again.labels.values, once.labels.values)
    assert again.truth == once.truth


def test_slices_read_back(sound: phantoms.Phantom) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.dcmread(io.BytesIO(disk.slice_bytes(sound, 3, "raw")))
    assert data.PatientName == "SAMPLE^KNEE" and data.BodyPartExamined == "KNEE"
    np.testing.assert_array_equal(data.pixel_array.T.astype(int) - 1024, sound.volume.hu[:, :, 3])


def test_refuses_nonsense() -> None:
    for wrong in (
        {"side": "middle"},
        {"contact_mm2": 900.0},
        {"compartment": "front"},
        {"spacing_mm": (0.0, 1.0, 1.0)},
    ):
        with pytest.raises(InputError, match="phantom"):
            phantoms.knee(0, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_twelve_knees(seed: int) -> None:
    for worn_mm2 in (0.0, 25.0, 100.0):
        rng = np.random.default_rng([seed, 1])
        side = "left" if seed % 2 else "right"
        compartment = "medial" if seed % 3 else "lateral"
        drawn, frame = knee_bones.draw(rng, 1.2, side, (compartment, worn_mm2))
        told = knee_truth.knee(drawn, frame, side)
        for mesh in drawn.meshes.values():
            _closed(mesh)
        assert told["contact_mm2"] == pytest.approx(worn_mm2, abs=3.0 + 0.25 * worn_mm2)
        assert told["gap_patella_mm"] > 2.0 and told["gap_fibula_mm"] > 0.7
        femur, patella = drawn.meshes[f"femur_{side}"], drawn.meshes[f"patella_{side}"]
        assert distance.unsigned(femur, patella.vertices[::20]).min() > 2.0


@pytest.mark.slow
def test_both_legs_in_one_scan() -> None:
    patient = phantoms.leg(2, spacing_mm=(2.0, 2.0, 2.5))
    assert len(patient.labels.names) == 11
    for side in ("left", "right"):
        told = patient.truth[f"knee_{side}"]
        assert 2.0 < told["gap_medial_mm"] < 7.0 and told["gap_patella_mm"] > 2.0
        assert np.linalg.norm(np.subtract(told["head_center_mm"], told["joint_middle_mm"])) > 330.0
        assert (patient.labels.mask(f"tibia_{side}").sum() > 0) and patient.labels.mask(f"femur_{side}").any()
