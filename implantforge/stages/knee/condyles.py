"""A femoral component as fields: joint surface from its curves, inner box of five cuts, lugs, notch or box."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from implantforge.core import Array, Field, Grid, Pose
from implantforge.geom import shapes
from implantforge.stages.knee import cover
from implantforge.stages.knee.sizes import FEMORAL_MM, Femoral, curve_points, notch_mm

STEP_MM, MARGIN_MM = 0.5, 4.0
GROOVE_DEG = (8.0, 65.0)
"""The groove of the flange is shallower than the valley between the condyles; in between it runs out over this arc."""
FLANGE_GROOVE = 0.6
LUG_LENGTH_MM, RIM_MM, SKIN_MM = 12.0, 1.5, 2.0
BOX_ROOF_DEG, BOX_WALL_MM, CAM_MM = 7.0, 3.0, 4.5
BOX_MOST_MM = 22.0
"""Widest box that bone is given up for (vendors' catalogues: 16-22 mm)."""


class Shape(NamedTuple):
    """joint: what the joint surface and the sides bound; kept: bone inside the five cuts; lugs; notch: open between the
    condyles behind; housing, hollow, cam: of a box that stabilises (None without)."""

    joint: Field
    kept: Field
    lugs: Field
    notch: Field
    housing: Field | None
    hollow: Field | None
    cam: Field | None


def aside_mm(size: Femoral) -> float:
    """Middle of a condyle from the middle of the component."""
    return 0.26 * size.ml_mm


def coronal_radius_mm(size: Femoral) -> float:
    """Radius of each condyle seen from the front."""
    return 0.6 * size.ap_mm


def lug_places(size: Femoral) -> Array:
    """(2,3) where the lugs stand on the distal cut."""
    x = 0.27 * size.ml_mm
    return np.array([[-x, 0.0, FEMORAL_MM], [x, 0.0, FEMORAL_MM]])


def box_mm(size: Femoral) -> tuple[float, float]:
    """Half the width of a box within its walls, and over them."""
    wide = min(notch_mm(size)[0] + BOX_WALL_MM, BOX_MOST_MM / 2)
    return wide - BOX_WALL_MM, wide


@lru_cache(maxsize=4)
def joint(size_key: tuple[float, bool], sign: float) -> Field:
    """The joint's side of a size as samples: the curve swept sideways, lower away from the middle of each condyle. At the
    condyles' middles the distance is exact; up their sides it is up to a sixth more."""
    from implantforge.stages.knee.sizes import femoral

    size = femoral(*size_key)
    flat = cover.plate(cover.closed(curve_points(size.radii, size.top_mm)))
    y = flat.low[0] + cover.STEP_MM * np.arange(flat.values.shape[0])
    z = flat.low[1] + cover.STEP_MM * np.arange(flat.values.shape[1])
    keep_y = (y > size.front_mm - MARGIN_MM) & (y < size.back_mm + MARGIN_MM)
    keep_z = (z > -MARGIN_MM) & (z < size.top_mm + MARGIN_MM)
    y, z, plane = y[keep_y], z[keep_z], flat.values[np.ix_(keep_y, keep_z)]
    reach = size.ml_mm / 2 + MARGIN_MM + 4.0
    x = np.arange(-reach, reach + STEP_MM, STEP_MM)
    ahead = np.degrees(np.arctan2(-y[:, None], size.radii[3] - z[None]))
    t = np.clip((ahead - GROOVE_DEG[0]) / (GROOVE_DEG[1] - GROOVE_DEG[0]), 0.0, 1.0)
    valley = 1.0 - (1.0 - FLANGE_GROOVE) * t * t * (3 - 2 * t)
    off = x[:, None] - sign * size.middle(y)[None]
    across = np.abs(off) - aside_mm(size)
    radius = coronal_radius_mm(size)
    bend = np.clip(np.abs(across), 0.0, 0.8 * radius)
    sag = radius - np.sqrt(radius**2 - bend**2) + (np.abs(across) - bend) * 0.8 / 0.6
    top = plane[None] + valley[None] * sag[:, :, None]
    side = np.abs(off)[:, :, None] - size.half_width(y[:, None], z[None])[None]
    blend = np.maximum(4.0 - np.abs(top - side), 0.0)
    values = np.maximum(top, side) + blend * blend / 16.0
    grid = Grid(Pose(np.eye(3), np.array([x[0], y[0], z[0]])), np.full(3, STEP_MM), values.shape)
    return shapes.from_samples(grid, values)


def kept(size: Femoral) -> Field:
    """Bone that the five cuts leave."""
    out: Field | None = None
    for point, normal in size.cuts.values():
        side = shapes.half_space([0.0, *point], [0.0, *normal])
        out = side if out is None else out & side
    assert out is not None
    return out


def removed(size: Femoral) -> Field:
    """Bone that the five cuts take."""
    out: Field | None = None
    for point, normal in size.cuts.values():
        side = shapes.half_space([0.0, *point], [0.0, -normal[0], -normal[1]])
        out = side if out is None else out | side
    assert out is not None
    return out


def shape(size: Femoral, sign: float, stabilised: bool, lug_mm: float) -> Shape:
    """All fields of a size for one side (sign 1 left, -1 right)."""
    up = np.array([0.0, 0.0, 1.0])
    pegs = [
        shapes.capsule(at - 2.0 * up, at + (LUG_LENGTH_MM - lug_mm / 2) * up, lug_mm / 2) for at in lug_places(size)
    ]
    half, at = notch_mm(size)
    far = size.ap_mm
    open_ = shapes.cylinder([0.0, at, -far], [0.0, at, far], half) | shapes.box(
        [0.0, at + far, 0.0], [2 * half, 2 * far, 2 * far]
    )
    narrow = size.name.endswith("N")
    skin = joint((size.ap_mm, narrow), sign)
    if not stabilised:
        return Shape(skin, kept(size), pegs[0] | pegs[1], open_, None, None, None)
    roof = FEMORAL_MM + 0.16 * size.ap_mm
    lean = np.radians(BOX_ROOF_DEG)
    front, (inner, wide) = at - half, box_mm(size)
    behind = size.cuts["posterior"][0][0]

    def hull(x: float, y: float, rise: float) -> Field:
        lid = shapes.half_space([0.0, at, roof + rise], [0.0, -np.sin(lean), np.cos(lean)])
        long = behind - y
        return shapes.box([0.0, y + long / 2, 0.0], [2 * x, long, 4 * roof]) & lid

    housing = hull(wide, front - BOX_WALL_MM, BOX_WALL_MM) & shapes.half_space([0.0, 0.0, FEMORAL_MM - 3.0], -up)
    bar = [behind - CAM_MM + 1.0, roof - 1.0]
    cam = shapes.cylinder([-wide, *bar], [wide, *bar], CAM_MM)
    return Shape(skin, kept(size), pegs[0] | pegs[1], open_, housing, hull(inner, front, 0.0), cam)
