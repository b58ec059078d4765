"""Shapes of femoral stems as data: families, sizes, necks off the shelf, and the body each makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import gamma

from implantforge.core import Array

SIZES = {n: (9.0 + n, 112.0 + 3.0 * n) for n in range(1, 17)}
"""size -> (width WAIST_MM under the resection, length from there to the tip, mm). 1 mm steps; 115-160 mm long.
Named at one depth, a canal asks for the same size whatever the taper and the length."""
WAIST_MM = 60.0
SHOULDER_MM = 12.0


class Style(NamedTuple):
    """A body shape made in every size: included tapers, depth over width at the waist, length over the size's own, and
    the radius of the arc that flares toward the calcar."""

    taper_ml_deg: float
    taper_ap_deg: float
    depth_ratio: float
    length_ratio: float
    calcar_mm: float


class Family(NamedTuple):
    """Styles tried in every size; other calcar arcs are tried on the best of them, for they matter above the canal only.
    filled: a canal counts as filled by `area`, or by `width` where the body is flat by design or ends in the metaphysis.
    lengths_mm: shortest and longest, resection to tip."""

    styles: tuple[Style, ...]
    other_calcars_mm: tuple[float, ...]
    filled: str
    lengths_mm: tuple[float, float] = (90.0, 180.0)


def _styles(ml: tuple[float, ...], ap: tuple[float, ...], depth: tuple[float, ...], length: tuple[float, ...],
            calcar: float) -> tuple[Style, ...]:  # fmt: skip
    return tuple(Style(a, b, c, d, calcar) for a, b, c, d in product(ml, ap, depth, length))


FAMILIES: Mapping[str, Family] = {
    "fit and fill": Family(_styles((3.0, 5.0, 7.0, 9.0), (2.0, 4.0, 6.0), (0.9, 1.05, 1.2), (1.0, 0.85), 90.0),
                           (60.0, 140.0), "area"),
    "taper wedge": Family(_styles((3.0, 5.0, 7.0, 9.0), (1.0, 2.0), (0.6, 0.7, 0.8), (1.0, 0.85), 90.0),
                          (60.0, 140.0), "width"),
    "short": Family(_styles((5.0, 7.0, 9.0), (2.0, 4.0, 6.0), (0.9, 1.05, 1.2), (0.75, 0.65), 60.0),
                    (45.0, 90.0), "width", (80.0, 120.0)),
}  # fmt: skip
"""Sections fill the canal front to back (fit and fill); a flat wedge holds by its sides; a short stem ends in the
metaphysis, 80-120 mm long."""


class Neck(NamedTuple):
    """A neck off the shelf: offset (mm) of size 1 and what each size adds, height of the head above the origin at the
    offset of the standard neck by foot and angle."""

    offset_mm: float
    each_mm: float
    more_mm: float


NECKS = {"standard": Neck(34.0, 0.7, 0.0), "lateral": Neck(34.0, 0.7, 6.0)}
"""The lateral one reaches 6 mm further at the same height (pairs differ by 5-8 mm)."""
NECK_FOOT_MM, NECK_ANGLE_DEG = -12.0, 132.0


def off_the_shelf(name: str, size: int) -> tuple[float, float, float, float]:
    """A neck's offset, head height, foot (mm, local) and angle to the stem's axis (deg) in one size, head of length M."""
    neck = NECKS[name]
    plain = neck.offset_mm + neck.each_mm * (size - 1)
    height = NECK_FOOT_MM + plain / float(np.tan(np.radians(180.0 - NECK_ANGLE_DEG)))
    offset = plain + neck.more_mm
    return offset, height, NECK_FOOT_MM, 180.0 - float(np.degrees(np.arctan2(offset, height - NECK_FOOT_MM)))


@dataclass(frozen=True, eq=False)
class Body:
    """Section curves along local z (mm): half-widths toward medial and lateral, half-depth; exponent of the sections."""

    z: Array
    medial: Array
    lateral: Array
    depth: Array
    exponent: float

    def at(self, z_mm: Array) -> tuple[Array, Array, Array]:
        """Half-widths (medial, lateral, depth) at heights z."""
        return tuple(np.interp(z_mm, self.z, row) for row in (self.medial, self.lateral, self.depth))  # type: ignore[return-value]

    def area_mm2(self, z_mm: float) -> float:
        """Area of one section: four superellipse quadrants, a b G(1+1/n)^2 / G(1+2/n) each."""
        medial, lateral, depth = self.at(np.array([z_mm]))
        n = self.exponent
        return float(2.0 * depth[0] * (medial[0] + lateral[0]) * gamma(1 + 1 / n) ** 2 / gamma(1 + 2 / n))

    def width_mm(self, z_mm: float) -> float:
        """Width of one section across the stem."""
        medial, lateral, _ = self.at(np.array([z_mm]))
        return float(medial[0] + lateral[0])


def body(width_mm: float, length_mm: float, style: Style, exponent: float) -> Body:
    """The tapered body from tip (z = -length) to shoulder: straight tapers about its waist, where it is width_mm wide, and
    an arc that flares toward the calcar."""
    up, waist = np.linspace(0.0, length_mm + SHOULDER_MM, 80), length_mm - WAIST_MM
    half = width_mm / 2.0 + (up - waist) * np.tan(np.radians(style.taper_ml_deg / 2.0))
    depth = style.depth_ratio * width_mm / 2.0 + (up - waist) * np.tan(np.radians(style.taper_ap_deg / 2.0))
    start = length_mm - 62.0
    run = np.clip(up - start, 0.0, 0.75 * style.calcar_mm)
    flare = style.calcar_mm - np.sqrt(style.calcar_mm**2 - run**2)
    half = np.maximum(half, 2.5)
    return Body(up - length_mm, half + flare, half, np.maximum(depth, 2.5), exponent)


def surface_points(stem: Body, cut: Array, spacing_mm: float = 2.0, around: int = 32) -> Array:
    """Points (n,3) on the body below the resection plane {p . cut = 0}, about spacing_mm apart; the tip's bullet too."""
    turns = np.linspace(0.0, 2.0 * np.pi, around, endpoint=False)
    low = stem.z[0]
    heights = np.concatenate([low + np.array([0.3, 1.0, 2.0, 3.5]), np.arange(low + 5.0, stem.z[-1], spacing_mm)])
    medial, lateral, depth = stem.at(heights)
    tip = 0.25 * (stem.medial[0] + stem.lateral[0]) + 0.5 * stem.depth[0]
    round_off = np.sqrt(np.clip(1.0 - np.clip(1.0 - (heights - low) / tip, 0.0, 1.0) ** 2, 0.0, 1.0))
    power = 2.0 / stem.exponent
    c, s = np.cos(turns), np.sin(turns)
    unit_x, unit_y = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    width = np.where(unit_x[None, :] > 0, medial[:, None], lateral[:, None]) * round_off[:, None]
    x, y = width * unit_x, (depth * round_off)[:, None] * unit_y
    points = np.stack([x, y, np.broadcast_to(heights[:, None], x.shape)], axis=-1).reshape(-1, 3)
    return points[points @ cut < -0.5]
