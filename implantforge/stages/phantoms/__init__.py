"""Synthetic patients with planted truth: bones of a licensed shape model, painted as a CT and written as DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from implantforge.core import InputError, Labels, Mesh, Side, Volume
from implantforge.stages.phantoms import bones as _bones
from implantforge.stages.phantoms import hip_scene as _hip_scene
from implantforge.stages.phantoms import knee_bones as _knee_bones
from implantforge.stages.phantoms import knee_scene as _knee_scene
from implantforge.stages.phantoms import knee_truth as _knee_truth
from implantforge.stages.phantoms import leg_scene as _leg_scene
from implantforge.stages.phantoms import paint as _paint
from implantforge.stages.phantoms import truth as _truth
from implantforge.stages.phantoms.bones import FemurFrame
from implantforge.stages.phantoms.disk import write

__all__ = ["FemurFrame", "Phantom", "hip", "hip_of", "knee", "leg", "write"]


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT and what it was painted from.

    meshes of a hip: femur_left femur_right hip_left hip_right sacrum, and the endosteal surfaces canal_left canal_right
    (the whole inner side of the femoral cortex, from head to condyles); of a knee: femur, tibia, fibula and patella of
    one side. LPS mm, closed, whole although the scan cuts them. truth is plain JSON data measured on these meshes, with
    definitions beside the numbers.
    """

    volume: Volume
    labels: Labels
    meshes: Mapping[str, Mesh]
    truth: Mapping[str, Any]


def hip(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.0),
    noise_hu: float | None = None,
    contact_mm2: float | None = None,
) -> Phantom:
    """A hip patient, iliac crest to 220 mm below the lesser trochanters, fully determined by the arguments.

    The bones depend on the seed and, in their meshing only, on whether the voxels are coarser than 1.3 mm. noise_hu
    replaces the drawn noise (15-19 HU, one standard deviation). contact_mm2 presses both heads into their sockets until
    bone lies on bone over that area (0: they just touch). InputError for a negative seed, contact or odd spacing.
    """
    if contact_mm2 is not None and not 0 <= contact_mm2 <= 300:
        raise InputError(f"phantom: contact of {contact_mm2} mm2 must be within 0..300")
    bone_rng, scan_rng = _streams(seed, spacing_mm)
    drawn = _bones.draw(bone_rng, 1.2 if max(spacing_mm[:2]) <= 1.3 else 2.0, contact_mm2)
    scanner = _paint.draw_scanner(scan_rng, noise_hu, spacing_mm[2])
    volume, labels = _paint.paint(drawn, _hip_scene.scene(drawn, spacing_mm, scanner), scanner, scan_rng)
    return Phantom(volume, labels, {**drawn.meshes, **drawn.cavities}, _truth.measure(drawn, seed, spacing_mm))


def hip_of(
    meshes: Mapping[str, Mesh],
    frames: Mapping[str, FemurFrame],
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (0.85, 0.85, 1.0),
    contact_mm2: float | None = None,
) -> Phantom:
    """The same painting of bones that are given: femora, hips and sacrum as closed meshes (LPS mm), femora with their
    frames. truth is empty but for what was planted: the meshes are the truth."""
    bone_rng, scan_rng = _streams(seed, spacing_mm)
    given = _bones.Bones(dict(meshes), {}, dict(frames))
    if contact_mm2 is not None:
        _bones.press(given, contact_mm2)
    _bones.give_cortex(given, bone_rng)
    scanner = _paint.draw_scanner(scan_rng, None, spacing_mm[2])
    volume, labels = _paint.paint(given, _hip_scene.scene(given, spacing_mm, scanner), scanner, scan_rng)
    return Phantom(volume, labels, given.meshes, given.drawn)


def knee(
    seed: int,
    *,
    side: Side = "left",
    spacing_mm: tuple[float, float, float] = (0.6, 0.6, 0.8),
    noise_hu: float | None = None,
    contact_mm2: float = 0.0,
    compartment: _knee_bones.Compartment = "medial",
) -> Phantom:
    """One knee, 125 mm above and below the joint line, fully determined by the arguments.

    contact_mm2 > 0 wears one compartment down: the tibia is tilted until it meets the femur over about that area (0 to
    200 mm2), where nothing but a surface parts the bones. noise_hu as for a hip. InputError for what hip refuses, a
    side or a contact that does not exist.
    """
    if side not in ("left", "right") or compartment not in ("medial", "lateral") or not 0 <= contact_mm2 <= 200:
        raise InputError(f"phantom: no {side} knee with {contact_mm2} mm2 of {compartment} contact (0 to 200 mm2)")
    bone_rng, scan_rng = _streams(seed, spacing_mm)
    drawn, frame = _knee_bones.draw(
        bone_rng, 1.2 if max(spacing_mm[:2]) <= 1.3 else 1.6, side, (compartment, contact_mm2)
    )
    scanner = _paint.draw_scanner(scan_rng, noise_hu, spacing_mm[2])
    scene = _knee_scene.scene(drawn, frame, side, spacing_mm, scanner)
    volume, labels = _paint.paint(drawn, scene, scanner, scan_rng)
    return Phantom(volume, labels, drawn.meshes, _knee_truth.measure(drawn, frame, side, seed, spacing_mm))


def leg(
    seed: int, *, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.5), noise_hu: float | None = None
) -> Phantom:
    """Both legs in one scan, iliac crest to 125 mm below the knees: the hip patient of that seed, its femora whole.

    InputError as for hip.
    """
    bone_rng, scan_rng = _streams(seed, spacing_mm)
    mesh_mm = 1.2 if max(spacing_mm[:2]) <= 1.3 else 2.0
    drawn = _bones.draw(bone_rng, mesh_mm)
    frames = _leg_scene.extend(drawn, bone_rng, mesh_mm)
    scanner = _paint.draw_scanner(scan_rng, noise_hu, spacing_mm[2])
    volume, labels = _paint.paint(drawn, _leg_scene.scene(drawn, frames, spacing_mm, scanner), scanner, scan_rng)
    told = _truth.measure(drawn, seed, spacing_mm) | {"phantom": "leg"}
    told["definitions"] = told["definitions"] | _knee_truth.DEFINITIONS
    told |= {f"knee_{side}": _truth.plain(_knee_truth.knee(drawn, frames[side], side)) for side in get_args(Side)}
    return Phantom(volume, labels, {**drawn.meshes, **drawn.cavities}, told)


def _streams(seed: int, spacing_mm: tuple[float, float, float]) -> tuple[np.random.Generator, np.random.Generator]:
    """Random numbers for bones and for the scan; InputError for what no phantom can be made with."""
    if seed < 0 or len(spacing_mm) != 3 or not all(0.3 <= s <= 5 for s in spacing_mm):
        raise InputError(f"phantom: seed {seed} must be >= 0 and spacing {spacing_mm} mm within 0.3..5")
    bone_rng, scan_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    return bone_rng, scan_rng
