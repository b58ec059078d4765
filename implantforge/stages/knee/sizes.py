"""Sizes of the knee family as data, and the curves that every size is drawn from. Our own series, no maker's."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array

FEMORAL_AP_MM = tuple(range(52, 77, 2))
"""Posterior joint surface to the outer face of the flange at its top (vendors' catalogues: 52-76 mm by 2-4)."""
NARROW_MM = 4.0
"""What the narrow variant is narrower by (vendors' catalogues: 2-5 mm)."""
FEMORAL_MM = 9.0
"""Distal and posterior thickness of the femoral component (vendors' catalogues: 8-9 mm, equal)."""
FLANGE_MM, DIVERGENCE_DEG, CHAMFER_MM = 6.0, 5.0, 8.5
TRAY_ML_MM = (58.0, 61.0, 64.0, 67.0, 70.0, 73.0, 76.0, 79.0, 82.0, 85.0)
"""Fact 3.4: 58-85 mm wide, 38-56 mm deep."""
INSERTS_MM = (8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 16.0, 18.0, 20.0)
DISH_MM = 2.0
"""What an insert is thinner by under the condyles: 8 mm leaves 6 mm, the least accepted."""
PATELLA_MM = {26.0: 7.5, 29.0: 8.0, 32.0: 8.5, 35.0: 9.0, 38.0: 9.5, 41.0: 10.0}
"""Button diameter -> thickness; three pegs of 5 x 6 mm. Data only: buttons are polyethylene."""
PATELLA_LEFT_MM = 12.0
"""Bone that a patella keeps under its button at the least."""
FIRST_DEG, SECOND_DEG, LAST_DEG = 20.0, 50.0, 128.0
"""Flexion at which the distal arc passes into the middle one, that into the posterior one, and where this ends."""


class Femoral(NamedTuple):
    """One femoral size in its own sagittal plane (y posterior, z up, origin on the most distal joint surface), mm.

    radii: distal, middle, posterior and anterior arcs; back_mm, front_mm: posterior and anterior limits; tip_mm, top_mm:
    heights of the posterior tip and of the flange's top; cuts: name -> (point, unit normal out of the bone) in (y, z).
    """

    name: str
    ap_mm: float
    ml_mm: float
    radii: tuple[float, float, float, float]
    back_mm: float
    front_mm: float
    tip_mm: float
    top_mm: float
    cuts: dict[str, tuple[tuple[float, float], tuple[float, float]]]

    def at(self, cut: str, along_mm: Array | float) -> Array:
        """(n,2) points (y, z) of a cut face, along_mm from its point toward anterior, or upward on upright ones."""
        point, normal = self.cuts[cut]
        way = np.array([normal[1], -normal[0]])
        way = way * (1.0 if way[1] > 0.3 or (abs(way[1]) <= 0.3 and way[0] < 0) else -1.0)
        return np.array(point) + np.asarray(along_mm)[..., None] * way

    def corners(self) -> Array:
        """(6,2) the inner outline (y, z): posterior top, both chamfers' ends, anterior top."""
        order = ("posterior", "posterior chamfer", "distal", "anterior chamfer", "anterior")
        lines = [(np.array(p), np.array(n)) for p, n in (self.cuts[name] for name in order)]
        inner = [np.linalg.solve(np.stack([a[1], b[1]]), [a[0] @ a[1], b[0] @ b[1]]) for a, b in pairwise(lines)]
        up = lines[-1][1]
        lean = (self.top_mm - inner[-1][1]) * up[1] / -up[0]
        first = np.array([inner[0][0], self.tip_mm])
        return np.array([first, *inner, [inner[-1][0] + lean, self.top_mm]])

    def half_width(self, y: Array | float, z: Array | float) -> Array:
        """Half the width at places of the sagittal plane: full behind, narrower up front and toward the hind tips, as the
        bone is."""
        tip = np.clip((np.asarray(z) - self.tip_mm) / TIP_ROUND_MM + 1.0, 0.0, 1.0) * (np.asarray(y) > 0)
        share = np.interp(np.asarray(y) / self.ap_mm, *_WIDTH) * (1.0 - TIP_NARROWS * tip * tip)
        return np.asarray(0.5 * self.ml_mm * share)

    def middle(self, y: Array | float) -> Array:
        """How far lateral the middle of the width lies: the groove runs lateral of the condyles' middle."""
        return np.asarray(self.ap_mm * np.interp(np.asarray(y) / self.ap_mm, *_MIDDLE))


_WIDTH = (
    [-0.56, -0.46, -0.38, -0.26, -0.18, -0.11, -0.04, 0.04, 0.17],
    [0.54, 0.59, 0.66, 0.75, 0.785, 0.855, 0.925, 0.965, 0.99],
)
TIP_ROUND_MM, TIP_NARROWS = 14.0, 0.12
_MIDDLE = ([-0.45, -0.35, -0.2, -0.1], [0.065, 0.045, 0.012, 0.0])
"""Shares of width and depth by depth: means of 24 resected femora drawn from the shape model, taken in a little in front."""


def aspect(ap_mm: float) -> float:
    """Width over the depth of the bone within, declining with size (catalogues: 1.25-1.40, of the resected bone)."""
    return float(np.interp(ap_mm, [52.0, 76.0], [1.40, 1.26]))


@lru_cache(maxsize=64)
def femoral(ap_mm: float, narrow: bool = False) -> Femoral:
    """The curves of a femoral size: arcs of 30-45, 22-28 and 18-22 mm; the anterior arc closes the depth."""
    share = (ap_mm - 52.0) / 24.0
    distal, middle, posterior = 30.5 + 14.0 * share, 22.0 + 6.0 * share, 18.0 + 4.0 * share
    one, two, last, lean = np.radians([FIRST_DEG, SECOND_DEG, LAST_DEG, DIVERGENCE_DEG])
    back = distal * np.sin(one) + middle * (np.sin(two) - np.sin(one)) + posterior * (1.0 - np.sin(two))
    height = distal * (1 - np.cos(one)) + middle * (np.cos(one) - np.cos(two)) + posterior * np.cos(two)
    tip, top = height + posterior * np.sin(last - np.pi / 2), 0.72 * ap_mm
    # the flange's face is tangent to the anterior arc and leans forward, up to where the depth is measured
    slope = np.tan(lean)
    anterior = (ap_mm - back - top * slope) / (np.cos(lean) - (1.0 - np.sin(lean)) * slope)
    front = back - ap_mm
    cuts = {
        "distal": ((0.0, FEMORAL_MM), (0.0, -1.0)),
        "posterior": ((back - FEMORAL_MM, height), (1.0, 0.0)),
        "anterior": ((front + FLANGE_MM / np.cos(lean), top), (-np.cos(lean), -np.sin(lean))),
    }
    root = np.sqrt(0.5)
    outer = curve_points((distal, middle, posterior, anterior), top)
    for name, way in (("posterior chamfer", np.array([root, -root])), ("anterior chamfer", np.array([-root, -root]))):
        reach = float((outer @ way).max()) - CHAMFER_MM
        near = outer[int((outer @ way).argmax())]
        point = near + (reach - near @ way) * way
        cuts[name] = ((float(point[0]), float(point[1])), (float(way[0]), float(way[1])))
    ml = (ap_mm - FEMORAL_MM - FLANGE_MM) * aspect(ap_mm) - (NARROW_MM if narrow else 0.0)
    return Femoral(f"{ap_mm:.0f}{'N' if narrow else ''}", ap_mm, ml, (distal, middle, posterior, float(anterior)),
                   float(back), float(front), float(tip), float(top), cuts)  # fmt: skip


def notch_mm(size: Femoral) -> tuple[float, float]:
    """Half-width of the notch and where (y) its round end stands."""
    half = 0.125 * size.ml_mm
    return half, 0.04 * size.ap_mm + half


def curve_points(radii: tuple[float, float, float, float], top_mm: float, step_deg: float = 0.5) -> Array:
    """(n,2) the outer curve (y, z) from the posterior tip over the distal point to the flange's top."""
    distal, middle, posterior, anterior = radii
    ends = np.radians([0.0, FIRST_DEG, SECOND_DEG, LAST_DEG])
    rows, y, z = [], 0.0, 0.0
    for radius, a, b in zip((distal, middle, posterior), ends, ends[1:]):
        t = np.linspace(a, b, int(np.ceil(np.degrees(b - a) / step_deg)) + 1)
        rows.append(np.stack([y + radius * (np.sin(t) - np.sin(a)), z + radius * (np.cos(a) - np.cos(t))], axis=1))
        y, z = rows[-1][-1]
    behind = np.concatenate([rows[0], rows[1][1:], rows[2][1:]])[::-1]
    lean = np.radians(DIVERGENCE_DEG)
    t = np.linspace(0.0, np.pi / 2 - lean, int(90 / step_deg))[1:]
    ahead = np.stack([-anterior * np.sin(t), anterior * (1.0 - np.cos(t))], axis=1)
    rise = np.linspace(0.0, top_mm - ahead[-1][1], 40)[1:]
    flange = ahead[-1] + rise[:, None] * np.array([-np.tan(lean), 1.0])
    return np.concatenate([behind, ahead, flange])


class Tray(NamedTuple):
    """One tray: its width and depth, its outline (n,2) mm for a left knee (x lateral, y posterior, middle at 0)."""

    name: str
    ml_mm: float
    ap_mm: float
    outline: Array


def tray_depth(ml_mm: float) -> float:
    """Depth of the medial side of a tray of this width."""
    return float(np.interp(ml_mm, [58.0, 85.0], [41.0, 56.0]))


@lru_cache(maxsize=32)
def tray(ml_mm: float, handed: float = 1.0) -> Tray:
    """The outline of a tray: a D whose medial side is deeper, hollowed behind for the cruciate; mirrored for a right
    knee (handed -1)."""
    ap = tray_depth(ml_mm)
    turn = np.linspace(0.0, 2.0 * np.pi, 361)[:-1]
    radius = np.interp(np.degrees(turn), *_TRAY, period=360.0)
    radius = _smooth(radius, 7)
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) * np.array([ml_mm, ap]) / (high - low)
    points = points * [handed, 1.0]
    points = points if handed > 0 else points[::-1]
    points.setflags(write=False)
    return Tray(f"{ml_mm:.0f}", ml_mm, ap, points)


