"""From field to mesh: block-sparse marching cubes in two passes, with vertices on the true surface."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field, GeometryError, Mesh
from implantforge.geom.program import Program, program
from implantforge.kernels import flying, rows
from implantforge.kernels import polygonise as roots
from implantforge.kernels.jit import shared
from implantforge.kernels.mc_table import case_table, edge_corners

Progress = Callable[[float], None]
Look = Callable[[Array], NDArray]

CELLS = 16  # cells along a block: its rows of signs are words of 16 bits
COARSE = 4  # blocks along a coarse block of the first look
RUN = 1 << 22  # vertices between two reports of progress
BATCH = 1 << 19  # points handed to a field at once: large enough for threads, small enough for the cache
EDGE_MARGIN = 0.01  # vertices keep this share of an edge from its ends, so that none coincide, even in float32 files
SOME = 16  # blocks that a thread takes at least
ROOM = 32768  # samples kept for each block: its faces take their place; pages not used are never touched
ROOT_STEPS = 6
ROOT_TOLERANCE = 5e-3  # in units of h, before the last step; most edges of a smooth field meet it at the second look
OUTSIDE, INSIDE = -1, -2  # what the block map says where no surface runs


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Active blocks in lexicographic order, their row numbers or the side of the rest, and where the samples start."""

    coords: NDArray[np.int64]
    lookup: NDArray[np.int32]
    origin_mm: Array
    h_mm: float


def polygonise(field: Field, h_mm: float, *, bounds: Array | None = None, progress: Progress | None = None) -> Mesh:
    """Surface {field = 0} as a closed, oriented 2-manifold, marching cubes of edge h_mm inside bounds (2,3) mm.

    Only blocks that the surface can reach (by field.lipschitz) are sampled; vertices are moved onto the surface by root
    finding along their edge. Same field, same h: same bytes, whatever the number of threads. Raises GeometryError when
    the solid leaves the bounds, when nothing is inside, or when h is not positive.
    """
    vertices, faces = triangles(field, h_mm, bounds=bounds, progress=progress)
    return Mesh(vertices, faces)  # type: ignore[arg-type]  # which makes float64 of any


