"""Where the surface of a shape cuts a network: the ends left in the air, counted and joined by a net under the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from implantforge.core import Array, Field
from implantforge.geom.meshing import polygonise
from implantforge.stages.lattice import nets

DEEP = 0.5  # necks: what stands out less than half of its own thickness is no end
FAR = 1.5  # cells: ends farther apart are not joined
JOINED, LOOKED_AT = 2, 32  # ends that one is joined to, of the nearest
STEPS_A_NECK = 4.0
MOST = 1.2e6  # points on the surface

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a network meets the surface: the point (n,3) mm deepest in its metal of each place, the piece (n,) of the outer
    layer that it belongs to, and of each piece (m,) whether it hangs on what lies below in one place alone, and
    whether it hangs at all."""

    points: Array
    piece: NDArray[np.int64]
    loose: Mask
    rooted: Mask

    @property
    def count(self) -> int:
        """Pieces that end in the air."""
        return int(self.loose.sum())


class Layers:
    """Points in layers under the surface of a shape, fine enough for necks of thin_mm to show."""

    def __init__(self, shape: Field, core: Field | None, cell_mm: float, thin_mm: float) -> None:
        size = np.ptp(shape.bounds, axis=0)
        area = 2 * float(size @ np.roll(size, 1))
        step = max(min(cell_mm / 8, thin_mm / STEPS_A_NECK), float(np.sqrt(1.5 * area / MOST)))
        mesh = polygonise(shape, step)
        self.shape = shape
        self.cell_mm, self.thin_mm = cell_mm, thin_mm
        edges = np.concatenate([mesh.faces[:, [a, (a + 1) % 3]] for a in range(3)]).astype(np.int64)
        self.edges = edges[edges[:, 0] < edges[:, 1]]  # of a closed surface each is run both ways
        inward = -nets.slope(mesh.vertices, shape)
        depth = np.arange(max(round(DEEP * thin_mm / step), 1) + 1) * step
        self.points = mesh.vertices + (depth + 0.02 * step)[:, None, None] * inward  # (layers, n, 3)
        self.core = (
            None if core is None else core.evaluate(self.points.reshape(-1, 3)).reshape(self.points.shape[:2]) < 0
        )

    def ends(self, network: Field, metal: Field) -> Ends:
        """Ends of a network (negative inside) in the metal, which is the network and what joins its ends."""
        layers, n = self.points.shape[:2]
        values = network.evaluate(self.points.reshape(-1, 3)).reshape(layers, n)
        solid = values < 0 if metal is network else metal.evaluate(self.points.reshape(-1, 3)).reshape(layers, n) < 0
        solid |= values < 0
        piece = _pieces(solid, self.edges, True)
        rooted = values[-1:] < 0
        roots = _pieces(rooted, self.edges, False)[0]
        held = np.unique(np.stack([roots, piece[-1]], axis=1)[rooted[0]], axis=0)
        hangs = np.bincount(held[:, 1], minlength=piece.max() + 1) if len(held) else np.zeros(piece.max() + 1, int)
        loose = hangs == 1
        if self.core is not None:
            loose[piece[solid & self.core]] = False  # what is joined to the solid hangs on it
        spots = _pieces(values[:1] < 0, self.edges, False)[0]
        met = np.flatnonzero(values[0] < 0)
        order = met[np.lexsort([values[0, met], spots[met]])]
        first = order[np.unique(spots[order], return_index=True)[1]]
        touching = np.zeros_like(loose)
        touching[piece[0, first]] = True
        return Ends(self.points[0, first], piece[0, first], loose & touching, hangs > 0)

    def capped(self, network: Field) -> tuple[Field, int]:
        """The network with struts as thick as its thinnest neck, just under the surface, from every loose end to its nearest
        neighbours; and how many ends found none."""
        ends = self.ends(network, network)
        pairs, radius = _pairs(ends, FAR * self.cell_mm), 0.5 * self.thin_mm
        tips = nets.onto(ends.points, self.shape, np.full(len(ends.points), radius))
        middle = nets.onto(0.5 * (tips[pairs[:, 0]] + tips[pairs[:, 1]]), self.shape, np.full(len(pairs), radius))
        way = np.linspace(0, 1, 6)[1:, None, None]
        held = [self.shape.evaluate((tips[end] + way * (middle - tips[end])).reshape(-1, 3)) for end in pairs.T]
        whole = (np.reshape(held, (2, len(way), -1)) < -0.5 * radius).all(axis=(0, 1))
        pairs, middle = pairs[whole], middle[whole]
        left = ends.count - int(ends.loose[np.unique(ends.piece[pairs])].sum())
        if not len(pairs):
            return network, left
        centre = len(tips) + np.arange(len(pairs))
        struts = np.concatenate([np.stack([pairs[:, 0], centre], 1), np.stack([centre, pairs[:, 1]], 1)])
        joints = np.vstack([tips, middle])
        net = nets.Net(joints, np.full(len(joints), radius), struts).only(np.ones(len(struts), bool))
        return network | nets.field(net, self.cell_mm), left


def _pairs(ends: Ends, far_mm: float) -> NDArray[np.int64]:
    """Each loose end with the nearest ends of two other places, (n,2)."""
    loose = np.flatnonzero(ends.loose[ends.piece])
    if not len(loose) or len(ends.points) < 2:
        return np.empty((0, 2), np.int64)
    away, near = cKDTree(ends.points).query(
        ends.points[loose], k=min(LOOKED_AT, len(ends.points)), distance_upper_bound=far_mm
    )
    there = np.isfinite(away)
    there[there] = ends.piece[near[there]] != np.repeat(ends.piece[loose], there.sum(axis=1))
    there &= ends.rooted[ends.piece[np.where(there, near, 0)]]
    there &= np.cumsum(there, axis=1) <= JOINED
    pairs = np.stack([np.repeat(loose, there.sum(axis=1)), near[there]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _pieces(solid: Mask, edges: NDArray[np.int64], down: bool) -> NDArray[np.int64]:
    """Numbers (layers, n) of what hangs together within layers, and between them (down)."""
    layers, n = solid.shape
    rows = [edges[solid[k, edges[:, 0]] & solid[k, edges[:, 1]]] + k * n for k in range(layers)]
    if down:
        upper, at = np.nonzero(solid[:-1] & solid[1:])
        rows.append(np.stack([upper * n + at, (upper + 1) * n + at], axis=1))
    pairs = np.concatenate(rows)
    ones = np.ones(len(pairs), np.int8)
    found = connected_components(coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(solid.size,) * 2), False)[1]
    out: NDArray[np.int64] = found.reshape(layers, n).astype(np.int64)
    return out
