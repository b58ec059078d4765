"""A flat face of cut bone and an outline on it: what of the face is covered, what of the outline hangs over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from implantforge.core import Array, GeometryError, Mesh, Pose
from implantforge.geom import sections

STEP_MM, MARGIN_MM = 0.5, 12.0


@dataclass(frozen=True, eq=False)
class Plate:
    """Signed distance (i,j) mm to closed curves in a plane, negative inside; sample (i,j) lies at low + STEP_MM (i,j)."""

    low: Array
    values: NDArray[np.float64]

    def __call__(self, points: Array) -> Array:
        """Distance (n,) at points (n,2); beyond the samples the border's plus the distance to it."""
        index = (points - self.low) / STEP_MM
        inner = np.clip(index, 0, np.array(self.values.shape) - 1)
        beyond = STEP_MM * np.linalg.norm(index - inner, axis=1)
        return np.asarray(map_coordinates(self.values, inner.T, order=1, mode="nearest")) + beyond

    @property
    def points(self) -> Array:
        """Where the samples lie (n,2)."""
        return self.low + STEP_MM * np.indices(self.values.shape).reshape(2, -1).T

    @property
    def area_mm2(self) -> float:
        """Area inside, a sample on the border counting in part."""
        return float(np.clip(0.5 - self.values / STEP_MM, 0.0, 1.0).sum()) * STEP_MM**2

    @property
    def middle(self) -> Array:
        """Centroid (2,)."""
        share = np.clip(0.5 - self.values / STEP_MM, 0.0, 1.0).ravel()
        return np.asarray(share @ self.points / share.sum())


def plate(segments: Array) -> Plate:
    """The plate bounded by segments (m,2,2) mm that close. GeometryError without any."""
    if len(segments) < 3:
        raise GeometryError(f"plate: needs a closed outline, got {len(segments)} segments")
    flat = segments.reshape(-1, 2)
    low = flat.min(axis=0) - MARGIN_MM
    shape = np.ceil((flat.max(axis=0) + MARGIN_MM - low) / STEP_MM).astype(int) + 1
    a, b = segments[:, 0], segments[:, 1]
    count = np.maximum(np.ceil(np.linalg.norm(b - a, axis=1) / 0.02).astype(int), 1)
    owner = np.repeat(np.arange(len(a)), count)
    share = (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)) / count[owner]
    dense = a[owner] + share[:, None] * (b - a)[owner]
    at = low + STEP_MM * np.indices(shape).reshape(2, -1).T
    away = cKDTree(dense).query(at)[0].reshape(shape)
    # parity of crossings along the second axis, row by row of the first
    x = low[0] + STEP_MM * np.arange(shape[0]) + 1.3e-5
    y = low[1] + STEP_MM * np.arange(shape[1])
    inside = np.zeros(tuple(shape), bool)
    for i, level in enumerate(x):
        cross = (a[:, 0] > level) != (b[:, 0] > level)
        p, q = a[cross], b[cross]
        hits = np.sort(p[:, 1] + (level - p[:, 0]) / (q[:, 0] - p[:, 0]) * (q[:, 1] - p[:, 1]))
        inside[i] = np.searchsorted(hits, y) % 2 == 1
    return Plate(low, np.where(inside, -away, away))


def closed(points: Array) -> Array:
    """Segments (n,2,2) of a closed outline (n,2)."""
    return np.stack([points, np.roll(points, -1, axis=0)], axis=1)


def face(mesh: Mesh, pose: Pose) -> Plate:
    """The section of a bone by the x-y plane of a pose, in that plane's coordinates. GeometryError when it misses."""
    segments, _ = sections.section(mesh, pose.origin_mm, pose.rotation[:, 2])
    if len(segments) < 3:
        raise GeometryError("cut: the plane does not meet the bone")
    return plate(pose.inverse_apply(segments.reshape(-1, 3))[:, :2].reshape(-1, 2, 2))


class Laid(NamedTuple):
    """Where an outline lies on a face: shift (2,) and turn; its largest overhang, mm; where (2,); share covered, %."""

    shift_mm: Array
    turn_deg: float
    overhang_mm: float
    worst_mm: Array
    coverage_pct: float


def placed(outline: Array, shift: Array, turn_deg: float) -> Array:
    """The outline (n,2) turned about its origin, then shifted."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return outline @ np.array([[c, s], [-s, c]]) + shift


def lay(bone: Plate, outline: Array, start: Array, turn_deg: float = 0.0) -> Laid:
    """The shift near `start` at which least of the outline hangs over the bone. Deterministic (Nelder-Mead on a soft
    maximum, then on the maximum itself)."""

    def soft(shift: Array) -> float:
        over = bone(placed(outline, shift, turn_deg))
        top = over.max()
        return float(top + np.log(np.exp(3.0 * (over - top)).mean()) / 3.0)

    def hard(shift: Array) -> float:
        return float(bone(placed(outline, shift, turn_deg)).max())

    best = np.asarray(start, float)
    for cost, reach in ((soft, 2.0), (hard, 0.4)):
        simplex = np.vstack([best, best + [reach, 0.3 * reach], best + [-0.3 * reach, reach]])
        options = {"initial_simplex": simplex, "maxiter": 80, "xatol": 0.005, "fatol": 0.002}
        best = minimize(cost, best, method="Nelder-Mead", options=options).x
    return seen(bone, outline, best, turn_deg)


def seen(bone: Plate, outline: Array, shift: Array, turn_deg: float = 0.0) -> Laid:
    """What an outline covers and how far it hangs over at a given place."""
    at = placed(outline, shift, turn_deg)
    over = bone(at)
    share = np.clip(0.5 - bone.values.ravel() / STEP_MM, 0.0, 1.0)
    some = share > 0
    local = placed(bone.points[some] - shift, np.zeros(2), -turn_deg)
    own = np.clip(0.5 - of_outline(outline)(local) / STEP_MM, 0.0, 1.0)
    covered = 100.0 * float((share[some] * own).sum() / share.sum())
    return Laid(np.asarray(shift, float), turn_deg, float(over.max()), at[int(over.argmax())], covered)


@lru_cache(maxsize=64)
def _known(outline: bytes) -> Plate:
    """The plate of an outline that is asked again and again."""
    return plate(closed(np.frombuffer(outline).reshape(-1, 2)))


def of_outline(outline: Array) -> Plate:
    """The plate that a closed outline (n,2) bounds, remembered."""
    return _known(np.ascontiguousarray(outline, np.float64).tobytes())
