"""Outline of a body of revolution: read from its field in one half-plane, split where it bends, named line, arc or curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from skimage.measure import find_contours

from implantforge.core import Array, GeometryError

STEP_MM = 0.05
EXACT_MM = 2e-4
"""A run of points is a line or an arc when it lies within this of one."""
LEAST = 14
"""Points that make a line or an arc within a smooth run."""
CORNER_DEG = 14.0

Plane = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of an outline: `line`, `arc` or `curve` through points (n,2) of (radius, height) mm, ends included."""

    kind: str
    points: Array


def outline(field: Plane, radius_mm: float, low_mm: float, high_mm: float) -> tuple[Piece, ...]:
    """The one closed outline (radius >= 0) of {field < 0} within radius_mm and the two heights; points lie on the surface
    within 1e-6 mm. GeometryError when there is none, or several."""

    def clipped(p: Array) -> Array:
        sides = np.stack([-p[:, 0], p[:, 0] - radius_mm, low_mm - p[:, 1], p[:, 1] - high_mm])
        return np.maximum(field(p), sides.max(axis=0))

    r = np.arange(-3 * STEP_MM - 0.0137, radius_mm + 3 * STEP_MM, STEP_MM)
    t = np.arange(low_mm - 3 * STEP_MM - 0.0171, high_mm + 3 * STEP_MM, STEP_MM)
    at = np.stack(np.meshgrid(r, t, indexing="ij"), axis=-1).reshape(-1, 2)
    loops = find_contours(clipped(at).reshape(len(r), len(t)), 0.0)
    loops = [loop for loop in loops if len(loop) > 20]
    if len(loops) != 1:
        raise GeometryError(f"cad: a turned body has {len(loops)} outlines; one is needed")
    points = np.array([r[0], t[0]]) + STEP_MM * loops[0][:-1]
    points, normals = _settled(clipped, points)
    return _on_axis(list(_pieces(points, normals)))


