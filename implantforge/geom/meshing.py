"""From field to mesh: streaming, block-sparse marching cubes with vertices on the true surface."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field, GeometryError, Mesh
from implantforge.kernels import polygonise as kernels
from implantforge.kernels.mc_table import case_table, edge_corners

Progress = Callable[[float], None]

CELLS = 8  # cells along a block: smaller wastes centre samples, larger wastes samples away from the surface
COARSE = 4  # blocks along a coarse block of the first look
BATCH = 1 << 19  # points handed to a field at once: large enough for threads, small enough for the cache
EDGE_MARGIN = 0.01  # vertices keep this share of an edge from its ends, so that none coincide, even in float32 files
ROOT_STEPS = 6
ROOT_TOLERANCE = 5e-3  # in units of h, before the last step; most edges of a smooth field meet it at the second look


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Active blocks in lexicographic order, their row numbers, and where the sample lattice starts."""

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
    box = np.asarray(field.bounds if bounds is None else bounds, np.float64)
    if not h_mm > 0 or not np.isfinite(box).all() or (box[1] <= box[0]).any():
        raise GeometryError(f"polygonise: needs h > 0 and a finite box, got h {h_mm} mm, bounds {box.tolist()} mm")
    blocks = _active(field, box, float(h_mm))
    values = _sample(field, blocks, progress)
    mesh = _surface(field, blocks, values, progress)
    low, high = mesh.bounds
    if (low < box[0] - 0.5 * h_mm).any() or (high > box[1] + 0.5 * h_mm).any():
        raise GeometryError(
            f"polygonise: surface spans {low.round(2).tolist()}..{high.round(2).tolist()} mm, outside the bounds "
            f"{box[0].round(2).tolist()}..{box[1].round(2).tolist()} mm; enlarge the bounds"
        )
    return mesh


def _evaluate(field: Field, points: Array) -> NDArray:
    """field at many points, in cache-sized batches."""
    points.setflags(write=False)
    parts = [field.evaluate(points[a : a + BATCH]) for a in range(0, len(points), BATCH)]
    return np.concatenate(parts) if parts else np.empty(0)


def _reached(field: Field, corner: NDArray[np.int64], cells: int, origin: Array, h: float) -> NDArray[np.bool_]:
    """Which cubes of `cells` cells, low corner in cells, the surface can touch; GeometryError on NaN."""
    centre = origin + h * (corner + 0.5 * cells)
    value = _evaluate(field, centre)
    if np.isnan(value).any():
        where = centre[np.isnan(value)][0].round(3).tolist()
        raise GeometryError(f"polygonise: field is NaN at {where} mm")
    reach = field.lipschitz * 0.5 * np.sqrt(3.0) * cells * h * (1.0 + 1e-6) + 1e-6 * h
    return np.abs(value) <= reach


