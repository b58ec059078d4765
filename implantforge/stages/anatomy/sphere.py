"""Spheres on joint surfaces by reweighted least squares: heads from outside, sockets from inside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Array

ON_BALL_MM = 0.15
"""Surface this near a ball lies on it: what a CT's noise leaves."""
RIVAL = 0.75
"""Of two spheres whose surfaces differ by less than this, the triangles decide which is taken."""
EDGE_MM = (3.0, 6.0)
"""A socket's surface counts for nothing this near its edge (rim, fossa, notch), wholly from there on: edges are rounded
off, and a sphere that follows them comes out wide and stands out of the socket."""
LEFT = 1.0 / 3.0
"""Share of a socket that must lie clear of its edges; one that has less of it is followed up to them."""


class Sphere(NamedTuple):
    """center_mm (3,), radius_mm, RMS residual_mm of the surface that follows it, and that surface's area_mm2; rival_mm: how
    far off another sphere is centred that nearly as much surface follows, 0 where there is none."""

    center_mm: Array
    radius_mm: float
    residual_mm: float
    area_mm2: float
    rival_mm: float = 0.0

    def about(self, center_mm: Array, points: Array) -> Sphere:
        """The sphere about another centre: radius and residual of those of the points that follow this one within 1.5 mm."""
        own = np.abs(np.linalg.norm(points - self.center_mm, axis=1) - self.radius_mm) < 1.5
        far = np.linalg.norm(points[own] - center_mm, axis=1)
        return Sphere(center_mm, float(far.mean()), float(far.std()), self.area_mm2, self.rival_mm)


def robust_sphere(vertices: Array, normals: Array, area: Array, zone: Array) -> Sphere:
    """The sphere that the joint surface near `zone` follows.

    vertices, normals (n,3) and the area each stands for; samples spread evenly make the answer one of the surface,
    not of its triangles. zone (k,3): where the joint's surface is expected. Weights fall smoothly with the distance
    from the sphere and the turn of the normal from the radius (osteophytes, fovea, rim), so that a new triangulation
    moves the answer little.
    """
    center, radius = _lsq(zone, np.ones(len(zone)))
    middle = zone.mean(axis=0)
    near = np.linalg.norm(vertices - middle, axis=1) < 6.0 + float(np.linalg.norm(zone - middle, axis=1).max())
    points, n, a = vertices[near], normals[near], area[near]
    # the zone's own outline: what lies beside it is neck, rim or fovea
    a = a * ((4.0 - cKDTree(zone).query(points)[0]) / 2.0).clip(0, 1)
    first = _settled(points, n, a, center, radius, (3.0, 2.0, 1.5))
    if not first.area_mm2:
        return first
    # where half of it lies on one ball, that ball is the head, whatever the rest does toward the neck
    ball = _settled(points, n, a, first.center_mm, first.radius_mm, (1.0, 0.7, 0.5, 0.35, 0.25, 0.18))
    if np.isfinite(ball.residual_mm):
        on_it = np.abs(np.linalg.norm(points - ball.center_mm, axis=1) - ball.radius_mm) < ON_BALL_MM
        if a[on_it].sum() > 0.5 * a.sum():
            return ball
    # a round head is followed closely, so that its rim does not pull; one that is out of round as a whole
    gap = np.abs(np.linalg.norm(points - first.center_mm, axis=1) - first.radius_mm)
    near = (gap < 3.0) & (a > 0)
    order = np.argsort(gap[near])
    middle = float(gap[near][order][np.searchsorted(np.cumsum(a[near][order]), 0.5 * a[near].sum())])
    return _settled(points, n, a, first.center_mm, first.radius_mm, (float(np.clip(6.5 * middle, 0.6, 3.0)),))


