"""Which points a closed mesh holds, by parity of vertical crossings: exact, no tolerance, no sampling of rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Mesh
from implantforge.kernels.crossings import crossing_parity


def inside(mesh: Mesh, points_mm: Array) -> NDArray[np.bool_]:
    """(n,) True for points (n,3) mm within the closed mesh; independent of how the mesh was made."""
    points = np.ascontiguousarray(points_mm, np.float64)
    triangles = np.ascontiguousarray(mesh.vertices[mesh.faces])
    low = triangles[:, :, :2].min(axis=(0, 1))
    extent = np.maximum(np.ptp(triangles[:, :, :2].reshape(-1, 2), axis=0), 1e-6)
    cells = 256
    size = extent / cells
    first = np.clip(((triangles[:, :, :2].min(axis=1) - low) / size).astype(np.int64), 0, cells - 1)
    last = np.clip(((triangles[:, :, :2].max(axis=1) - low) / size).astype(np.int64), 0, cells - 1)
    span = last - first + 1
    count = span.prod(axis=1)
    owner = np.repeat(np.arange(len(triangles)), count)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    column = first[owner, 0] + rank // span[owner, 1]
    row = first[owner, 1] + rank % span[owner, 1]
    cell = column * cells + row
    order = np.argsort(cell, kind="stable")
    start = np.searchsorted(cell[order], np.arange(cells * cells + 1))
    out = np.zeros(len(points), dtype=np.bool_)
    crossing_parity(triangles, owner[order], start, low, size, cells, points, out)
    return out
