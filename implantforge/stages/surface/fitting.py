"""From first surface to edge: three looks at the scan, each with what the neighbourhood of the one before says of cortex
and flesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array
from implantforge.geom import edges
from implantforge.stages.surface.skin import Skin
from implantforge.stages.surface.start import Start

LEAST_STEP_HU = 120.0
LARGEST_MOVE_MM = 2.0
SEARCH_EVERY, LEARN_EVERY, LEARN_ROUNDS = 4, 12, 3


class Found(NamedTuple):
    """Vertices (n,3) mm in the box's frame, the last fit at each, and which of them show an edge of their own."""

    vertices: Array
    fitted: edges.Fitted
    seen: NDArray[np.bool_]


def reach_mm(spacing_mm: Array) -> tuple[float, float]:
    """How far inward and outward the scan is read."""
    coarse = float(np.max(spacing_mm))
    return max(4.0, 2.2 * coarse), max(2.6, 1.6 * coarse)


def settle(first: Start, skin: Skin, scan: edges.Scan, threads: int = 1) -> Found:
    """Moves every vertex to its edge: every fourth vertex searches for it and the others follow; every twelfth learns
    what cortex and flesh are like hereabouts; with that knowledge every other one looks again, and at last all."""
    vertices, count = first.vertices, skin.count
    given = edges.prior(count, cortex=(1250.0, 400.0), flesh=(20.0, 90.0))
    reach = reach_mm(scan.spacing_mm)
    normals = skin.normals(vertices)
    for _ in range(2):
        normals = normals + skin.mean(normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    normals = _in_scan(normals, first)

    def look(rows: NDArray[np.intp], begin: Array, **how: Any) -> tuple[edges.Fitted, NDArray[np.bool_]]:
        part = edges.Prior(given.mean[rows], given.sigma[rows])
        fitted = edges.fit(
            scan, vertices[rows], normals[rows], bend[rows], part, reach_mm=reach, begin=begin, threads=threads, **how
        )
        return fitted, trusted(fitted) & ~first.still[rows]

    def move(rows: NDArray[np.intp], fitted: edges.Fitted, seen: NDArray[np.bool_]) -> Array:
        every, sure, variance = np.zeros(count), np.zeros(count, np.bool_), np.ones(count)
        every[rows] = fitted.parameters[:, edges.EDGE] + _blur_shift(scan, normals[rows], bend[rows])
        sure[rows], variance[rows] = seen, fitted.variance
        shift = fill(skin, every, sure, variance, first.still)
        return relax(skin, vertices + shift[:, None] * normals, normals, first)

    bend = skin.bend(vertices, normals)
    rows = np.arange(1, count, SEARCH_EVERY)
    found, seen = look(rows, given.mean[rows], search=True)
    vertices = move(rows, found, seen)
    given = learned(skin, rows, found, seen, given)
    begin = given.mean
    few = np.arange(3, count, LEARN_EVERY)
    for number in range(2):
        rows = np.arange(0, count, 2 - number)
        normals = _in_scan(skin.normals(vertices), first)
        bend = skin.bend(vertices, normals)
        for _ in range(LEARN_ROUNDS if number == 0 else 0):
            some, good = look(few, given.mean[few])
            given = learned(skin, few, some, good, given)
            begin = given.mean
        found, seen = look(rows, begin[rows])
        vertices = move(rows, found, seen)
        begin = given.mean.copy()
        begin[rows[seen]] = found.parameters[seen]
        begin[:, edges.EDGE] = 0.0
    return Found(vertices, found, seen)


def _in_scan(normals: Array, first: Start) -> Array:
    """Normals turned into the scan's border plane where the bone is cut: its rim moves in that plane only."""
    if not first.cut.any():
        return normals
    out = np.where(first.cut_axis, 0.0, normals)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def trusted(found: edges.Fitted) -> NDArray[np.bool_]:
    """Fits that show an edge: a step, a well-determined place, not run away, not glued to the next bone."""
    x = found.parameters
    step = x[:, edges.CORTEX] - x[:, edges.FLESH]
    thick = np.exp(x[:, edges.LOG_THICK])
    good = (step > LEAST_STEP_HU) & (np.abs(x[:, edges.EDGE]) < LARGEST_MOVE_MM) & (found.voxels >= 8)
    good &= (found.variance < 0.5**2) & (thick > 0.21)
    return good & (x[:, edges.EDGE] < found.gap_mm)


def learned(
    skin: Skin, rows: NDArray[np.intp], found: edges.Fitted, seen: NDArray[np.bool_], given: edges.Prior
) -> edges.Prior:
    """Cortex and flesh expected at each vertex from the fits (at `rows`) around it, by what the scan told each."""
    columns = [edges.CORTEX, edges.FLESH]
    value = np.clip(found.level, [150.0, -250.0], [3000.0, 300.0])
    told = seen[:, None] / (found.level_variance + np.array([120.0, 25.0]) ** 2)
    told[:, 1] *= np.where(found.gap_mm < 1e8, 1e-3, 1.0)
    weights, values = np.zeros((skin.count, 2)), np.zeros((skin.count, 2))
    weights[rows], values[rows] = told, value
    weak = 1e-3 * np.median(told[seen], axis=0) if seen.any() else np.ones(2)
    values = np.where(weights > 0, values, given.mean[:, columns])
    mean, sigma = given.mean.copy(), given.sigma.copy()
    mean[:, columns] = skin.spread(values, weights + 0.01 * weak, 32)
    sigma[:, columns] = [120.0, 30.0]
    return edges.Prior(mean, sigma)


def fill(skin: Skin, shift: Array, seen: NDArray[np.bool_], variance: Array, still: NDArray[np.bool_]) -> Array:
    """Shifts with outliers pulled to their neighbours and unseen vertices filled from the seen ones around them."""
    weight = np.where(seen, 1.0 / (variance + 0.05**2), 0.0)
    weight[still] = 1.0 / 0.05**2
    value = np.where(seen & ~still, shift, 0.0)
    around = skin.spread(value, weight + 1e-9, 3)
    odd = seen & (np.abs(value - around) > 0.35)
    value = np.where(odd, around, value)
    weight = np.where(odd, 1.0, weight)
    wide = skin.spread(value, weight + 1e-9, 12)
    value = np.where(weight > 0, value, wide)
    weight = np.maximum(weight, 1.0)
    near = skin.mean(value * weight) / skin.mean(weight)
    return np.where(still, 0.0, 0.5 * value + 0.5 * near)


def relax(skin: Skin, vertices: Array, normals: Array, first: Start) -> Array:
    """Vertices slid along the surface to even distances, and bumps narrower than two edges taken out (Taubin 1995)."""
    held = first.cut_axis
    for share in (0.5, -0.53):
        vertices = vertices + share * np.where(held, 0.0, skin.mean(vertices) - vertices)
    slide = skin.mean(vertices) - vertices
    slide -= np.einsum("ij,ij->i", slide, normals)[:, None] * normals
    return vertices + 0.5 * np.where(held, 0.0, slide)


def _blur_shift(scan: edges.Scan, normals: Array, bend: Array) -> Array:
    """How far blur draws a bent edge inward: variance across the normal times mean curvature."""
    square = scan.blur_mm**2
    along = normals**2 @ square
    return 0.5 * (square.sum() - along) * bend