_TRAY = (
    [10.0 * i for i in range(36)],
    [1.0, 1.01, 1.035, 1.08, 1.125, 1.145, 1.105, 1.0, 0.89, 0.84, 0.85, 0.92, 1.01, 1.035, 1.035, 1.03, 1.02, 1.005,
     0.99, 0.98, 0.98, 0.99, 1.0, 1.01, 1.02, 1.025, 1.01, 0.985, 0.96, 0.94, 0.925, 0.93, 0.955, 0.985, 1.0, 1.0],
)  # fmt: skip
"""Turn from lateral toward posterior -> reach in halves of the box: mean of 24 tibiae drawn from the shape model, resected
9 mm below the higher plateau, its hindmost corner taken in."""


def _smooth(values: Array, reach: int) -> NDArray[np.float64]:
    """Running mean around a closed curve."""
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    return np.convolve(np.concatenate([values[-reach:], values, values[:reach]]), kernel, mode="valid")


class Button(NamedTuple):
    """A patella button: diameter, thickness, and the bone it leaves of the patella given."""

    diameter_mm: float
    thickness_mm: float
    bone_left_mm: float


def button(width_mm: float, thickness_mm: float) -> Button | None:
    """The widest button 2 mm within a patella that restores its thickness over PATELLA_LEFT_MM of bone; None without."""
    rows = [Button(d, t, thickness_mm - t) for d, t in PATELLA_MM.items()
            if d <= width_mm - 2.0 and thickness_mm - t >= PATELLA_LEFT_MM]  # fmt: skip
    return max(rows, default=None)
