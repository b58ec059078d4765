"""Which size of a stem family a canal asks for, and which of its bodies fills it best where it comes to rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from implantforge.core import Array, Field, Pose
from implantforge.stages import fit as seating
from implantforge.stages.fit.stems import FAMILIES, SIZES, Style, body, surface_points

SOFT = 6.0
"""Points of fill by which a style counts a third in the size."""
REACHES = ((0.3, 0.2), (1.0, 0.6), (6.0, 4.0))
"""How far (mm, deg) a body of the size chosen may rest from the seat that the styles share; the next where none goes in."""
TRIED = 6
"""Styles whose depth is fitted at the size chosen."""
DEPTH_STEP, DEPTHS, STRIDE = 0.01, (0.6, 1.35), 4
"""Depth over width of a body: steps and ends; steps taken at once in looking for the last that goes in."""


class Asked(NamedTuple):
    """What a search is held to: the family, a size or None, a length (mm) or None, the sections' exponent, the overlap
    with the wall wanted and accepted (mm)."""

    family: str
    size: int | None
    length_mm: float | None
    exponent: float
    press_fit_mm: float
    overlap_limit_mm: float


class Canal(NamedTuple):
    """Where a stem goes: the wall (a field, negative inside), the pose it starts from, the head it is turned to, the
    normal of the neck cut in the stem's axes, how far (mm, deg) it may move from the start."""

    wall: Field
    start: Pose
    head_mm: Array
    cut: Array
    reach: tuple[float, float] = REACHES[-1]


def search(asked: Asked, canal: Canal) -> list[dict[str, Any]]:
    """Seated bodies, the best first: those of the canal's size by fill, then each style's own largest by fill.

    The size is the mean of what the styles could just be (`agreed`), so that no one style's border between two sizes
    decides; the seat is the mean of where they came to rest (`common`), so that of two bodies that fill alike and would
    rest apart neither decides. There the depth is fitted to the styles that fill best at that size, and other calcar
    arcs are tried on those. Empty when nothing fits. Deterministic.
    """
    family, rows, near = FAMILIES[asked.family], [], 6
    for style in family.styles:
        rows += _largest(style, asked, canal, near)
        near = rows[-1]["size"] if rows else near
    if not rows:
        return []
    agreed, seat = size_of(rows), common(rows, canal.head_mm)
    size = asked.size if asked.size is not None else int(np.clip(np.floor(agreed + 0.5), min(SIZES), max(SIZES)))
    made: list[dict[str, Any]] = []
    for reach in REACHES:
        held = canal._replace(start=seat, reach=reach)
        made = made or [found for row in _hopeful(rows, size) for found in _deepest(row, size, asked, held)]
    for row in _best(made, size)[:4]:
        for calcar in family.other_calcars_mm:
            style = row["style"]._replace(calcar_mm=calcar)
            other = _rested(size, style, asked, canal._replace(start=seat, reach=row["reach"]))
            if other["overlap_mm"] <= asked.overlap_limit_mm:
                made.append(_scored(other, asked, canal.wall))
    others = [row for row in rows if row["size"] != size]
    return [row | {"agreed": agreed} for row in _best(made + others, size)]


def common(rows: list[dict[str, Any]], head_mm: Array) -> Pose:
    """The seat the styles share: the mean of their axes, a good style counting more, turned to the head."""
    at = np.array([row["pose"].apply(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -100.0]])) for row in rows])
    top, low = np.einsum("n,nij->ij", _weights(rows), at)
    z = (top - low) / np.linalg.norm(top - low)
    x = head_mm - top
    x -= z * (x @ z)
    x /= np.linalg.norm(x)
    return Pose(np.stack([x, np.cross(z, x), z], axis=1), top)


def size_of(rows: list[dict[str, Any]]) -> float:
    """The size of the canal: the mean of what each style could just be, a good one counting more. A style is judged by
    the fill it would have if sizes were not in steps."""
    return float(_weights(rows) @ np.array([row["could_be"] for row in rows]))


def _weights(rows: list[dict[str, Any]]) -> Array:
    fill = np.array([_stepless(row) for row in rows])
    weight = np.exp((fill - fill.max()) / SOFT)
    return weight / weight.sum()


def _stepless(row: dict[str, Any]) -> float:
    """Fill score of a style at the very width that would just go in: width and depth grow alike."""
    return float(row["score"] * (_width(row["could_be"]) / _width(row["size"])) ** 2)


def _width(size: float) -> float:
    return float(np.interp(size, list(SIZES), [width for width, _ in SIZES.values()]))


