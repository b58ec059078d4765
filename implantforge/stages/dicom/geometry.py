"""Where the slices of one series lie: order along the normal, even steps, shear, and the turn to L, P, S axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from implantforge.core import Array
from implantforge.geom.grids import turn
from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.rules import RULES, Finding, hit

# Positions are written with as few as two decimals.
STEP_FLOOR_MM = 0.01


@dataclass(frozen=True)
class Stack:
    """Frames in order along the normal. axes rows are (column index, row index, slice) directions, right-handed.

    along_mm are the slices' distances from the first; shear_mm is the in-plane drift (along column index, row index)
    per step; duplicates are groups at one position. uneven: slices do not all lie on the even grid of spacing_mm.
    """

    frames: tuple[Frame, ...]
    axes: Array
    spacing_mm: Array
    origin_mm: Array
    along_mm: Array
    shear_mm: Array
    duplicates: tuple[tuple[Frame, ...], ...] = ()
    uneven: bool = False

    @property
    def tilt_deg(self) -> float:
        """Angle between the line of the slices and their normal, signed by the drift along the larger of both axes."""
        drift = self.shear_mm / self.spacing_mm[2]
        size = float(np.degrees(np.arctan(np.hypot(*drift))))
        return size if drift[int(np.argmax(np.abs(drift)))] >= 0 else -size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices of the even grid."""
        steps = round(float(self.along_mm[-1] / self.spacing_mm[2]))
        return self.frames[0].columns, self.frames[0].rows, steps + 1


def stack(frames: list[Frame]) -> tuple[Stack | None, list[Finding]]:
    """The stack of one group of frames and what is wrong with it; None where the voxels' places cannot be known."""
    findings = _plane(frames)
    if findings:
        return None, findings
    first = frames[0]
    assert first.orientation and first.row_spacing_mm and first.column_spacing_mm
    axes = _axes(np.array(first.orientation))
    order = sorted(frames, key=lambda f: (float(np.dot(f.position, axes[2])), f.member.number, f.index))  # type: ignore[arg-type]
    kept, duplicates = _unique(order, axes[2])
    if len(kept) < RULES["one_slice"].threshold:
        text = f"{len(frames)} image at one position: not a volume" if len(frames) == 1 else (
            f"{len(frames)} images all at one position: not a volume")  # fmt: skip
        return None, [hit("one_slice", text)]
    places = np.array([f.position for f in kept])
    along = places @ axes[2]
    uneven = _steps(along, places, axes[2])
    step = float(np.median(np.diff(along))) if uneven else float((along[-1] - along[0]) / (len(kept) - 1))
    findings += uneven
    if len(kept) < RULES["few_slices"].threshold:
        findings.append(hit("few_slices", f"{len(kept)} slices: fewer than {RULES['few_slices'].threshold:.0f}"))
    slope, off = _line(along - along[0], places @ axes[:2].T)
    if off > RULES["wandering_slices"].threshold:
        findings.append(hit("wandering_slices", f"slice positions leave the straight line by {off:.2f} mm, limit "
                            f"{RULES['wandering_slices'].threshold} mm"))  # fmt: skip
    spacing = np.array([first.column_spacing_mm, first.row_spacing_mm, step])
    upright = Stack(tuple(kept), axes, spacing, places[0], along - along[0], np.zeros(2), duplicates, bool(uneven))
    leaning = replace(upright, shear_mm=slope * step)
    drift = float(np.hypot(*slope)) * float(along[-1] - along[0])
    if abs(leaning.tilt_deg) <= RULES["tilt"].threshold and drift <= RULES["drift"].threshold:
        return upright, findings
    return leaning, findings + _tilted(leaning, drift)


def _line(along: Array, inplane: Array) -> tuple[Array, float]:
    """In-plane drift per mm along the normal, and the largest distance from that line, mm."""
    fit = np.polyfit(along, inplane, 1)
    return fit[0], float(np.abs(inplane - np.outer(along, fit[0]) - fit[1]).max())