def _on_axis(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Arcs whose middle lies on the axis but for rounding put exactly there, their ends with them: balls stay balls."""
    for n, piece in enumerate(pieces):
        if piece.kind != "arc" or abs(_centre(piece.points)[0]) > 50 * EXACT_MM:
            continue
        # the height from which all three points lie equally far, in the mean
        p = piece.points
        square = (p**2).sum(axis=1)
        (height, free), *_ = np.linalg.lstsq(np.stack([2 * p[:, 1], np.ones(3)], axis=1), square, rcond=None)
        radius = np.sqrt(free + height**2)
        away = p - [0.0, height]
        on = np.array([0.0, height]) + radius * away / np.linalg.norm(away, axis=1, keepdims=True)
        if np.abs(on - p).max() > 2 * EXACT_MM:
            continue
        on[:, 0] = np.where(np.abs(p[:, 0]) < 1e-7, 0.0, on[:, 0])
        before = pieces[n - 1]
        pieces[n - 1] = Piece(before.kind, np.vstack([before.points[:-1], on[:1]]))
        after = pieces[(n + 1) % len(pieces)]  # may be the one before
        pieces[(n + 1) % len(pieces)] = Piece(after.kind, np.vstack([on[-1:], after.points[1:]]))
        pieces[n] = Piece("arc", on)
    return tuple(pieces)


def _centre(p: Array) -> Array:
    """Middle of the circle through three points."""
    rows = 2.0 * np.stack([p[1] - p[0], p[2] - p[0]])
    return np.linalg.solve(rows, (p[1:] ** 2).sum(axis=1) - (p[0] ** 2).sum())


def _settled(field: Plane, points: Array) -> tuple[Array, Array]:
    """Points moved onto the zero line, without those that share a place, and the unit normal at each."""
    for _ in range(6):
        value, slope = field(points), _slope(field, points)
        points = points - (value / np.maximum((slope**2).sum(axis=1), 1e-9))[:, None] * slope
    apart = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1) > 0.1 * STEP_MM
    points = points[apart & (np.abs(field(points)) < 1e-6)]
    slope = _slope(field, points)
    return points, slope / np.linalg.norm(slope, axis=1, keepdims=True)


def _slope(field: Plane, points: Array) -> Array:
    step = 1e-5 * np.eye(2)
    return np.stack([(field(points + d) - field(points - d)) / 2e-5 for d in step], axis=1)


def _pieces(points: Array, normals: Array) -> Iterator[Piece]:
    """Runs between corners, each ended by the meeting of the tangents on either side."""
    turn = np.degrees(np.arccos(np.clip((normals * np.roll(normals, 1, axis=0)).sum(axis=1), -1, 1)))
    starts = np.nonzero(turn > CORNER_DEG)[0]
    if not len(starts):
        raise GeometryError("cad: a turned body without a corner on its axis")
    points, normals = np.roll(points, -starts[0], axis=0), np.roll(normals, -starts[0], axis=0)
    bounds = [*(starts - starts[0]).tolist(), len(points)]
    corners = [
        _meeting(points[i - 1], normals[i - 1], points[i % len(points)], normals[i % len(points)]) for i in bounds
    ]
    for n, (a, b) in enumerate(pairwise(bounds)):
        yield from _named(np.vstack([corners[n], points[a:b], corners[n + 1]]))


def _meeting(p: Array, n: Array, q: Array, m: Array) -> Array:
    return np.linalg.solve(np.stack([n, m]), np.array([n @ p, m @ q]))


def _named(run: Array) -> Iterator[Piece]:
    """A smooth run as lines and arcs where it is long enough one, curves between."""
    if np.linalg.norm(run[0] - run[-1]) < 1e-9 or len(run) < 4:
        yield Piece("line", run[[0, -1]])
        return
    at, loose = 0, 0
    while at < len(run) - 1:
        end, kind = max((_reach(run, at, off), kind) for kind, off in (("line", _off_line), ("arc", _off_arc)))
        if end - at >= LEAST or (at == 0 and end == len(run) - 1):
            if loose < at:
                yield _curve(run[loose : at + 1])
            yield Piece(kind, run[[at, end]] if kind == "line" else run[[at, (at + end) // 2, end]])
            at = loose = end
        else:
            at += 1
    if loose < len(run) - 1:
        yield _curve(run[loose:])


def _curve(points: Array) -> Piece:
    if len(points) == 2:
        return Piece("line", points)
    keep = np.unique(np.append(np.arange(0, len(points) - 1, 3), len(points) - 1))
    return Piece("curve", points[keep])


def _reach(run: Array, start: int, off: Callable[[Array], float]) -> int:
    """How far on from start the run stays one line, or arc."""
    low, high = start + 1, min(start + LEAST, len(run) - 1)
    while off(run[start : high + 1]) < EXACT_MM:
        low = high
        if high == len(run) - 1:
            return high
        high = min(start + 2 * (high - start), len(run) - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if off(run[start : middle + 1]) < EXACT_MM else (low, middle)
    return low


def _off_line(points: Array) -> float:
    way = points[-1] - points[0]
    length = float(np.linalg.norm(way))
    if length < 1e-9:
        return np.inf
    away = points - points[0]
    return float(np.abs(away[:, 0] * way[1] - away[:, 1] * way[0]).max()) / length


def _off_arc(points: Array) -> float:
    """Largest distance from the circle through the first, the middle and the last point."""
    if len(points) < 5:
        return np.inf
    a, b, c = points[0], points[len(points) // 2], points[-1]
    rows = 2.0 * np.stack([b - a, c - a])
    if abs(np.linalg.det(rows)) < 1e-9:
        return np.inf
    centre = _centre(np.stack([a, b, c]))
    radii = np.linalg.norm(points - centre, axis=1)
    return float(np.abs(radii - radii[0]).max()) if radii[0] < 500.0 else np.inf