def _hopeful(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The styles that promise most at a size: what width is lost is lost, depth is made up for."""
    return sorted(rows, key=lambda row: (-round(_stepless(row) * min(_width(size) / _width(row["could_be"]), 1.0), 6),
                                         row["style"]))[:TRIED]  # fmt: skip


def _best(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["size"] != size, -round(row["score"], 6), row["size"], row["style"]))


def _deepest(row: dict[str, Any], size: int, asked: Asked, canal: Canal) -> list[dict[str, Any]]:
    """The style of a row in a size, as deep as goes in, to DEPTH_STEP of depth over width; empty when none goes in."""
    low, high = (round(end / DEPTH_STEP) for end in DEPTHS)

    def made(step: int) -> dict[str, Any] | None:
        style = row["style"]._replace(depth_ratio=round(step * DEPTH_STEP, 2))
        found = _rested(size, style, asked, canal)
        return found if found["overlap_mm"] <= asked.overlap_limit_mm else None

    guess = row["style"].depth_ratio * _width(row["could_be"]) / _width(size)
    step = int(np.clip(np.floor(guess / DEPTH_STEP + 1e-9), low, high))
    kept, over = made(step), high + 1
    if kept is None:
        while kept is None and step > low:
            over, step = step, max(step - STRIDE, low)
            kept = made(step)
    else:
        while step < high:
            deeper = made(min(step + STRIDE, high))
            if deeper is None:
                over = min(step + STRIDE, high)
                break
            step, kept = min(step + STRIDE, high), deeper
    while kept is not None and over - step > 1:
        middle = (step + over) // 2
        deeper = made(middle)
        step, over, kept = (step, middle, kept) if deeper is None else (middle, over, deeper)
    return [] if kept is None else [_scored(kept, asked, canal.wall)]


def _largest(style: Style, asked: Asked, canal: Canal, near: int) -> list[dict[str, Any]]:
    """The largest size of one style that seats within the overlap limit, looked for up or down from a size that is near
    it (overlap grows with size); `could_be` is that size and the share of the step to the next that would still go in."""
    sizes = [asked.size] if asked.size is not None else sorted(SIZES)
    at = sizes.index(near) if near in sizes else 0
    kept, over = None, None
    row = _rested(sizes[at], style, asked, canal)
    step = 1 if row["overlap_mm"] <= asked.overlap_limit_mm else -1
    rest = sizes[at + 1 :] if step > 0 else sizes[:at][::-1]
    for size in (*rest, None):
        if row["overlap_mm"] <= asked.overlap_limit_mm:
            kept = row
        else:
            over = row
        if size is None or (kept and over):
            break
        row = _rested(size, style, asked, canal._replace(start=kept["pose"] if kept else canal.start))
    if not kept:
        return []
    share = 0.5
    if over and np.isfinite(over["overlap_mm"]):
        share = (asked.overlap_limit_mm - kept["overlap_mm"]) / (over["overlap_mm"] - kept["overlap_mm"])
    return [_scored(kept | {"could_be": kept["size"] + min(share, 0.999)}, asked, canal.wall)]


def _rested(size: int, style: Style, asked: Asked, canal: Canal) -> dict[str, Any]:
    """One size of one style where it comes to rest, with the mean overlap of its deepest points: over the limit where the
    deepest passes LOCAL_MM, infinite where it leaves the scan."""
    width, length = SIZES[size]
    length = asked.length_mm or length * style.length_ratio
    stem = body(width, length, style, asked.exponent)
    coarse = surface_points(stem, canal.cut, 4.0, 20)
    seat = seating.seat(coarse, canal.wall, canal.start, press_mm=asked.press_fit_mm, reach_mm=canal.reach[0],
                        reach_deg=canal.reach[1])  # fmt: skip
    pose = seating.turned_to(seat.pose, canal.head_mm)
    beyond = seating.overlap_mm(canal.wall, pose.apply(surface_points(stem, canal.cut)), asked.overlap_limit_mm)
    return {"size": size, "style": style, "width_mm": width, "length_mm": length, "pose": pose, "overlap_mm": beyond,
            "reach": canal.reach}  # fmt: skip


def _scored(row: dict[str, Any], asked: Asked, wall: Field) -> dict[str, Any]:
    """The row with canal fill (by area, or by width) at a quarter, half and four fifths of the length, and the score it
    is ranked by."""
    stem = body(row["width_mm"], row["length_mm"], row["style"], asked.exponent)
    fills = {}
    for name, share in (("proximal", 0.25), ("mid", 0.5), ("distal", 0.8)):
        z = -share * row["length_mm"]
        area, width = seating.section(wall, row["pose"], z)
        fills[f"fill_{name}_pct"] = 100.0 * stem.area_mm2(z) / area if area else 0.0
        fills[f"width_fill_{name}_pct"] = min(100.0 * stem.width_mm(z) / width, 100.0) if width else 0.0
    by = "width_fill" if FAMILIES[asked.family].filled == "width" else "fill"
    score = fills[f"{by}_mid_pct"] + 0.3 * fills[f"{by}_proximal_pct"] + 0.3 * fills[f"{by}_distal_pct"]
    return row | fills | {"score": score}
