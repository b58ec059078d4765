"""Where the slices of one series lie: order along the normal, even steps, shear, and the turn to L, P, S axes."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    shear_mm is the in-plane drift (along column index, row index) per slice; duplicates are groups at one position.
    """

    frames: tuple[Frame, ...]
    axes: Array
    spacing_mm: Array
    origin_mm: Array
    shear_mm: Array = field(default_factory=lambda: np.zeros(2))
    duplicates: tuple[tuple[Frame, ...], ...] = ()

    @property
    def tilt_deg(self) -> float:
        """Angle between the line of the slices and their normal, signed by the drift along the larger of both axes."""
        drift = self.shear_mm / self.spacing_mm[2]
        size = float(np.degrees(np.arctan(np.hypot(*drift))))
        return size if drift[int(np.argmax(np.abs(drift)))] >= 0 else -size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        return self.frames[0].columns, self.frames[0].rows, len(self.frames)


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
    findings += _steps(along, places, axes[2])
    if len(kept) < RULES["few_slices"].threshold:
        findings.append(hit("few_slices", f"{len(kept)} slices: fewer than {RULES['few_slices'].threshold:.0f}"))
    step = float(np.median(np.diff(along)))
    if not findings:
        step = float((along[-1] - along[0]) / (len(kept) - 1))
    inplane = places @ axes[:2].T
    fit = np.polyfit(along - along[0], inplane, 1)
    off = float(np.abs(inplane - np.outer(along - along[0], fit[0]) - fit[1]).max())
    if off > RULES["wandering_slices"].threshold:
        findings.append(hit("wandering_slices", f"slice positions leave the straight line by {off:.2f} mm, limit "
                            f"{RULES['wandering_slices'].threshold} mm"))  # fmt: skip
    shear = fit[0] * step
    out = Stack(
        tuple(kept), axes, np.array([first.column_spacing_mm, first.row_spacing_mm, step]), places[0], shear, duplicates
    )
    if abs(out.tilt_deg) <= RULES["tilt"].threshold:
        out = Stack(out.frames, axes, out.spacing_mm, places[0], np.zeros(2), duplicates)
    return out, findings + _tilted(out)


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
        return []
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
        return [hit("missing_slices", text)]
    worst = int(bad[np.argmax(np.abs(steps[bad] - usual))])
    between = f"between {'xyz'[axis]}={places[worst][axis]:.1f} and {places[worst + 1][axis]:.1f} mm"
    return [hit("uneven_slices", f"{len(bad)} of {len(steps)} steps are uneven: step {steps[worst]:.3f} mm where "
                f"{usual:.3f} mm is usual (limit +-{limit:.3f} mm), {between}")]  # fmt: skip


def _tilted(it: Stack) -> list[Finding]:
    tilt = it.tilt_deg
    if not tilt:
        return []
    if abs(tilt) > RULES["tilt_max"].threshold:
        return [hit("tilt_max", f"slices are sheared by {tilt:.1f} deg, limit {RULES['tilt_max'].threshold:.0f} deg")]
    top = float(np.hypot(*it.shear_mm)) * (len(it.frames) - 1)
    return [hit("tilt", f"gantry tilt {tilt:.2f} deg: slices drift {top:.1f} mm over the stack; straightened in plane")]


def orientation_name(axes: Array) -> str:
    """axial, coronal or sagittal, with the angle when the normal is more than the oblique limit away."""
    normal = np.abs(axes[2])
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    order, flip = turn(axes)
    turned = np.array([-axes[o] if f else axes[o] for o, f in zip(order, flip)])
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))))
    return name if angle <= RULES["oblique"].threshold else f"{name}, oblique {angle:.1f} deg"
