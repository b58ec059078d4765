"""Tags of one series against each other: what one tag says twice must agree, and what no scanner writes is told."""

from __future__ import annotations

from datetime import date

import numpy as np

from implantforge.stages.dicom.geometry import Stack
from implantforge.stages.dicom.grouping import Group
from implantforge.stages.dicom.rules import RULES, Finding, hit


def age(group: Group, today: date) -> list[Finding]:
    """How old the scan is on that day, in bands of months; nothing where it has no date or one in the future."""
    known = [f.month for f in group.frames if f.month is not None]
    months = today.year * 12 + today.month - 1 - max(known) if known else -1
    limit = int(RULES["scan_age"].threshold)
    if months > limit:
        return [
            hit("scan_age", f"scanned more than {limit} months ago: the bone may have changed; confirm, or scan again")
        ]
    return [hit("scan_age_note", f"scanned {limit // 2} to {limit} months ago")] if months > limit // 2 else []


def judge(stack: Stack, group: Group) -> list[Finding]:
    """Findings on diameter, centre, pixel shape, orientation and rescale, each against another tag or custom."""
    return _siblings(group) + _square(stack) + _diameter(stack) + _centre(stack) + _posture(stack) + _slope(stack)


def _siblings(group: Group) -> list[Finding]:
    """Slices of the same series, in parallel planes, that were sorted out: part of the volume is told otherwise."""
    out = []
    if group.turned:
        out.append(hit("mixed_orientation", f"rows of {group.turned} slices of the same series run another way in the "
                       "same plane: one of both is wrong; export the series again"))  # fmt: skip
    if group.resized:
        out.append(hit("mixed_spacing", f"{group.resized} slices of the same series have another matrix, pixel spacing "
                       "or encoding: choose one reconstruction and export it alone"))  # fmt: skip
    return out


def _square(stack: Stack) -> list[Finding]:
    across, down = (float(v) for v in stack.spacing_mm[:2])
    if max(across, down) <= RULES["pixel_not_square"].threshold * min(across, down):
        return []
    return [hit("pixel_not_square", f"pixels of {across:.3f} mm along the row by {down:.3f} mm across: CT pixels are "
                "square; make sure that the two are not swapped")]  # fmt: skip


def _diameter(stack: Stack) -> list[Finding]:
    """Reconstruction Diameter is the side of the whole picture: it catches a spacing that was scaled or swapped."""
    frame = stack.frames[0]
    if not frame.diameter_mm or frame.diameter_mm <= 0:
        return []
    sides = np.array([frame.columns, frame.rows]) * stack.spacing_mm[:2]
    off = float(np.abs(sides / frame.diameter_mm - 1).min())
    if off <= RULES["diameter_disagrees"].threshold:
        return []
    return [hit("diameter_disagrees", f"the picture measures {sides[0]:.1f} x {sides[1]:.1f} mm by its pixel spacing, "
                f"{frame.diameter_mm:.1f} mm by its reconstruction diameter: cropped, or the spacing is wrong")]  # fmt: skip


def _centre(stack: Stack) -> list[Finding]:
    """Reconstruction Target Center lies in the middle of the picture: it catches a turned orientation or a shift."""
    worst = 0.0
    for frame in stack.frames:
        if frame.centre_mm is None or frame.position is None or frame.orientation is None:
            continue
        row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
        half = np.array([frame.columns, frame.rows]) / 2 * stack.spacing_mm[:2]
        off = np.array(frame.position) + row * half[0] + column * half[1] - np.array(frame.centre_mm)
        worst = max(worst, float(np.hypot(off @ row, off @ column)))
    if worst <= RULES["centre_disagrees"].threshold:
        return []
    return [hit("centre_disagrees", f"the picture's middle lies {worst:.1f} mm from where its reconstruction centre "
                f"says (limit {RULES['centre_disagrees'].threshold:.0f} mm): position or orientation is wrong")]  # fmt: skip


def _posture(stack: Stack) -> list[Finding]:
    """Axial pictures as scanners make them: head first is seen from the feet, and supine has its back down."""
    frame = stack.frames[0]
    assert frame.orientation is not None
    where, normal, down = frame.patient_position.upper(), float(stack.axes[2][2]), float(frame.orientation[4])
    if abs(normal) < 0.8 or len(where) < 3:
        return []
    mirrored = where.startswith("HF") and normal < 0
    upended = where in ("HFS", "FFS") and down < 0.7
    if not mirrored and not upended:
        return []
    what = "seen from the head" if mirrored else "not with the back down"
    return [hit("orientation_unusual", f"patient position {where} but the picture is {what}: compare the side with the "
                "patient before use")]  # fmt: skip


def _slope(stack: Stack) -> list[Finding]:
    slope = stack.frames[0].slope
    if not slope or slope < 0:
        return [hit("rescale_odd", f"rescale slope {slope:g}: numbers run backwards")] if slope else []
    times = max(slope, 1 / slope)
    if abs(times - round(times)) < 1e-6 * times and times <= RULES["rescale_odd"].threshold:
        return []
    return [hit("rescale_odd", f"rescale slope {slope:g}: a CT is stored in steps of 1 HU, seldom 0.5 or 10; compare HU "
                "of fat (-100) and muscle (50)")]  # fmt: skip
