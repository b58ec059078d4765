"""Marching-cubes case table, derived from one rule instead of copied.

On every cube face each run of inside corners is cut off on its own. The rule looks at the four signs of the face only,
so both cells that share the face draw the same segments and the surface closes. Segments chain into loops; a loop is
split into triangles by diagonals of which none lies in a cube face, so no edge is used by more than two triangles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Loop = tuple[int, ...]
Triangle = tuple[int, int, int]


@lru_cache(maxsize=1)
def edge_corners() -> NDArray[np.int8]:
    """(12,2) low and high corner of each edge; corner c stands at (c & 1, c >> 1 & 1, c >> 2); 0-3 run along x."""
    rows = [(c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1]
    return np.array(rows, np.int8)


def _faces() -> list[list[int]]:
    """Six faces as four corners, counter-clockwise seen from outside the cube."""
    out = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        ring = [0, 1 << u, 1 << u | 1 << v, 1 << v]
        out.append([c | 1 << axis for c in ring])
        out.append(ring[::-1])
    return out


def _loops(case: int) -> list[Loop]:
    """Closed chains of edge ids for one sign pattern (bit c set: corner c inside), counter-clockwise."""
    edge_of = {frozenset(map(int, pair)): e for e, pair in enumerate(edge_corners())}
    follow = {}
    for ring in _faces():
        inside = [case >> c & 1 for c in ring]
        for start in range(4):
            if inside[start] and not inside[start - 1]:
                stop = start
                while inside[(stop + 1) % 4]:
                    stop += 1
                enter = edge_of[frozenset((ring[start - 1], ring[start]))]
                leave = edge_of[frozenset((ring[stop % 4], ring[(stop + 1) % 4]))]
                follow[enter] = leave
    loops = []
    while follow:
        first = min(follow)
        loop, here = [first], follow.pop(first)
        while here != first:
            loop.append(here)
            here = follow.pop(here)
        loops.append(tuple(loop))
    return loops


def _splits(loop: Loop, allowed: set[frozenset[int]]) -> Iterator[list[Triangle]]:
    """Every triangulation of a polygon whose diagonals are all allowed."""
    if len(loop) < 3:
        yield []
        return
    a, b = loop[0], loop[-1]
    for k in range(1, len(loop) - 1):
        c = loop[k]
        if (k > 1 and frozenset((a, c)) not in allowed) or (k < len(loop) - 2 and frozenset((c, b)) not in allowed):
            continue
        for left in _splits(loop[: k + 1], allowed):
            for right in _splits(loop[k:], allowed):
                yield [*left, (a, c, b), *right]


def _off_face() -> set[frozenset[int]]:
    """Pairs of edges that share no cube face."""
    faces = [set(ring) for ring in _faces()]
    corners = [set(map(int, pair)) for pair in edge_corners()]
    return {
        frozenset((e, f))
        for e, f in combinations(range(12), 2)
        if not any(corners[e] <= face and corners[f] <= face for face in faces)
    }


def _spread(triangles: Iterable[Triangle]) -> float:
    """Sum of squared side lengths with vertices at edge middles: small for well-shaped splits."""
    corner = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], float)
    middle = corner[edge_corners()].mean(axis=1)
    return sum(float(((middle[a] - middle[b]) ** 2).sum()) for t in triangles for a, b in zip(t, t[1:] + t[:1]))


@lru_cache(maxsize=1)
def case_table() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """count (256,) triangles per sign pattern and triangles (256, most, 3) as edge ids, unused entries -1.

    Raises AssertionError should a loop have no split off the cube faces (none has).
    """
    allowed = _off_face()
    cases = []
    for case in range(256):
        triangles: list[Triangle] = []
        for loop in _loops(case):
            choices = list(_splits(loop, allowed))
            assert choices, f"case {case}: loop {loop} needs an interior vertex"
            triangles += min(choices, key=_spread)
        cases.append(triangles)
    count = np.array([len(t) for t in cases], np.int8)
    table = np.full((256, int(count.max()), 3), -1, np.int8)
    for case, triangles in enumerate(cases):
        table[case, : len(triangles)] = np.array(triangles, np.int8).reshape(-1, 3)
    return count, table
