"""Which points a closed mesh holds, by parity of vertical crossings: exact, no tolerance, no sampling of rays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Grid, Mesh
from implantforge.kernels.crossings import crossing_parity
from implantforge.kernels.scan import crossings


def inside(mesh: Mesh, points_mm: Array) -> NDArray[np.bool_]:
    """(n,) True for points (n,3) mm within the closed mesh; independent of how the mesh was made."""
    return container(mesh)(points_mm)


def container(mesh: Mesh) -> Callable[[Array], NDArray[np.bool_]]:
    """`inside` for many calls on one mesh: its faces are sorted into columns once."""
    triangles = np.ascontiguousarray(mesh.vertices[mesh.faces])
    low = triangles[:, :, :2].min(axis=(0, 1))
    extent = np.maximum(np.ptp(triangles[:, :, :2].reshape(-1, 2), axis=0), 1e-6)
    cells = int(np.clip(np.sqrt(len(triangles)) / 2, 16, 1024))
    size = extent / cells
    first = np.clip(((triangles[:, :, :2].min(axis=1) - low) / size).astype(np.int64), 0, cells - 1)
    last = np.clip(((triangles[:, :, :2].max(axis=1) - low) / size).astype(np.int64), 0, cells - 1)
    span = last - first + 1
    count = span.prod(axis=1)
    owner = np.repeat(np.arange(len(triangles)), count)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    cell = (first[owner, 0] + rank // span[owner, 1]) * cells + first[owner, 1] + rank % span[owner, 1]
    order = np.argsort(cell, kind="stable")
    start = np.searchsorted(cell[order], np.arange(cells * cells + 1))
    held = owner[order]

    def look(points_mm: Array) -> NDArray[np.bool_]:
        points = np.ascontiguousarray(points_mm, np.float64)
        out = np.zeros(len(points), dtype=np.bool_)
        crossing_parity(triangles, held, start, low, size, cells, points, out)
        return out

    return look


def voxels(mesh: Mesh, grid: Grid) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """The window of the grid that a closed mesh reaches, and which voxel centres of it lie inside."""
    index = grid.to_index(mesh.vertices)
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, low + 1, grid.shape)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    corners = np.ascontiguousarray((index - low)[mesh.faces])
    odd = np.zeros(tuple(int(n) for n in high - low), np.bool_)
    slab = 8
    first = np.clip(np.floor(corners[:, :, 0].min(axis=1)) // slab, 0, None).astype(int)
    last = np.clip(np.ceil(corners[:, :, 0].max(axis=1)) // slab, 0, (odd.shape[0] - 1) // slab).astype(int)
    count = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(corners)), count)
    where = first[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    order = np.argsort(where, kind="stable")
    starts = np.searchsorted(where[order], np.arange((odd.shape[0] + slab - 1) // slab + 1))
    # far below any distance of interest, and no mesh has an edge there by construction
    crossings(corners, owner[order], starts, slab, np.array([1.3e-6, 0.7e-6]), odd)
    return window, odd  # type: ignore[return-value]
