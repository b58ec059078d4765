"""How measured bones would lie in a body that stands: the turn from the file's axes to left, back and up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from implantforge.core import Anatomy, Array, Pose
from implantforge.stages.anatomy import marks
from implantforge.stages.anatomy.atlas import mean

AS_IT_LIES_DEG = 25.0
"""Bones of a scan lie within this of a standing body's: they are left as they are."""


def upright(found: Mapping[str, Anatomy]) -> tuple[Array, float]:
    """Rotation (3,3) that lays the bones' landmarks on those of the shape model's standing body, and its angle in degrees;
    the identity where they lie so already (25 deg) or show no three landmarks."""
    here, there = [], []
    for bone, page in found.items():
        kind, _, side = bone.partition("_")
        if kind not in ("femur", "hip", "tibia"):
            continue
        flip = np.array([-1.0 if side == "right" else 1.0, 1.0, 1.0])
        fine = mean(kind, 1)
        for name, vertex in marks.of(kind, 1).vertex.items():
            if name in page.landmarks:
                here.append(page.landmarks[name].at_mm)
                there.append((fine.mean[vertex] + fine.origin) * flip)
    if len(here) < 3:
        return np.eye(3), 0.0
    a, b = np.array(here), np.array(there)
    u, _, v = np.linalg.svd((a - a.mean(axis=0)).T @ (b - b.mean(axis=0)))
    turn = v.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))]) @ u.T
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))))
    return (np.eye(3), 0.0) if angle < AS_IT_LIES_DEG else (turn, angle)


def turned(page: Anatomy, turn: Array) -> Anatomy:
    """The page with landmarks and frames turned about the origin; measures stay."""
    return replace(
        page,
        landmarks={name: replace(mark, at_mm=turn @ mark.at_mm) for name, mark in page.landmarks.items()},
        frames={name: Pose(turn @ pose.rotation, turn @ pose.origin_mm) for name, pose in page.frames.items()},
    )