def hollow_sphere(vertices: Array, normals: Array, area: Array, guess: Array, opening: Array, size: float) -> Sphere:
    """The sphere of a socket: of many starts along the way it opens (unit vector) the one that most surface follows within
    about 0.8 mm and that a head could fill: surface more than 1 mm inside it counts against it twice. Its floor, 2 mm and
    more deeper, stays out, and at last its edges (EDGE_MM) do. size 1 is a grown patient's. A sphere of RIVAL of its worth
    and more is told as its rival."""
    close = np.linalg.norm(vertices - guess, axis=1) < 48.0 * size
    points, n, a = vertices[close], -normals[close], area[close]
    step = max(len(points) // 2500, 1)
    best, most, known = Sphere(guess, 24.0 * size, float("inf"), 0.0), 0.0, []
    for along in (0.0, 4.0, 8.0):
        for radius in (20.5, 22.5, 24.5, 27.0):
            start = guess + along * size * opening
            found = _settled(points[::step], n[::step], a[::step], start, radius * size, (1.0, 0.7, 0.5, 0.4), 12)
            shift = float(np.linalg.norm(found.center_mm - guess))
            far = np.linalg.norm(points[::step] - found.center_mm, axis=1)
            worth = found.area_mm2 - 2.0 * float(a[::step][far < found.radius_mm - 1.0].sum())
            if not (15.0 * size < found.radius_mm < 34.0 * size and shift < 20.0 * size):
                continue
            known.append((worth, found.center_mm))
            if worth > most:
                best, most = found, worth
    if not best.area_mm2:
        return best
    rival = max(float(np.linalg.norm(at - best.center_mm)) for worth, at in known if worth >= RIVAL * most)
    best = _settled(points, n, a, best.center_mm, best.radius_mm, (0.4,))
    for _ in range(2):
        clear = _settled(points, n, a * _clear(points, n, best), best.center_mm, best.radius_mm, (0.4,))
        best = clear if clear.area_mm2 > LEFT * best.area_mm2 else best
    return best._replace(rival_mm=rival if rival > 1.0 else 0.0)


def _clear(points: Array, n: Array, ball: Sphere) -> Array:
    """(n,) from 0 to 1: how far inside the surface that follows a ball points lie."""
    away = points - ball.center_mm
    far = np.linalg.norm(away, axis=1)
    other = (np.abs(far - ball.radius_mm) > 0.8) | (np.einsum("ij,ij->i", away, n) < 0.85 * far)
    if not other.any():
        return np.ones(len(points))
    low, high = EDGE_MM
    return ((cKDTree(points[other]).query(points)[0] - low) / (high - low)).clip(0, 1)


def _settled(points: Array, n: Array, a: Array, center: Array, radius: float, bands: tuple[float, ...],
             rests: int = 60) -> Sphere:  # fmt: skip
    """Reweighted least squares until it rests. Weights fall with the distance from the sphere, nought at three bands, and
    with the turn of the normal from the radius."""
    weight = a
    for band in (*bands, *[bands[-1]] * rests):
        away = points - center
        far = np.linalg.norm(away, axis=1)
        straight = np.einsum("ij,ij->i", away, n) / np.maximum(far, 1e-9)
        weight = a * np.clip((straight - 0.8) / 0.1, 0, 1) * (1 - ((far - radius) / (3.0 * band)) ** 2).clip(0) ** 2
        if (weight > 0).sum() < 12:
            return Sphere(center, radius, float("inf"), 0.0)
        new, radius = _lsq(points, weight)
        moved = float(np.linalg.norm(new - center))
        center = new
        if band == bands[-1] and moved < 1e-5:
            break
    gap = np.linalg.norm(points - center, axis=1) - radius
    return Sphere(center, radius, float(np.sqrt(weight @ gap**2 / weight.sum())), float(weight.sum()))


def _lsq(points: Array, weight: Array) -> tuple[Array, float]:
    middle = weight @ points / weight.sum()
    away = points - middle
    matrix = np.column_stack([2.0 * away, np.ones(len(away))])
    left = (matrix * weight[:, None]).T @ matrix
    right = (matrix * weight[:, None]).T @ (away**2).sum(axis=1)
    solved = np.linalg.solve(left, right)
    return middle + solved[:3], float(np.sqrt(max(solved[3] + solved[:3] @ solved[:3], 1e-12)))
