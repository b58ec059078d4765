"""Spinodoids: a periodic sum of waves whose vectors lie near a sphere, with phases by seed (Soyarslan et al. 2018, doi
10.1016/j.actamat.2018.01.005)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from implantforge.core import Array
from implantforge.stages.lattice.rooms import depths, passing

SIDE = 4  # cells along a tile: waves along it
NODES, FINE = 32, 44  # along a cell
SHELL = 0.4  # wave vectors are taken this near to SIDE
FAR = 0.22  # cells; distances are cut off here
LIMIT = 0.08  # cells beyond the surface or the sheet where distances are cut off


@lru_cache(maxsize=4)
def waves(seed: int, nodes: int = NODES) -> NDArray[np.float64]:
    """f at the nodes of one tile, this many along a cell, of mean 0 and variance 1."""
    n = SIDE * nodes
    rng = np.random.default_rng(seed)
    span = np.arange(-SIDE - 1, SIDE + 2)
    k = np.stack(np.meshgrid(span, span, span, indexing="ij"), axis=-1).reshape(-1, 3)
    k = k[np.abs(np.linalg.norm(k, axis=1) - SIDE) <= SHELL]
    k = k[[tuple(row) > (0, 0, 0) for row in k.tolist()]]
    spectrum = np.zeros((n, n, n), np.complex128)
    spectrum[tuple(k.T)] = np.exp(2j * np.pi * rng.uniform(size=len(k)))
    f = np.fft.ifftn(spectrum).real
    out: NDArray[np.float64] = (f - f.mean()) / f.std()
    out.setflags(write=False)
    return out


@lru_cache(maxsize=8)
def shares(kind: str, form: str, seed: int) -> Array:
    """Sorted f (network) or distance to f = 0 (sheet, cells) over one tile."""
    if form == "network":
        return np.sort(waves(seed), axis=None)
    return np.sort(np.abs(_distance(seed, 0.0)), axis=None)


def _surface(f: NDArray, level: float) -> tuple[Array, Array]:
    """Points on f = level where edges between nodes cross it, in nodes, and unit normals there."""
    slope = np.stack([0.5 * (np.roll(f, -1, a) - np.roll(f, 1, a)) for a in range(3)], axis=-1)
    found, normal = [], []
    for axis in range(3):
        ahead = np.roll(f, -1, axis)
        at = np.argwhere((f < level) != (ahead < level))
        i, j, k = at.T
        beyond = at.copy()
        beyond[:, axis] = (beyond[:, axis] + 1) % len(f)
        t = (level - f[i, j, k]) / (ahead[i, j, k] - f[i, j, k])
        foot = at.astype(np.float64)
        foot[:, axis] += t
        a, b = slope[i, j, k], slope[tuple(beyond.T)]
        found.append(foot)
        normal.append(a + t[:, None] * (b - a))
    n = np.concatenate(normal)
    return np.concatenate(found) % len(f), n / np.linalg.norm(n, axis=1)[:, None]


@lru_cache(maxsize=4)
def _distance(seed: int, level: float, far: float = FAR) -> NDArray[np.float64]:
    """Signed distance (cells), at most far, to f = level at the nodes of one tile: to the plane through its nearest
    point."""
    f = waves(seed)
    foot, normal = _surface(f, level)
    nodes = np.indices(f.shape).reshape(3, -1).T.astype(np.float64)
    away, which = cKDTree(foot, boxsize=len(f)).query(nodes, distance_upper_bound=far * NODES + 1.5, workers=1)
    out = np.full(len(nodes), far)
    near = np.isfinite(away)
    gap = nodes[near] - foot[which[near]]
    gap -= len(f) * np.round(gap / len(f))
    plane = np.abs(np.einsum("ij,ij->i", gap, normal[which[near]]))
    # the plane is the nearer truth close by; farther out, and where the surface bends away, the point is
    out[near] = np.minimum(np.where(away[near] < 1.5, plane, away[near]) / NODES, far)
    signed: NDArray[np.float64] = np.where(f.ravel() < level, -out, out).reshape(f.shape)
    return signed


@lru_cache(maxsize=6)
def sides(kind: str, form: str, seed: int, level: float, fine: bool = False) -> tuple[NDArray, NDArray, float]:
    """Depth (cells) in {f < level} and in {f > level}, each negative in the other, at the nodes of a tile, and their
    step."""
    nodes = FINE if fine else NODES
    low = depths(waves(seed, nodes), level) / nodes
    return low, -low, 1.0 / nodes


def neck(kind: str, form: str, seed: int, level: float) -> float:
    """Largest sphere that passes through {f < level} of the tile."""
    return 2 * passing(sides(kind, form, seed, level)[0])


def table(kind: str, form: str, seed: int, level: float, reach: float) -> NDArray[np.float32]:
    """Signed distance (cells), at most reach, at the nodes of a tile, both ends of each axis included."""
    out = np.pad(_distance(seed, level, reach), ((0, 1),) * 3, mode="wrap").astype(np.float32)
    out.setflags(write=False)
    return out
