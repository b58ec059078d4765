"""What gets through a porous structure: pieces, throats, and the share of the void that a sphere reaches from outside."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array
from implantforge.kernels import isoarea
from implantforge.stages.porous.walls import distance

Mask = NDArray[np.bool_]
Samples = NDArray[np.float32]
EDGE = 0.3  # steps: what distances to a curved surface miss
# six tetrahedra around the diagonal 0..7, corners 4 i + 2 j + k
_TETRAHEDRA = np.array([[0, a, a + b, 7] for a, b in ((4, 2), (4, 1), (2, 4), (2, 1), (1, 4), (1, 2))])


def area(values: NDArray) -> float:
    """Area (steps^2) of the surface where values (i,j,k) change sign, linear between samples."""
    out = np.zeros(values.shape[0] - 1)
    isoarea.area(np.ascontiguousarray(values), _TETRAHEDRA, out)
    return float(out.sum())


def pieces(mask: Mask, border: Mask | None = None, least: float = 0.01) -> tuple[int, float]:
    """How many pieces (touching by a face) a mask has, and the share of the largest. Pieces that reach into border (the
    array's faces unless given), where they may hang together with what is not seen, count from `least` of the whole."""
    labels, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
    if not count:
        return 0, 0.0
    sizes = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"][1:].astype(float)
    cut = np.zeros(count + 1, np.bool_)
    if border is None:
        for axis in range(3):
            cut[np.unique(np.take(labels, (0, -1), axis))] = True
    else:
        cut[np.unique(labels[border])] = True
    whole = sizes[~cut[1:] | (sizes >= least * sizes.sum())]
    return len(whole), float(sizes.max() / sizes.sum())


def faces(shape: tuple[int, ...]) -> Mask:
    """The samples on the faces of an array."""
    out = np.zeros(shape, np.bool_)
    out[[0, -1]] = out[:, [0, -1]] = out[:, :, [0, -1]] = True
    return out


def reached(space: Mask, start: Mask) -> Mask:
    """The part of space that hangs together with start, over faces, edges or corners."""
    labels = cc3d.connected_components(space, connectivity=26)
    seen = np.zeros(int(labels.max()) + 1, np.bool_)
    seen[labels[start & space]] = True
    seen[0] = False
    return seen[labels]


def throats(away: Samples, side: int, within: float = 0.1) -> Array:
    """Diameter (steps) of the largest sphere that passes from face to face of {side away > 0}, along each axis; 0 where
    there is no way. Bisected to `within` steps.

    Centres stand on samples, beside the middle of the way, which hides 0 to 1.4 steps of the diameter: half a step is
    added, good to 0.9.
    """
    low, high = np.zeros(3), np.full(3, side * float(away.max() if side > 0 else away.min()))
    known: dict[float, list[bool]] = {}
    first = _through(away, side, 1e-6)
    for axis in range(3):
        if not first[axis]:
            high[axis] = 0.0
            continue
        while high[axis] - low[axis] > within / 2:
            middle = float(0.5 * (low[axis] + high[axis]))
            if middle not in known:
                known[middle] = _through(away, side, middle)
            for other in range(3):
                if known[middle][other] and first[other]:
                    low[other] = max(low[other], min(middle, high[other]))
            if not known[middle][axis]:
                high[axis] = middle
    return np.where(low > 0, 2 * low + 0.5, 0.0)


def _through(away: Samples, side: int, radius: float) -> list[bool]:
    """Whether spheres of a radius pass along each axis."""
    labels = cc3d.connected_components(away >= radius if side > 0 else away <= -radius, connectivity=26)
    ends = [(np.unique(np.take(labels, 0, axis)), np.unique(np.take(labels, -1, axis))) for axis in range(3)]
    return [bool(len(np.setdiff1d(np.intersect1d(a, b), [0]))) for a, b in ends]


def openness(away: Samples, side: int, outside: Mask, diameters: Array, counted: Mask | None = None) -> Array:
    """Share of the void {side away > 0} (of its part in `counted`) that a sphere coming from `outside` sweeps, by its
    diameter (steps); a diameter of 0 asks for a connection alone. Nearer to the array's faces than a sphere reaches, where
    its centre may lie beyond, void is not counted."""
    depth = away if side > 0 else -away
    void = depth > 0
    told = void if counted is None else void & counted
    out = np.zeros(len(diameters))
    for n, diameter in enumerate(diameters):
        radius = np.float32(diameter / 2)
        space = void if diameter <= 0 else depth >= radius
        swept = reached(space, outside)
        if diameter > 0 and swept.any():
            # centres stand anywhere in {depth > radius}, not on samples alone
            level = radius - depth
            level[space & ~swept] = 0.5
            level[swept] = np.minimum(level[swept], np.float32(-1e-3))
            swept = (distance(level, 1.0, side=-1) >= -radius - EDGE) & void
        edge = min(int(np.ceil(radius)), min(told.shape) // 4)
        core = (slice(edge, -edge or None),) * 3
        out[n] = int((swept & told)[core].sum()) / max(int(told[core].sum()), 1)
    return out
