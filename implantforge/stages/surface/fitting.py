"""From first surface to edge: three looks at the scan, each with what the neighbourhood of the one before says of cortex
and flesh."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array
from implantforge.geom import edges
from implantforge.stages.surface.skin import Skin
from implantforge.stages.surface.start import Start

LEAST_STEP_HU = 120.0
LARGEST_MOVE_MM = 2.0
LEARN_EVERY, LEARN_ROUNDS = 8, 3


class Found(NamedTuple):
    """Vertices (n,3) mm in the box's frame, the last fit at each, and which of them show an edge of their own."""

    vertices: Array
    fitted: edges.Fitted
    seen: NDArray[np.bool_]


def reach_mm(spacing_mm: Array) -> tuple[float, float]:
    """How far inward and outward the scan is read."""
    coarse = float(np.max(spacing_mm))
    return max(4.0, 2.2 * coarse), max(2.6, 1.6 * coarse)


def settle(first: Start, skin: Skin, scan: edges.Scan) -> Found:
    """Moves every vertex to its edge: a first look that searches; looks at every eighth vertex that learn what cortex
    and flesh are like hereabouts; a second and a last look with that knowledge."""
    vertices, count = first.vertices, len(first.vertices)
    given = edges.prior(count, cortex=(1250.0, 400.0), flesh=(20.0, 90.0))
    reach = reach_mm(scan.spacing_mm)
    few = np.arange(3, count, LEARN_EVERY)
    for number in range(3):
        normals = skin.normals(vertices)
        if number == 0:
            for _ in range(2):
                normals = normals + skin.mean(normals)
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        bend = skin.bend(vertices, normals)
        for _ in range(LEARN_ROUNDS if number == 1 else 0):
            part = edges.Prior(given.mean[few], given.sigma[few])
            some = edges.fit(scan, vertices[few], normals[few], bend[few], part, reach_mm=reach, search=False)
            given = learned(skin, few, some, trusted(some) & ~first.cut[few], given)
        found = edges.fit(scan, vertices, normals, bend, given, reach_mm=reach, search=number == 0)
        seen = trusted(found) & ~first.cut
        shift = found.parameters[:, edges.EDGE] + _blur_shift(scan, normals, bend)
        shift = fill(skin, shift, seen, found.variance, first.cut)
        vertices = vertices + shift[:, None] * normals
        vertices = relax(skin, vertices, normals, first.cut)
        if number == 0:
            given = learned(skin, np.arange(count), found, seen, given)
    return Found(vertices, found, seen)


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
    mean[:, columns] = skin.spread(values, weights + 0.01 * weak, 40)
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


def relax(skin: Skin, vertices: Array, normals: Array, still: NDArray[np.bool_]) -> Array:
    """Vertices slid along the surface to even distances, and bumps narrower than two edges taken out (Taubin 1995)."""
    for share in (0.5, -0.53):
        move = skin.mean(vertices) - vertices
        move[still] = 0.0
        vertices = vertices + share * move
    slide = skin.mean(vertices) - vertices
    slide -= np.einsum("ij,ij->i", slide, normals)[:, None] * normals
    slide[still] = 0.0
    return vertices + 0.5 * slide


def _blur_shift(scan: edges.Scan, normals: Array, bend: Array) -> Array:
    """How far blur draws a bent edge inward: variance across the normal times mean curvature."""
    square = scan.blur_mm**2
    along = normals**2 @ square
    return 0.5 * (square.sum() - along) * bend