def _active(field: Field, box: Array, h: float) -> _Blocks:
    """Blocks that may hold surface, found from coarse to fine."""
    # Odd fractions of h keep flat faces of round size off the sample lattice.
    origin = box[0] - np.array([1.382, 1.3819, 1.3821]) * h
    cells = np.ceil((box[1] - origin) / h).astype(np.int64) + 2
    coarse = CELLS * COARSE
    shape = -(-cells // coarse)
    corner = np.indices(shape).reshape(3, -1).T * coarse
    corner = corner[_reached(field, corner, coarse, origin, h)]
    inner = np.indices((COARSE,) * 3).reshape(3, -1).T * CELLS
    corner = (corner[:, None] + inner).reshape(-1, 3)
    coords = corner[_reached(field, corner, CELLS, origin, h)] // CELLS
    if not len(coords):
        raise GeometryError(f"polygonise: no surface inside {box.round(2).tolist()} mm at h {h} mm")
    coords = coords[np.lexsort(coords.T[::-1])]
    lookup = np.full(shape * COARSE + 1, -1, np.int32)
    lookup[tuple(coords.T)] = np.arange(len(coords), dtype=np.int32)
    return _Blocks(coords, lookup, origin, h)


def _runs(offsets: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Consecutive blocks whose items together stay near `most`."""
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[cuts[-1]] + most, side="right")) - 1
        cuts.append(max(stop, cuts[-1] + 1))
    return list(itertools.pairwise(cuts))


def _offsets(counts: NDArray) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _sample(field: Field, blocks: _Blocks, progress: Progress | None) -> NDArray[np.float32]:
    """Field at the samples of every active block, (n, B+1, B+1, B+1); each point of space is evaluated once."""
    side = CELLS + 1
    counts = np.empty(len(blocks.coords), np.int64)
    kernels.count_points(blocks.coords, blocks.lookup, CELLS, counts)
    offsets = _offsets(counts)
    values = np.empty((len(blocks.coords), side, side, side), np.float32)
    flat = values.reshape(-1)
    for first, last in _runs(offsets, BATCH):
        total = int(offsets[last] - offsets[first])
        slots, points = np.empty(total, np.int64), np.empty((total, 3))
        kernels.list_points(
            blocks.coords, blocks.lookup, CELLS, first, last, offsets, blocks.origin_mm, blocks.h_mm, slots, points
        )
        points.setflags(write=False)
        flat[slots] = field.evaluate(points)
        if progress:
            progress(0.7 * last / len(counts))
    kernels.share_samples(blocks.coords, blocks.lookup, CELLS, values)
    if np.isnan(flat.sum(dtype=np.float64)) and np.isnan(flat).any():
        raise GeometryError("polygonise: field is NaN near the surface")
    return values


def _surface(field: Field, blocks: _Blocks, values: NDArray[np.float32], progress: Progress | None) -> Mesh:
    """Vertices and triangles of the sampled blocks."""
    tri_count, table = case_table()
    words = np.empty((len(values), CELLS, CELLS, CELLS), np.uint16)
    counts = np.empty((len(values), 2), np.int64)
    kernels.count_surface(values, tri_count, words, counts)
    vertex_offsets, face_offsets = _offsets(counts[:, 0]), _offsets(counts[:, 1])
    if not face_offsets[-1]:
        raise GeometryError(f"polygonise: no surface at h {blocks.h_mm} mm: the solid is empty or thinner than a cell")
    if vertex_offsets[-1] >= 2**31:
        raise GeometryError(f"polygonise: {vertex_offsets[-1]} vertices are more than a mesh can number; raise h")
    vertices = np.empty((vertex_offsets[-1], 3))
    for first, last in _runs(vertex_offsets, BATCH):
        part = vertices[vertex_offsets[first] : vertex_offsets[last]]
        _place(field, blocks, values, words, first, last, vertex_offsets, part)
        if progress:
            progress(0.7 + 0.25 * last / len(counts))
    faces = np.empty((face_offsets[-1], 3), np.int32)
    tables = (tri_count, table, edge_corners())
    kernels.faces(blocks.coords, blocks.lookup, values, words, tables, vertex_offsets, face_offsets, faces)
    if progress:
        progress(1.0)
    return Mesh(vertices, faces)


def _place(
    field: Field,
    blocks: _Blocks,
    values: NDArray[np.float32],
    words: NDArray[np.uint16],
    first: int,
    last: int,
    offsets: NDArray[np.int64],
    out: Array,
) -> None:
    """Writes the vertices of blocks first..last: linear guess, then bracketed root finding on the field itself."""
    n, h = len(out), blocks.h_mm
    axis, ends = np.empty(n, np.uint8), np.empty((n, 2))
    low = np.empty((n, 3))
    kernels.edge_vertices(blocks.coords, values, words, first, last, offsets, blocks.origin_mm, h, axis, ends, low)
    t = ends[:, 0] / (ends[:, 0] - ends[:, 1])
    _find_roots(field, low, axis, ends, h, t)
    np.clip(t, EDGE_MARGIN, 1.0 - EDGE_MARGIN, out=t)
    kernels.edge_points(low, axis, h, t, out)


def _find_roots(field: Field, low: Array, axis: NDArray[np.uint8], ends: Array, h: float, t: Array) -> None:
    """Moves t (n,) to the zero of the field along each edge; later steps look at the edges still open only."""
    where = np.arange(len(t))
    bracket = np.tile([0.0, 1.0], (len(t), 1))
    for step in range(ROOT_STEPS):
        points, here = np.empty((len(where), 3)), t[where]
        kernels.edge_points(low, axis, h, here, points)
        points.setflags(write=False)
        found = np.array(field.evaluate(points), np.float64)
        kernels.tighten(found, step > 1 and step % 2 == 0, ROOT_TOLERANCE * h, bracket, ends, here)
        t[where] = here
        still = np.abs(found) > ROOT_TOLERANCE * h
        if not still.any():
            break
        where, low, axis, bracket, ends = where[still], low[still], axis[still], bracket[still], ends[still]
