"""Slow, plain twins of the mesher's kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def block_points(blocks: NDArray[np.int64], size: int, origin: Array, h: float) -> Array:
    """Sample points (n, B+1, B+1, B+1, 3) mm of blocks (n,3)."""
    inner = np.moveaxis(np.indices((size + 1,) * 3), 0, -1)
    return origin + h * (blocks[:, None, None, None] * size + inner)


def block_owner(blocks: NDArray[np.int64], lookup: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Row of the block that owns each sample (n, B+1, B+1, B+1), -1 when inactive."""
    inner = np.indices((size + 1,) * 3) // size
    return lookup[tuple(blocks[:, a, None, None, None] + inner[a] for a in range(3))].astype(np.int64)


def crossed(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the x, y, z edges of the samples each block owns are crossed (n,B,B,B,3)."""
    inside = values < 0
    low = inside[:, :-1, :-1, :-1]
    ahead = (inside[:, 1:, :-1, :-1], inside[:, :-1, 1:, :-1], inside[:, :-1, :-1, 1:])
    return np.stack([low != other for other in ahead], axis=-1)


def cases(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sign pattern of every cell (n,B,B,B)."""
    inside, size = values < 0, values.shape[1] - 1
    out = np.zeros((len(values), size, size, size), np.int64)
    for c in range(8):
        i, j, k = c & 1, c >> 1 & 1, c >> 2
        out |= inside[:, i : i + size, j : j + size, k : k + size].astype(np.int64) << c
    return out


def count_surface(
    values: NDArray[np.float32], tri_count: NDArray[np.int8]
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Words (n,B,B,B) and counts (n,2) as the kernel of this name makes them."""
    edges = crossed(values)
    per_sample = edges.sum(axis=-1).reshape(len(values), -1)
    before = (np.cumsum(per_sample, axis=1) - per_sample).reshape(edges.shape[:4])
    words = (before << 3 | (edges << np.arange(3)).sum(axis=-1)).astype(np.uint16)
    triangles = tri_count[cases(values)].reshape(len(values), -1).sum(axis=1, dtype=np.int64)
    return words, np.stack([per_sample.sum(axis=1), triangles], axis=1)


def edge_vertices(
    blocks: NDArray[np.int64], values: NDArray[np.float32], origin: Array, h: float
) -> tuple[NDArray[np.uint8], Array, Array]:
    """axis (n,), field at both ends (n,2) and low end (n,3) mm of all crossed edges, block by block."""
    size = values.shape[1] - 1
    b, i, j, k, axis = np.nonzero(crossed(values))
    low = origin + h * (blocks[b] * size + np.stack([i, j, k], axis=1))
    far = values[b, i + (axis == 0), j + (axis == 1), k + (axis == 2)]
    return axis.astype(np.uint8), np.stack([values[b, i, j, k], far], axis=1).astype(float), low


def block_faces(
    blocks: NDArray[np.int64],
    lookup: NDArray[np.int32],
    values: NDArray[np.float32],
    tables: tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int8]],
) -> NDArray[np.int64]:
    """Triangles (m,3) of all blocks, vertices numbered by block, sample and axis."""
    tri_count, table, corners = tables
    size = values.shape[1] - 1
    edges = crossed(values)
    number = (np.cumsum(edges) - 1).reshape(edges.shape)
    case = cases(values)
    used = np.arange(table.shape[1]) < tri_count[case][..., None]
    b, i, j, k, t = np.nonzero(used)
    edge = table[case[b, i, j, k], t].astype(int)
    corner = corners[edge, 0].astype(int)
    at = np.stack([i[:, None] + (corner & 1), j[:, None] + (corner >> 1 & 1), k[:, None] + (corner >> 2)])
    step = at // size
    owner = lookup[tuple(blocks[b, a][:, None] + step[a] for a in range(3))]
    return number[(owner, *(at % size), edge >> 2)]


def edge_points(low: Array, axis: NDArray[np.uint8], h: float, t: Array) -> Array:
    """Points (n,3) at t along each edge."""
    out = low.copy()
    out[np.arange(len(out)), axis] += h * t
    return out


def tighten(
    found: Array, halve: bool, tolerance: float, bracket: Array, ends: Array, t: Array
) -> tuple[Array, Array, Array]:
    """bracket, ends and t after one safeguarded step with found = field at t."""
    (lo, hi), (fl, fh) = bracket.T, ends.T
    live = (lo < t) & (t < hi) & (found != 0)
    with np.errstate(all="ignore"):
        guess = lo * found * fh / ((fl - found) * (fl - fh))
        guess = guess + t * fl * fh / ((found - fl) * (found - fh)) + hi * fl * found / ((fh - fl) * (fh - found))
    low_side = (found < 0) == (fl < 0)
    a, b = np.where(low_side, t, lo), np.where(low_side, hi, t)
    fa, fb = np.where(low_side, found, fl), np.where(low_side, fh, found)
    safe = np.where((a < guess) & (guess < b), guess, a + (b - a) * fa / (fa - fb))
    near = np.abs(found) <= tolerance
    move = np.where(near, safe, 0.5 * (a + b)) if halve else safe
    move = np.where(near & (np.abs(move - t) > 0.05), t, move)
    keep = live[:, None]
    after = np.where(keep, np.stack([a, b], 1), bracket), np.where(keep, np.stack([fa, fb], 1), ends)
    return *after, np.where(live, move, t)


def near_values(values: Array, h: float) -> NDArray[np.int64]:
    """values in h / 4096, at most 8 h, sign kept where they round to 0."""
    size = np.clip(np.abs(values) * 4096 / h, 1, 32767).astype(np.int64)
    return np.where(values < 0, -size, size)


def pack_signs(values: NDArray) -> NDArray[np.int64]:
    """16 signs along the last axis as one word, the first at the lowest bit."""
    return ((values < 0) << np.arange(16)).sum(axis=-1)


def stl_rows(points: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Binary STL records (m,25): normal, corners, zero."""
    corners = points[faces]
    wide = corners.astype(np.float64)
    normal = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    record = np.concatenate([normal.astype(np.float32), corners.reshape(-1, 9)], axis=1)
    return np.pad(record.view(np.uint16), ((0, 0), (0, 1)))


def mesh_lines(rows: NDArray, words: tuple[str, str, str, str], width: int) -> NDArray[np.uint8]:
    """Lines (n,width) of a 3MF: numbers between words, spaces before the end of the line."""
    form = "{:.5f}" if rows.dtype.kind == "f" else "{}"
    made = ["".join(a + form.format(b) for a, b in zip(words, row)) + words[3][0] for row in rows.tolist()]
    text = "".join(line.ljust(width - len(words[3]) + 1) + words[3][1:] for line in made)
    return np.frombuffer(text.encode(), np.uint8).reshape(-1, width)


def rows_before(words: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Set bits of words[b,:,:,:3] in the rows of the block before each row."""
    bits = np.unpackbits(np.ascontiguousarray(words[..., :3]).view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)
    before = np.cumsum(bits.reshape(len(words), -1), axis=1) - bits.reshape(len(words), -1)
    return before.reshape(words.shape[:3])