def triangles(
    field: Field, h_mm: float, *, bounds: Array | None = None, progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """As polygonise, the bare arrays: vertices (n,3) mm and faces (m,3); nothing else of that size is held meanwhile."""
    found = surface(field, h_mm, bounds=bounds)
    runs = _runs(found.offsets[0], RUN if progress else found.vertex_count)
    if len(runs) == 1:
        vertices = found.vertices(*runs[0])
    else:
        vertices = np.empty((found.vertex_count, 3), np.float32)
        for first, last in runs:
            vertices[found.offsets[0][first] : found.offsets[0][last]] = found.vertices(first, last)
            if progress:
                progress(0.2 + 0.7 * last / len(found.bits))
    # the triangles take the place of the samples: the output is all that is held, and all memory that is touched
    room, found.values = found.values, None
    if room is not None and len(room) < 6 * found.face_count:
        room = None
    faces = found.faces(0, len(found.bits), None if room is None else room[: len(room) // 2 * 2].view(np.int32))
    if progress:
        progress(1.0)
    return vertices, faces


def surface(field: Field, h_mm: float, *, bounds: Array | None = None) -> Surface:
    """The surface as signs, counted but not yet made: see Surface. Errors as polygonise."""
    box = np.asarray(field.bounds if bounds is None else bounds, np.float64)
    if not h_mm > 0 or not np.isfinite(box).all() or (box[1] <= box[0]).any():
        raise GeometryError(f"polygonise: needs h > 0 and a finite box, got h {h_mm} mm, bounds {box.tolist()} mm")
    plan = None if field.form is None else program(field.form, box.mean(axis=0))
    look = field.evaluate if plan is None else plan.evaluate
    return Surface(look, plan, box, *_closed(look, plan, _active(field, look, plan, box, float(h_mm))))


class Surface:
    """A closed surface of which any run of blocks can be made: for files larger than memory.

    vertex_count, face_count; offsets (2,n+1) say where the vertices and faces of each of the n blocks start; layers are
    runs (first, last) of blocks whose faces refer to vertices of that run and of the next only.
    """

    def __init__(
        self,
        look: Look,
        plan: Program | None,
        box: Array,
        blocks: _Blocks,
        bits: NDArray[np.uint16],
        values: NDArray[np.int16] | None,
    ) -> None:
        self.look, self.plan, self.box, self.blocks, self.bits, self.values = look, plan, box, blocks, bits, values
        self.words = np.empty((*bits.shape, 4), np.uint16)
        counts = np.empty((len(bits), 2), np.int64)
        at = (bits, blocks.coords, blocks.lookup, _places())
        shared(flying.count, len(bits), SOME, *at, self.words, counts)
        self.offsets = np.array([_offsets(counts[:, 0]), _offsets(counts[:, 1])])
        self.vertex_count, self.face_count = (int(n) for n in self.offsets[:, -1])
        if not self.face_count:
            raise GeometryError(
                f"polygonise: no surface at h {blocks.h_mm} mm: the solid is empty or thinner than a cell"
            )
        if self.vertex_count >= 2**31:
            raise GeometryError(f"polygonise: {self.vertex_count} vertices are more than a mesh can number; raise h")
        cuts = np.flatnonzero(np.diff(blocks.coords[:, 0], prepend=-1, append=-1))
        self.layers = [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]

    def vertices(self, first: int, last: int) -> NDArray[np.float32]:
        """Vertices (n,3) mm of blocks first..last. GeometryError when one leaves the bounds."""
        blocks, starts = self.blocks, self.offsets[0]
        out = np.empty((starts[last] - starts[first], 3), np.float32)
        slack = 0.5 * blocks.h_mm
        limits = np.array([self.box[0] - slack, self.box[1] + slack], np.float32)
        if self.plan is not None:
            centre, beyond = self.plan.centre_mm, np.zeros(len(self.bits), np.bool_)
            place = (blocks.origin_mm - centre, blocks.h_mm, EDGE_MARGIN, centre.astype(np.float32), limits.reshape(-1))
            given = (*self.plan.arrays, blocks.coords, blocks.lookup, self.values, self.words.reshape(-1), starts)
            shared(_blocks(rows.vertices, first), last - first, SOME, *given, place, first, beyond, out)
            if not beyond.any():
                return out
        else:
            for a, b in _runs(starts[first : last + 1], BATCH):
                part = _placed(self.look, blocks, self.words, first + a, first + b, starts)
                out[starts[first + a] - starts[first] : starts[first + b] - starts[first]] = part
        low, high = out.min(axis=0), out.max(axis=0)
        if (low < limits[0]).any() or (high > limits[1]).any():
            raise GeometryError(
                f"polygonise: surface reaches {low.round(2).tolist()}..{high.round(2).tolist()} mm, outside the bounds "
                f"{self.box[0].round(2).tolist()}..{self.box[1].round(2).tolist()} mm; enlarge the bounds"
            )
        return out

    def faces(self, first: int, last: int, room: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """Faces (m,3) of blocks first..last, numbers over the whole surface; in `room` where that is long enough."""
        many = 3 * int(self.offsets[1, last] - self.offsets[1, first])
        out = np.empty(many, np.int32) if room is None or len(room) < many else room[:many]
        at = (self.bits, self.words.reshape(-1), self.blocks.coords, self.blocks.lookup)
        shared(_blocks(flying.faces, first), last - first, SOME, *at, _places(), CELLS, *self.offsets, first, out)
        return out.reshape(-1, 3)


def _blocks(kernel: Callable[..., None], start: int) -> Callable[..., None]:
    """A kernel over blocks counted from `start`."""
    return lambda first, last, *given: kernel(start + first, start + last, *given)


def _evaluate(look: Look, points: Array) -> NDArray:
    """Field at many points, in cache-sized batches."""
    points.setflags(write=False)
    parts = [look(points[a : a + BATCH]) for a in range(0, len(points), BATCH)]
    return np.concatenate(parts) if parts else np.empty(0)


def _reach(
    field: Field, look: Look, plan: Program | None, corner: NDArray[np.int64], cells: int, origin: Array, h: float
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Which cubes of `cells` cells, low corner in cells, the surface can touch, and the side (OUTSIDE, INSIDE) of each;
    GeometryError on NaN."""
    centre = origin + h * (corner + 0.5 * cells)
    radius = 0.5 * np.sqrt(3.0) * cells * h * (1.0 + 1e-6)
    if plan is None:
        value = _evaluate(look, centre)
        low, high = value - field.lipschitz * radius, value + field.lipschitz * radius
    else:
        low, high = plan.ranges(centre, radius).T
    if np.isnan(low).any():
        where = centre[np.isnan(low)][0].round(3).tolist()
        raise GeometryError(f"polygonise: field is NaN at {where} mm")
    return (low <= 1e-6 * h) & (high >= -1e-6 * h), np.where(high < 0, INSIDE, OUTSIDE).astype(np.int32)


def _active(field: Field, look: Look, plan: Program | None, box: Array, h: float) -> _Blocks:
    """Blocks that may hold surface, found from coarse to fine."""
    # Odd fractions of h keep flat faces of round size off the sample lattice.
    origin = box[0] - np.array([1.382, 1.3819, 1.3821]) * h
    cells = np.ceil((box[1] - origin) / h).astype(np.int64) + 2
    coarse = CELLS * COARSE
    shape = -(-cells // coarse)
    corner = np.indices(shape).reshape(3, -1).T * coarse
    near, side = _reach(field, look, plan, corner, coarse, origin, h)
    lookup = np.full(shape * COARSE + 1, OUTSIDE, np.int32)
    lookup[:-1, :-1, :-1] = side.reshape(shape).repeat(COARSE, 0).repeat(COARSE, 1).repeat(COARSE, 2)
    corner = (corner[near][:, None] + np.indices((COARSE,) * 3).reshape(3, -1).T * CELLS).reshape(-1, 3)
    near, lookup[tuple(corner.T // CELLS)] = _reach(field, look, plan, corner, CELLS, origin, h)
    coords = corner[near] // CELLS
    if not len(coords):
        raise GeometryError(f"polygonise: no surface inside {box.round(2).tolist()} mm at h {h} mm")
    return _numbered(coords, lookup, origin, h)


def _numbered(coords: NDArray[np.int64], lookup: NDArray[np.int32], origin: Array, h: float) -> _Blocks:
    coords = coords[np.lexsort(coords.T[::-1])]
    lookup[tuple(coords.T)] = np.arange(len(coords), dtype=np.int32)
    return _Blocks(coords, lookup, origin, h)


def _closed(
    look: Look, plan: Program | None, blocks: _Blocks
) -> tuple[_Blocks, NDArray[np.uint16], NDArray[np.int16] | None]:
    """The blocks, their signs (n,16,16) and near values (n,16,16,16), joined by every block whose side the signs beside
    it contradict: a field steeper than it promised leaves no hole."""
    while True:
        bits, values = _signs(look, plan, blocks)
        more = _contradicted(blocks, bits)
        if not len(more):
            return blocks, bits, values
        coords = np.concatenate([blocks.coords, more])
        blocks = _numbered(coords, blocks.lookup, blocks.origin_mm, blocks.h_mm)


def _contradicted(blocks: _Blocks, bits: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Inactive blocks (m,3) beside low sides of active ones, or of each other, where signs differ."""
    coords, lookup = blocks.coords, blocks.lookup
    found = []
    for step in list(itertools.product((0, 1), repeat=3))[1:]:
        beside = coords - step
        there = (beside >= 0).all(axis=1)
        beside, part = beside[there], bits[there]
        side = lookup[tuple(beside.T)]
        rows_of = part[:, : 1 if step[0] else 16, : 1 if step[1] else 16] & (1 if step[2] else 0xFFFF)
        want = np.where(side == INSIDE, 1 if step[2] else 0xFFFF, 0).astype(np.uint16)
        found.append(beside[(side < 0) & (rows_of != want[:, None, None]).any(axis=(1, 2))])
        low, high = (lookup[tuple(slice(a, -1 - b or None) for a, b in zip(s, t))]
                     for s, t in ((np.zeros(3, int), step), (step, np.zeros(3, int))))  # fmt: skip
        apart = np.argwhere((low < 0) & (high < 0) & (low != high))
        found += [apart, apart + step]
    return np.unique(np.concatenate(found), axis=0)


def _runs(offsets: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Consecutive blocks whose items together stay near `most`."""
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[cuts[-1]] + most, side="right")) - 1
        cuts.append(max(stop, cuts[-1] + 1))
    return list(itertools.pairwise(cuts))


def _offsets(counts: NDArray) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _signs(look: Look, plan: Program | None, blocks: _Blocks) -> tuple[NDArray[np.uint16], NDArray[np.int16] | None]:
    """Which of its own samples each block has inside, 16 bits a row, and with a program the values near 0 (rows.near)."""
    bits = np.empty((len(blocks.coords), CELLS, CELLS), np.uint16)
    if plan is not None:
        near = np.empty(len(bits) * ROOM + CELLS**3, np.int16)
        near[len(bits) * CELLS**3 :][: CELLS**3] = np.iinfo(np.int16).max  # what lies where no block is active
        at = (blocks.coords, blocks.origin_mm - plan.centre_mm, blocks.h_mm)
        shared(rows.near, len(bits), SOME, *plan.arrays, *at, bits.reshape(-1), near.view(np.uint64), near)
        return bits, near
    inner = np.indices((CELLS,) * 3).reshape(3, -1).T
    some = BATCH // CELLS**3
    for first in range(0, len(bits), some):
        coords = blocks.coords[first : first + some]
        points = blocks.origin_mm + blocks.h_mm * (coords[:, None] * CELLS + inner).reshape(-1, 3)
        points.setflags(write=False)
        values = np.asarray(look(points), np.float64).reshape(-1, CELLS, CELLS, CELLS)
        shared(flying.pack_signs, len(values), SOME, values, bits[first : first + some])
    return bits, None


@lru_cache(maxsize=1)
def _places() -> NDArray[np.uint16]:
    """(2 * 256 * 16,): where flying.faces finds the number of each corner's edge, in planes of 17 x 56 numbers, the cell's
    low plane first, then the other way round; last of 16 how many triangles the case has."""
    count, table = case_table()
    low, high = edge_corners().astype(np.int64).T
    plane, axis = low & 1, high - low >> 1
    rest = 56 * (low >> 1 & 1) + (low >> 2) + 17 * axis
    edges = table.reshape(256, -1)[:, :15]
    places = np.stack([rest + 952 * plane, rest + 952 * (1 - plane)])[:, edges]
    out = np.zeros((2, 256, 16), np.uint16)
    out[:, :, : edges.shape[1]] = np.where(edges < 0, 0, places)
    out[:, :, 15] = count
    return out.reshape(-1)


def _placed(
    look: Look, blocks: _Blocks, words: NDArray[np.uint16], first: int, last: int, offsets: NDArray[np.int64]
) -> Array:
    """Vertices (n,3) of blocks first..last of a field without a program: both ends of each edge, a linear guess, then
    bracketed root finding on the field itself."""
    n, h = int(offsets[last] - offsets[first]), blocks.h_mm
    axis, low = np.empty(n, np.uint8), np.empty((n, 3))
    at = (blocks.coords, words, first, offsets, blocks.origin_mm, h)
    shared(_blocks(flying.edges, first), last - first, SOME, *at, axis, low)
    high = low.copy()
    high[np.arange(n), axis] += h
    ends = np.stack([_evaluate(look, low.copy()), _evaluate(look, high)], axis=1).astype(np.float64)
    ok = (ends[:, 0] < 0) != (ends[:, 1] < 0)
    t = np.full(n, 0.5)
    t[ok] = ends[ok, 0] / (ends[ok, 0] - ends[ok, 1])
    _find_roots(look, low, axis, ends, h, t)
    np.clip(t, EDGE_MARGIN, 1.0 - EDGE_MARGIN, out=t)
    points = np.empty((n, 3))
    roots.edge_points(low, axis, h, t, points)
    return points


def _find_roots(look: Look, low: Array, axis: NDArray[np.uint8], ends: Array, h: float, t: Array) -> None:
    """Moves t (n,) to the zero of the field along each edge; later steps look at the edges still open only."""
    where = np.arange(len(t))
    bracket = np.tile([0.0, 1.0], (len(t), 1))
    for step in range(ROOT_STEPS):
        points, here = np.empty((len(where), 3)), t[where]
        roots.edge_points(low, axis, h, here, points)
        points.setflags(write=False)
        found = np.array(look(points), np.float64)
        roots.tighten(found, step > 1 and step % 2 == 0, ROOT_TOLERANCE * h, bracket, ends, here)
        t[where] = here
        still = np.abs(found) > ROOT_TOLERANCE * h
        if not still.any():
            break
        where, low, axis, bracket, ends = where[still], low[still], axis[still], bracket[still], ends[still]
