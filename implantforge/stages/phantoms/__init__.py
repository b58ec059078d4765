"""Synthetic patients with planted truth: bones of a licensed shape model, painted as a CT and written as DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from implantforge.core import InputError, Labels, Mesh, Volume
from implantforge.stages.phantoms import bones as _bones
from implantforge.stages.phantoms import hip_scene as _hip_scene
from implantforge.stages.phantoms import paint as _paint
from implantforge.stages.phantoms import truth as _truth
from implantforge.stages.phantoms.disk import write

__all__ = ["Phantom", "hip", "write"]


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT and what it was painted from.

    meshes: femur_left femur_right hip_left hip_right sacrum, and the endosteal surfaces canal_left canal_right (the
    whole inner side of the femoral cortex, from head to condyles), LPS mm, closed. Femora are whole although the scan
    cuts them. truth is plain JSON data measured on these meshes, with definitions beside the numbers.
    """

    volume: Volume
    labels: Labels
    meshes: Mapping[str, Mesh]
    truth: Mapping[str, Any]


def hip(
    seed: int, *, spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.0), noise_hu: float | None = None
) -> Phantom:
    """A hip patient, iliac crest to 220 mm below the lesser trochanters, fully determined by the arguments.

    The bones depend on the seed and, in their meshing only, on whether the voxels are coarser than 1.3 mm. noise_hu
    replaces the drawn noise (15-19 HU, one standard deviation). InputError for a negative seed or odd spacing.
    """
    if seed < 0 or len(spacing_mm) != 3 or not all(0.3 <= s <= 5 for s in spacing_mm):
        raise InputError(f"phantom: seed {seed} must be >= 0 and spacing {spacing_mm} mm within 0.3..5")
    bone_rng, scan_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    drawn = _bones.draw(bone_rng, 1.2 if max(spacing_mm[:2]) <= 1.3 else 2.0)
    scanner = _paint.draw_scanner(scan_rng, noise_hu, spacing_mm[2])
    volume, labels = _paint.paint(drawn, _hip_scene.scene(drawn, spacing_mm, scanner), scanner, scan_rng)
    return Phantom(volume, labels, {**drawn.meshes, **drawn.cavities}, _truth.measure(drawn, seed, spacing_mm))
