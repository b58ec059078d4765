"""Struts one by one: joints and struts of a whole part, placed, trimmed so that none ends in the air, as a field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from implantforge.core import Array, Field, GeometryError
from implantforge.kernels.struts import net_bins, net_distance
from implantforge.stages.lattice import struts
from implantforge.stages.lattice.placing import Chart
from implantforge.stages.lattice.solving import SolvedLattice

MOST_STRUTS = 4_000_000
BORDERS = ("cap", "trim", "cut")
REACH, BIN = 0.25, 0.2  # cells: how far distances are told, and the bins that struts are listed by
MOST_BINS = 2e7


@dataclass(frozen=True, eq=False)
class Net:
    """joints (n,3) mm with the radius (n,) of the metal about each, and struts (m,2) between them."""

    joints: Array
    radius_mm: Array
    struts: NDArray[np.int64]

    @property
    def length_mm(self) -> float:
        """Total length of the centre lines."""
        a, b = self.joints[self.struts.T]
        return float(np.linalg.norm(a - b, axis=1).sum())

    def only(self, keep: NDArray) -> Net:
        """The struts of a mask (m,), and the joints they need."""
        used, numbers = np.unique(self.struts[keep], return_inverse=True)
        return Net(self.joints[used], self.radius_mm[used], numbers.reshape(-1, 2))


def grown(solved: SolvedLattice, box: Array, chart: Chart) -> Net:
    """Every strut of the lattice whose coordinates lie in box (2,3), set where the chart places it; radii are 0."""
    side, cell = struts.STRUTS[solved.kind][1], solved.cell_mm
    tile = struts.lines(solved.kind, solved.seed)
    low, high = np.floor(box[0] / (side * cell)).astype(int), np.ceil(box[1] / (side * cell)).astype(int)
    count = int(np.prod(high - low)) * len(tile)
    if count > MOST_STRUTS:
        raise GeometryError(f"lattice: {count} struts are more than {MOST_STRUTS}; take larger cells or a smaller part")
    shifts = np.indices(high - low).reshape(3, -1).T + low
    ends = (tile.reshape(1, -1, 2, 3) + (side * shifts)[:, None, None]).reshape(-1, 3)
    turn = np.inf if chart.placement == "cartesian" else 2 * np.pi * chart.radius_mm
    key = ends.copy()
    if np.isfinite(turn):
        key[:, 1] = np.mod(key[:, 1] + 1e-5, turn / cell) - 1e-5
    _, first, numbers = np.unique(np.round(key, 4), axis=0, return_index=True, return_inverse=True)
    pairs = np.sort(numbers.reshape(-1, 2), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    joints = chart.place(ends[first] * cell)
    there = np.isfinite(joints.sum(axis=1))
    net = Net(joints, np.zeros(len(joints)), pairs)
    return net.only(there[pairs[:, 0]] & there[pairs[:, 1]])


def bordered(net: Net, inside: Field, core: Field | None, border: str) -> Net:
    """The struts that metal can be made of: within `inside`, no end in the air but where it roots in the core.

    cap: struts that cross the border end under it, joined to the ends near them; trim: they are left out; cut: they stay
    and the surface cuts them. What hangs on nothing is left out.
    """
    depth = -inside.evaluate(net.joints)
    rooted = core.evaluate(net.joints) < -0.5 * net.radius_mm if core is not None else np.zeros(len(depth), bool)
    good = (depth >= net.radius_mm * 0.999) | rooted
    a, b = net.struts.T
    buried = rooted[a] & rooted[b]
    whole, crossing = good[a] & good[b] & ~buried, (good[a] != good[b]) & ~buried
    if border == "cut":
        near = (depth[a] > 0) | (depth[b] > 0)
        return _held(net.only((whole | crossing | near) & ~buried), inside, core, False)
    if border == "trim" or not crossing.any():
        return _held(net.only(whole), inside, core, True)
    return _held(_capped(net, good, whole, crossing, inside), inside, core, True)


def _capped(
    net: Net, good: NDArray[np.bool_], whole: NDArray[np.bool_], crossing: NDArray[np.bool_], inside: Field
) -> Net:
    """Crossing struts ended where their metal touches the border, and a net between these ends."""
    pairs = net.struts[crossing]
    pairs = np.where(good[pairs[:, :1]], pairs, pairs[:, ::-1])
    start, far = net.joints[pairs[:, 0]], net.joints[pairs[:, 1]]
    radius = np.minimum(net.radius_mm[pairs[:, 0]], net.radius_mm[pairs[:, 1]])
    low, high = np.zeros(len(pairs)), np.ones(len(pairs))
    for _ in range(24):
        t = 0.5 * (low + high)
        deep = inside.evaluate(start + t[:, None] * (far - start)) <= -radius
        low, high = np.where(deep, t, low), np.where(deep, high, t)
    ends = start + low[:, None] * (far - start)
    first = len(net.joints)
    spans = np.linalg.norm(ends - start, axis=1)
    links = _links(ends, float(np.median(np.linalg.norm(far - start, axis=1))))
    middle = onto(0.5 * (ends[links[:, 0]] + ends[links[:, 1]]), inside, np.minimum(*radius[links.T]))
    joints = np.vstack([net.joints, ends, middle])
    radii = np.concatenate([net.radius_mm, radius, np.minimum(*radius[links.T])])
    centre = first + len(ends) + np.arange(len(links))
    own = np.stack([pairs[:, 0], first + np.arange(len(ends))], axis=1)[spans > 1e-6]
    ring = np.concatenate([np.stack([first + links[:, 0], centre], 1), np.stack([first + links[:, 1], centre], 1)])
    every = np.concatenate([net.struts[whole], own, ring])
    return Net(joints, radii, every).only(np.ones(len(every), bool))


def _links(ends: Array, length: float) -> NDArray[np.int64]:
    """Pairs (n,2) of ends that are near: each with its three nearest within two strut lengths."""
    if len(ends) < 2:
        return np.empty((0, 2), np.int64)
    away, near = cKDTree(ends).query(ends, k=min(4, len(ends)), distance_upper_bound=2.0 * length)
    rows = np.repeat(np.arange(len(ends)), near.shape[1] - 1)
    pairs = np.sort(np.stack([rows, near[:, 1:].ravel()], axis=1), axis=1)
    return np.unique(pairs[np.isfinite(away[:, 1:]).ravel()].astype(np.int64), axis=0)


def onto(points: Array, inside: Field, radius: Array) -> Array:
    """Points moved along the border's normal until metal of this radius touches it, by at most half a mm."""
    here = inside.evaluate(points)
    return points - np.clip(here + radius, -0.5, 0.5)[:, None] * slope(points, inside)


