"""Both legs in one scan: a hip patient whose femora end in knees, iliac crest to 125 mm below the joint lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Side
from implantforge.stages.phantoms import hip_scene, knee_bones, knee_scene
from implantforge.stages.phantoms.bones import SIDES, Bones
from implantforge.stages.phantoms.distance import Float
from implantforge.stages.phantoms.knee_bones import KneeFrame
from implantforge.stages.phantoms.paint import COARSE_MM, Scanner, Scene

LABELS = hip_scene.LABELS | {
    f"{name}_{side}": 6 + 2 * n + m
    for n, name in enumerate(("tibia", "fibula", "patella"))
    for m, side in enumerate(SIDES)
}


def extend(bones: Bones, rng: np.random.Generator, mesh_mm: float) -> dict[str, KneeFrame]:
    """Tibiae, fibulae and patellae added to a hip patient's bones; the knees' frames by side."""
    frames: dict[str, KneeFrame] = {}
    for side in get_args(Side):
        femur, head = bones.meshes[f"femur_{side}"], bones.femur[side].head
        meshes, cortex, frames[side], drawn = knee_bones.below(femur, head, side, rng, mesh_mm)
        bones.meshes |= meshes
        bones.cortex |= cortex
        bones.drawn |= {f"{name.removesuffix('_mm')}_{side}_mm": value for name, value in drawn.items()}
    return frames


@dataclass
class _Leg:
    bones: Bones
    frames: dict[str, KneeFrame]
    scanner: Scanner
    hip: Scene

    def spongy(self, name: str, points: Array, under: NDArray, grain: NDArray) -> NDArray:
        """The hip's cancellous bone above mid-thigh, the knee's below."""
        bone, _, side = name.rpartition("_")
        if bone in ("hip", ""):
            return self.hip.spongy(name, points, under, grain)
        low = knee_scene.cancellous(self.frames[side], self.scanner, name, points, under, grain)
        if bone != "femur":
            return low
        return np.where(self.frames[side].above(points) < 130.0, low, self.hip.spongy(name, points, under, grain))

    def tissue(self, labels: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Array, Float, Float]:
        """The hip's torso and thighs, and a tube of skin and fat that follows the bones of each lower leg."""
        low, body, muscle = self.hip.tissue(labels, rng)
        shape, grid = body.shape, self.hip.grid
        axes = [low[a] + np.arange(shape[a]) * COARSE_MM for a in range(3)]
        index = [(axes[a] - grid.pose.origin_mm[a]) / grid.spacing_mm[a] for a in range(3)]
        bone = labels[np.ix_(*(np.rint(i).astype(int).clip(0, n - 1) for i, n in zip(index, grid.shape)))]
        for side in SIDES:
            top = self.frames[side].middle[2] + 130.0
            levels = axes[2] < top
            own = np.isin(bone, [value for name, value in LABELS.items() if name.endswith(side)])[:, :, levels]
            tube = knee_scene.skin(own, axes[0], axes[1], self.scanner.fat_mm)
            body[:, :, levels] = np.minimum(body[:, :, levels], tube)
        return low, body, muscle


def scene(
    bones: Bones, frames: dict[str, KneeFrame], spacing_mm: tuple[float, float, float], scanner: Scanner
) -> Scene:
    """How to paint a patient from pelvis to shins."""
    bottom = min(float(frame.middle[2]) for frame in frames.values()) - knee_scene.REACH_MM
    hip = hip_scene.scene(bones, spacing_mm, scanner, bottom)
    leg = _Leg(bones, frames, scanner, hip)
    return replace(hip, labels=LABELS, spongy=leg.spongy, tissue=leg.tissue)
