"""Knees found and taken apart: planted bones get their own voxels, left is left, and other regions show no knee."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import knees
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array, InputError, Side
from implantforge.stages import phantoms
from implantforge.stages.phantoms import distance
from implantforge.stages.segment.knee import Knee, find_knees
from implantforge.stages.segment.knee_sheet import facing
from implantforge.stages.segment.knee_split import filled, split
from implantforge.stages.segment.names import NAMES

BONES = ("femur", "tibia", "fibula", "patella")


def _smooth(hu: NDArray, spacing_mm: Array) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(hu.astype(np.float32), 0.6 / spacing_mm, truncate=3.0)


@lru_cache(maxsize=4)
def _labels(patient: phantoms.Phantom) -> NDArray[np.uint8]:
    spacing, values = patient.volume.grid.spacing_mm, np.zeros(patient.volume.grid.shape, dtype=np.uint8)
    dense = np.argwhere(patient.volume.hu > 400)
    window = tuple(slice(max(0, a - 10), b + 10) for a, b in zip(dense.min(axis=0), dense.max(axis=0)))
    smooth = _smooth(patient.volume.hu[window], spacing)
    values[window] = split(smooth, spacing, find_knees(smooth, spacing))
    return values


def _truth(patient: phantoms.Phantom) -> NDArray[np.uint8]:
    table = np.zeros(16, dtype=np.uint8)
    for name, value in patient.labels.names.items():
        table[value] = NAMES[name]
    return table[patient.labels.values]


def _judge(values: NDArray[np.uint8], truth: NDArray[np.uint8], names: list[str], crossed: int = 0) -> None:
    """Each bone its own: no voxel of another bone more than 1 voxel from the border, no leak, no hole."""
    assert set(np.unique(values)) == {0, *(NAMES[name] for name in names)}
    for name in names:
        true, got = truth == NAMES[name], values == NAMES[name]
        near = ndimage.binary_dilation(true, np.ones((3, 3, 3)))
        assert (got & ~near).sum() < 0.01 * got.sum(), f"{name} is more than a voxel too thick"
        assert (got & (truth > 0) & ~near).sum() == 0, f"{name} took voxels of another bone"
        assert (got & (truth > 0) & ~true).sum() <= crossed, f"{name} took voxels of another bone"
        assert (got & ~ndimage.binary_dilation(true, iterations=3)).sum() == 0, f"{name} leaks"
        assert (ndimage.binary_erosion(true, iterations=2, border_value=1) & ~got).sum() == 0, f"{name} has holes"
        _, pieces = ndimage.label(got)
        assert pieces == 1, name


def _boundary_mm(values: NDArray[np.uint8], patient: phantoms.Phantom, side: Side) -> Array:
    """Where labels turn from femur to tibia along the normals of the planted contact, relative to it, mm."""
    femur, tibia = (patient.meshes[f"{bone}_{side}"] for bone in ("femur", "tibia"))
    middle, normal = femur.vertices[femur.faces].mean(axis=1), femur.face_cross
    close = np.linalg.norm(middle - patient.truth[f"knee_{side}"]["contact_center_mm"], axis=1) < 20.0
    touching = np.flatnonzero(close)[distance.unsigned(tibia, middle[close]) < 0.1]
    s = np.arange(-4.0, 4.05, 0.1)
    normal = normal[touching] / np.linalg.norm(normal[touching], axis=1)[:, None]
    at = patient.volume.grid.to_index((middle[touching, None] + s[:, None] * normal[:, None]).reshape(-1, 3))
    labels = values[tuple(np.rint(at).astype(int).T)].reshape(len(touching), -1)
    last = np.where(labels == NAMES[f"femur_{side}"], s, -4.0).max(axis=1)
    first = np.where(labels == NAMES[f"tibia_{side}"], s, 4.0).min(axis=1)
    return (last + first) / 2.0


def test_sound_knee() -> None:
    patient = knees.sound()
    _judge(_labels(patient), _truth(patient), [f"{bone}_left" for bone in BONES])


def test_bone_on_bone() -> None:
    """100 mm2 of contact: labels part within 0.6 mm (mean) of the planted surface; voxels are 1.0 x 1.0 x 1.2 mm."""
    patient = knees.worn()
    _judge(_labels(patient), _truth(patient), [f"{bone}_right" for bone in BONES], crossed=60)
    off = _boundary_mm(_labels(patient), patient, "right")
    assert len(off) > 60 and np.abs(off).mean() < 0.6 and np.percentile(np.abs(off), 95) < 1.3


def test_mirrored_volume_gives_mirrored_labels() -> None:
    patient = knees.worn()
    spacing = patient.volume.grid.spacing_mm
    smooth = _smooth(patient.volume.hu, spacing)[::-1]
    values = split(smooth, spacing, find_knees(smooth, spacing))[::-1]
    table = np.arange(256, dtype=np.uint8)
    for bone in BONES:
        table[[NAMES[f"{bone}_left"], NAMES[f"{bone}_right"]]] = NAMES[f"{bone}_right"], NAMES[f"{bone}_left"]
    own, names = _labels(patient), [f"{bone}_right" for bone in BONES]
    assert set(np.unique(table[values])) == {0, *(NAMES[name] for name in names)}
    assert (table[values] != own).mean() < 2e-4


def test_two_knees_and_their_order() -> None:
    """A left and a right knee in one image; the same image with left and right exchanged is refused."""
    patient = knees.sound()
    spacing, hu = patient.volume.grid.spacing_mm, patient.volume.hu
    both = _smooth(np.concatenate([hu[::-1], hu]), spacing)
    found = find_knees(both, spacing)
    assert len(found) == 2 and found[0].at_mm[0] < found[1].at_mm[0]
    values = split(both, spacing, found)
    assert set(np.unique(values)) == {0, *(NAMES[f"{bone}_{side}"] for bone in BONES for side in ("left", "right"))}
    own = _truth(patient)
    for name in ("femur_left", "tibia_left", "fibula_left", "patella_left"):
        assert (values[: len(hu)] == NAMES[name]).sum() == 0
        assert (own == NAMES[name])[values[len(hu) :] == NAMES[name]].mean() > 0.7
    swapped = np.concatenate([both[len(hu) :], both[: len(hu)]])
    with pytest.raises(InputError, match="mirrored"):
        split(swapped, spacing, find_knees(swapped, spacing))


def test_knee_without_shafts_is_no_knee() -> None:
    patient = knees.sound()
    spacing = patient.volume.grid.spacing_mm
    smooth = _smooth(patient.volume.hu, spacing)
    middle = find_knees(smooth, spacing)[0].at_mm[2] / spacing[2]
    for part in (smooth[:, :, int(middle) :], smooth[:, :, : int(middle)]):
        assert find_knees(part, spacing) == []
    with pytest.raises(InputError, match="shafts"):
        split(smooth[:, :, int(middle) :], spacing, [Knee(np.array([80.0, 80.0, 0.0]), 3.0, 1.0)])


@pytest.mark.slow
def test_hip_shows_no_knee() -> None:
    patient = phantoms.hip(1, spacing_mm=(2.0, 2.0, 2.5))
    assert find_knees(_smooth(patient.volume.hu, patient.volume.grid.spacing_mm), patient.volume.grid.spacing_mm) == []


def test_filled_closes_cut_tubes_and_leaks_but_no_slots() -> None:
    x, y, _ = np.meshgrid(*(np.arange(40),) * 3, indexing="ij")
    r = np.hypot(x - 20, y - 20)
    tube = (r < 15) & (r > 12)
    assert filled(tube)[20, 20].all(), "a shaft cut at both ends is solid"
    leaky = tube.copy()
    leaky[30:, 20, 17:20] = False
    assert filled(leaky)[20, 20].all(), "a hole in the wall lets nothing out"
    slot = np.zeros((40, 40, 40), dtype=bool)
    slot[5:35, 5:35, 5:18] = slot[5:35, 5:35, 22:35] = True
    slot[5:9, 5:35, 18:22] = True
    assert not filled(slot)[20:34, 20, 20].any(), "a joint space stays open"


def test_facing_points_from_lower_to_upper() -> None:
    g = np.stack(np.meshgrid(np.arange(0.0, 20.0, 2.0), np.arange(0.0, 20.0, 2.0), indexing="ij"), -1).reshape(-1, 2)
    lower, upper = np.c_[g, np.zeros(len(g))], np.c_[g, np.full(len(g), 4.0)]
    middle, direction = facing(lower, upper, 6.0)
    np.testing.assert_allclose(middle, [9.0, 9.0, 2.0])
    np.testing.assert_allclose(direction, [0.0, 0.0, 1.0])
    assert np.isnan(facing(lower, upper, 3.0)[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("contact_mm2", [0.0, 25.0, 100.0])
def test_many_knees(seed: int, contact_mm2: float) -> None:
    """Both sides and compartments, noise up to 45 HU, voxels from 0.6 mm to 1 x 1 x 1.5 mm."""
    side: Side = "right" if seed % 2 else "left"
    spacing = ((0.6, 0.6, 0.8), (0.8, 0.8, 1.0), (1.0, 1.0, 1.5))[seed % 3]
    patient = phantoms.knee(
        seed, side=side, spacing_mm=spacing, noise_hu=45.0 if seed % 4 == 3 else None, contact_mm2=contact_mm2,
        compartment="lateral" if seed % 5 > 2 else "medial",
    )  # fmt: skip
    values = _labels(patient)
    layer = int(contact_mm2 / (spacing[0] * spacing[1]))  # one layer of voxels over the contact
    _judge(values, _truth(patient), [f"{bone}_{side}" for bone in BONES], crossed=layer)
    if contact_mm2:
        assert np.abs(_boundary_mm(values, patient, side)).mean() < 0.6


@pytest.mark.slow
def test_real_bones(shared_data: Any) -> None:
    from implantforge.stages import dicom

    with np.load(shared_data / "ct" / "knee_z027_truth.npz") as file:
        truth = np.zeros_like(file["labels"].transpose(2, 1, 0))
        for value, name in enumerate(file["names"], 1):
            truth[file["labels"].transpose(2, 1, 0) == value] = NAMES[str(name)]
    volume = dicom.load(shared_data / "ct" / "knee_z027.zip").volume
    spacing = volume.grid.spacing_mm
    smooth = _smooth(volume.hu, spacing)
    _judge(split(smooth, spacing, find_knees(smooth, spacing)), truth, [f"{bone}_left" for bone in BONES])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hip_z027.zip", "dry_skull_bone_kernel.zip", "abdomen_j2k_series.zip",
                                  "pelvis_3mm_metal_right_hip.nii.gz"])  # fmt: skip
def test_other_regions_show_no_knee(shared_data: Any, name: str) -> None:
    from implantforge.stages import dicom

    volume = dicom.load(shared_data / "ct" / name).volume
    spacing = volume.grid.spacing_mm
    assert find_knees(_smooth(np.minimum(volume.hu, 2000), spacing), spacing) == []
