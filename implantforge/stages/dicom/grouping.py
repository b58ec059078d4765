"""Frames of one input into series: by UID, then by what one volume must share, then by phase where positions repeat."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.rules import RULES

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE = 1e-3
PARALLEL = 0.999


@dataclass(frozen=True)
class Group:
    """Frames that may be one volume. siblings counts images of the same SeriesInstanceUID that went to other groups;
    of those in parallel planes, turned run another way in the plane and resized differ in matrix or spacing."""

    frames: tuple[Frame, ...]
    siblings: int = 0
    turned: int = 0
    resized: int = 0

    @property
    def uid_hash(self) -> str:
        """SHA-256 of the SeriesInstanceUID, or of the instance UIDs where the series has none."""
        uid = self.frames[0].series_uid or "|".join(sorted(f.sop_uid for f in self.frames))
        return hashlib.sha256(uid.encode()).hexdigest()


def groups(frames: list[Frame]) -> list[Group]:
    """Every candidate volume, in the order of the input's files."""
    by_uid: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_uid[(frame.series_uid, frame.modality) if frame.series_uid else ("", frame.study, frame.modality)].append(
            frame
        )
    out: list[Group] = []
    for members in by_uid.values():
        alike = _alike(members)
        scouts = sum(len(p) for p in alike if is_localizer(p[0]))
        for part in alike:
            apart = Counter(
                kin for other in alike for kin in [_kin(part[0], other[0])] * len(other) if other is not part
            )
            for p in _phases(part):
                siblings = len(members) - len(p) - (0 if is_localizer(p[0]) else scouts)
                out.append(Group(tuple(p), siblings, apart["turned"], apart["resized"]))
    return out


def is_localizer(frame: Frame) -> bool:
    """A scout or topogram, whatever it calls itself."""
    return any(word in kind for kind in frame.image_type for word in ("LOCALIZER", "SCOUT", "TOPOGRAM"))


def _kin(a: Frame, b: Frame) -> str:
    """How the slices of another part of the same series relate: turned or resized in a parallel plane, or apart."""
    if is_localizer(a) or is_localizer(b) or a.orientation is None or b.orientation is None:
        return "apart"
    one, two = np.reshape(a.orientation, (2, 3)), np.reshape(b.orientation, (2, 3))
    if abs(float(np.cross(*one) @ np.cross(*two))) < PARALLEL:
        return "apart"
    return "turned" if np.abs(one - two).max() > ORIENTATION_TOLERANCE else "resized"


def _alike(frames: list[Frame]) -> list[list[Frame]]:
    """Split by matrix, pixel spacing, orientation and scout or not."""
    out: list[list[Frame]] = []
    for frame in frames:
        for group in out:
            if _same(group[0], frame):
                group.append(frame)
                break
        else:
            out.append([frame])
    return out


def _same(a: Frame, b: Frame) -> bool:
    fixed = ("rows", "columns", "samples", "bits_allocated", "signed")
    if any(getattr(a, name) != getattr(b, name) for name in fixed) or is_localizer(a) != is_localizer(b):
        return False
    for one, two in ((a.row_spacing_mm, b.row_spacing_mm), (a.column_spacing_mm, b.column_spacing_mm)):
        if (one is None) != (two is None):
            return False
        if one is not None and two is not None and abs(one - two) > SPACING_TOLERANCE * abs(one):
            return False
    if a.orientation is None or b.orientation is None:
        return a.orientation is b.orientation
    return bool(np.abs(np.subtract(a.orientation, b.orientation)).max() <= ORIENTATION_TOLERANCE)


def _phases(frames: list[Frame]) -> list[list[Frame]]:
    """Split scans of the same place (two kernels, two phases) where one tag tells them apart; otherwise leave as is."""
    keys: tuple[Callable[[Frame], Hashable], ...] = (
        lambda f: f.kernel,
        lambda f: f.phase,
        lambda f: f.phase[0],
        lambda f: f.phase[1],
        lambda f: f.image_type,
        lambda f: f.kvp,
        lambda f: f.frame_of_reference,
    )
    if not _repeats(frames):
        return [frames]
    for key in keys:
        parts: dict[Hashable, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[key(frame)].append(frame)
        if len(parts) > 1 and all(len(p) > 1 and not _repeats(p) for p in parts.values()):
            return list(parts.values())
    return [frames]


def _repeats(frames: list[Frame]) -> bool:
    if any(f.position is None or f.orientation is None for f in frames):
        return False
    turned = np.array(frames[0].orientation)
    along = np.sort([float(np.dot(f.position, np.cross(turned[:3], turned[3:]))) for f in frames])  # type: ignore[arg-type]
    return bool((np.diff(along) < RULES["duplicate_slices"].threshold).any())