def _plane(frames: list[Frame]) -> list[Finding]:
    """Reasons for which even one slice has no place in the patient."""
    for name, what in (("position", "position"), ("orientation", "orientation"), ("row_spacing_mm", "pixel spacing")):
        lacking = sum(getattr(f, name) is None for f in frames)
        if lacking:
            return [
                hit("no_geometry", f"no {what} in {lacking} of {len(frames)} images: where the voxels lie is not known")
            ]
    first = frames[0]
    assert first.orientation
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    limit = RULES["bad_cosines"].threshold
    lengths = np.linalg.norm([row, column], axis=1)
    bad = max(float(np.abs(lengths - 1).max()), abs(float(row @ column)))
    if bad > limit:
        return [
            hit(
                "bad_cosines",
                f"row and column directions are off unit length or right angle by {bad:.4f}, limit {limit}",
            )
        ]
    spacing = (first.row_spacing_mm or 0.0, first.column_spacing_mm or 0.0)
    if min(spacing) <= 0:
        return [hit("bad_spacing", f"pixel spacing {spacing[0]} x {spacing[1]} mm: must be positive")]
    return []


def _axes(orientation: Array) -> Array:
    row, column = orientation[:3] / np.linalg.norm(orientation[:3]), orientation[3:]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.array([row, np.cross(normal, row), normal])


def _unique(order: list[Frame], normal: Array) -> tuple[list[Frame], tuple[tuple[Frame, ...], ...]]:
    groups: list[list[Frame]] = []
    for frame in order:
        last = groups[-1][0].position if groups else None
        if last is not None and frame.position is not None:
            apart = float(np.dot(np.subtract(frame.position, last), normal))
            if apart < RULES["duplicate_slices"].threshold:
                groups[-1].append(frame)
                continue
        groups.append([frame])
    return [g[0] for g in groups], tuple(tuple(g) for g in groups if len(g) > 1)


def _steps(along: Array, places: Array, normal: Array) -> list[Finding]:
    """Missing or uneven slices, named by the slice number and the position along the axis nearest the normal."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    limit = max(STEP_FLOOR_MM, RULES["uneven_slices"].threshold * usual)
    bad = np.flatnonzero(np.abs(steps - usual) > limit)
    if not len(bad):
        off = float(np.abs(along - np.linspace(along[0], along[-1], len(along))).max())
        most = RULES["creeping_slices"].threshold
        text = f"steps creep: a slice lies {off:.2f} mm off the even grid, limit {most} mm"
        return [hit("creeping_slices", text)] if off > most else []
    axis = int(np.argmax(np.abs(normal)))
    ratio = steps[bad] / usual
    gaps = (np.round(ratio) >= 2) & (np.abs(ratio - np.round(ratio)) <= 0.05)
    lost = np.round(ratio).astype(int) - 1
    at = int(bad[0])
    between = f"between {'xyz'[axis]}={places[at][axis]:.1f} and {places[at + 1][axis]:.1f} mm"
    if gaps.all():
        total = len(along) + int(lost.sum())
        run = f"slice {at + 2}" if lost[0] == 1 else f"slices {at + 2}-{at + 1 + lost[0]}"
        text = f"{run} of {total} missing: step {steps[at]:.3f} mm where {usual:.3f} mm is usual, {between}"
        if len(bad) > 1:
            text += f"; {int(lost.sum())} slices missing at {len(bad)} places"
        return [hit("missing_slices", f"{text}: export the whole series again")]
    worst = int(bad[np.argmax(np.abs(steps[bad] - usual))])
    between = f"between {'xyz'[axis]}={places[worst][axis]:.1f} and {places[worst + 1][axis]:.1f} mm"
    return [hit("uneven_slices", f"{len(bad)} of {len(steps)} steps are uneven: step {steps[worst]:.3f} mm where "
                f"{usual:.3f} mm is usual (limit +-{limit:.3f} mm), {between}: export all slices again; accepted with a "
                "reason they are resampled to even steps")]  # fmt: skip


def _tilted(it: Stack, drift_mm: float) -> list[Finding]:
    tilt = it.tilt_deg
    if abs(tilt) > RULES["tilt_max"].threshold:
        return [hit("tilt_max", f"slices are sheared by {tilt:.1f} deg, limit {RULES['tilt_max'].threshold:.0f} deg")]
    name = "tilt" if abs(tilt) > RULES["tilt"].threshold else "drift"
    return [
        hit(name, f"gantry tilt {tilt:.2f} deg: slices drift {drift_mm:.1f} mm over the stack; straightened in plane")
    ]


def orientation_name(axes: Array) -> str:
    """axial, coronal or sagittal, with the angle when the normal is more than the oblique limit away."""
    normal = np.abs(axes[2])
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    order, flip = turn(axes)
    turned = np.array([-axes[o] if f else axes[o] for o, f in zip(order, flip)])
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))))
    return name if angle <= RULES["oblique"].threshold else f"{name}, oblique {angle:.1f} deg"