def slope(points: Array, inside: Field) -> Array:
    """Unit vectors (n,3) away from what is inside."""
    eps = 1e-3
    here = inside.evaluate(points)
    found = np.stack([(inside.evaluate(points + eps * np.eye(3)[a]) - here) / eps for a in range(3)], axis=1)
    found /= np.maximum(np.linalg.norm(found, axis=1), 0.2)[:, None]
    return found


def _held(net: Net, inside: Field, core: Field | None, prune: bool) -> Net:
    """The net without struts that end in the air (prune) and without what hangs on nothing."""
    while prune and len(net.struts):
        rooted = core.evaluate(net.joints) < 0 if core is not None else np.zeros(len(net.joints), bool)
        loose = (np.bincount(net.struts.ravel(), minlength=len(net.joints)) < 2) & ~rooted
        if not loose.any():
            break
        net = net.only(~loose[net.struts[:, 0]] & ~loose[net.struts[:, 1]])
    if not len(net.struts):
        raise GeometryError("lattice: no strut fits; the region is thinner than a cell: take smaller cells")
    count = len(net.joints)
    _, piece = connected_components(coo_matrix((np.ones(len(net.struts)), net.struts.T), (count, count)), False)
    rooted = core.evaluate(net.joints) < 0 if core is not None else np.zeros(count, bool)
    kept = np.unique(piece[rooted]) if rooted.any() else [np.argmax(np.bincount(piece[net.struts[:, 0]]))]
    return net.only(np.isin(piece[net.struts[:, 0]], kept))


def dangling(net: Net, core: Field | None) -> int:
    """How many joints hold one strut alone and do not root in the core."""
    rooted = core.evaluate(net.joints) < 0 if core is not None else np.zeros(len(net.joints), bool)
    return int(((np.bincount(net.struts.ravel(), minlength=len(net.joints)) == 1) & ~rooted).sum())


def field(net: Net, cell_mm: float) -> Field:
    """The metal of the net: round struts, tapered where their joints differ, joined; distances up to a quarter of a cell."""
    a, b = net.struts.T
    rows = np.hstack([net.joints[a], net.joints[b], net.radius_mm[a, None], net.radius_mm[b, None]])
    most, reach = float(net.radius_mm.max()), REACH * cell_mm
    bin_mm = max(BIN * cell_mm, most)
    low, high = net.joints.min(axis=0) - most - reach, net.joints.max(axis=0) + most + reach
    bin_mm = max(bin_mm, float(np.cbrt((high - low).prod() / MOST_BINS)))
    shape = np.ceil((high - low) / bin_mm).astype(np.int64) + 1
    starts, items = bins(rows, low, bin_mm, shape, most + reach)
    way = rows[:, 3:6] - rows[:, :3]
    square = np.maximum((way * way).sum(axis=1), 1e-30)
    lines = np.ascontiguousarray(np.column_stack([rows[:, :3], way, rows[:, 6], rows[:, 7] - rows[:, 6], 1 / square]))

    def evaluate(p: Array) -> Array:
        out = np.empty(len(p))
        net_distance(lines, starts, items, low, bin_mm, shape, reach, np.ascontiguousarray(p, np.float64), out)
        return out

    steep = 1.0 + float((np.abs(lines[:, 7]) / np.maximum(np.sqrt(square), 1e-9)).max())
    bounds = np.array([net.joints.min(axis=0) - most, net.joints.max(axis=0) + most])
    return Field(evaluate, bounds, min(steep, 1.5))


def bins(
    rows: Array, low: Array, bin_mm: float, shape: NDArray[np.int64], reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which struts (n,8) come within reach of each bin: starts (bins + 1,) and items."""
    starts = np.zeros(int(shape.prod()) + 1, np.int64)
    net_bins(rows, low, bin_mm, shape, reach, starts, np.empty(0, np.int32))
    items = np.empty(int(starts[-1]), np.int32)
    if len(items):
        net_bins(rows, low, bin_mm, shape, reach, starts, items)
    return starts, items
