"""Point spread and noise of a scan, read from its own bones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Labels, Volume
from implantforge.geom import edges
from implantforge.stages.surface.fitting import reach_mm

SAMPLE = 6000
USUAL_FWHM_MM = 0.85
LEAST_EDGES = 60
THICK, SURE, WORST = 2.6, 0.08, 0.3
PLENTY = 400


class Sharpness(NamedTuple):
    """blur_mm (3,) standard deviation along the grid's axes, voxel average included; noise_hu of one voxel; edges: how
    many thick-cortex edges the blur was read from (0: assumed from the voxels and a usual kernel)."""

    blur_mm: Array
    noise_hu: float
    edges: int


def sharpness(volume: Volume, labels: Labels) -> Sharpness:
    """Blur that explains best the steep edges of thick cortex of all bones, and noise in soft tissue.

    A scan that shows no thick cortex is taken to have a kernel of 0.85 mm FWHM in plane and slices as thick as their
    distance: a thin layer alone does not tell blur from thickness.
    """
    noise = _noise_hu(volume, labels)
    spacing = volume.grid.spacing_mm
    usual = np.sqrt((np.maximum(USUAL_FWHM_MM, spacing * (spacing > 1.0)) / 2.3548) ** 2 + spacing**2 / 12)
    points, normals, own = _border(labels)
    blur, count = usual, 0
    for _ in range(3 if len(points) else 0):
        square, normal = _thick_edges(volume, labels, noise, blur, points, normals, own)
        count = len(square)
        if count < LEAST_EDGES:
            return Sharpness(usual, noise, 0)
        blur = _along_axes(square, normal, usual, blur)
    return Sharpness(blur, noise, count)


def _noise_hu(volume: Volume, labels: Labels) -> float:
    """Second differences across soft tissue. Grain of neighbouring voxels counts as signal, as it does in a fit."""
    hu = volume.hu[1:-1, 1:-1, ::5].astype(np.float32)
    flesh = (labels.values[1:-1, 1:-1, ::5] == 0) & (hu > -60) & (hu < 130)
    found = []
    for low, high in ((np.s_[:-2, 1:-1, ::5], np.s_[2:, 1:-1, ::5]), (np.s_[1:-1, :-2, ::5], np.s_[1:-1, 2:, ::5])):
        found.append((volume.hu[low].astype(np.float32) + volume.hu[high] - 2 * hu)[flesh])
    both = np.abs(np.concatenate(found))
    return float(np.median(both)) * 1.4826 / np.sqrt(6.0) if len(both) > 200 else 20.0


def _border(labels: Labels) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Evenly drawn border voxels (n,3) mm, outward normals of the label around them, and their labels."""
    values, spacing = labels.values, labels.grid.spacing_mm
    reach = np.maximum(np.ceil(2.0 / spacing).astype(int), 1)
    at = np.flatnonzero(values != 0)
    place = np.unravel_index(at, values.shape)
    at = at[np.all([(p >= r) & (p < n - r) for p, r, n in zip(place, reach, values.shape)], axis=0)]
    edge = np.zeros(len(at), bool)
    for step in (1, values.shape[2], values.shape[1] * values.shape[2]):
        edge |= (values.ravel()[at - step] == 0) | (values.ravel()[at + step] == 0)
    flat = at[edge]
    flat = flat[np.linspace(0, len(flat) - 1, min(SAMPLE, len(flat))).astype(int)] if len(flat) else flat
    index = np.stack(np.unravel_index(flat, values.shape), axis=1)
    window = [np.arange(-r, r + 1) for r in reach]
    offset = np.stack(np.meshgrid(*window, indexing="ij"), axis=-1).reshape(-1, 3)
    own = values[tuple(index.T)]
    pull = np.zeros((len(index), 3))
    weight = np.exp(-0.5 * ((offset * spacing / np.maximum(1.0, 0.8 * spacing)) ** 2).sum(axis=1))
    for shift, w in zip(offset, weight):
        pull -= w * (values[tuple((index + shift).T)] == own)[:, None] * (shift * spacing)
    length = np.linalg.norm(pull, axis=1)
    good = length > 1e-6
    return index[good] * spacing, pull[good] / length[good, None], own[good]


def _thick_edges(
    volume: Volume, labels: Labels, noise: float, blur: Array, points: Array, normals: Array, own: NDArray[np.uint8]
) -> tuple[Array, Array]:
    """Blur variance along the normal and the normal's squares, where cortex is thick and no other bone is near."""
    squares, along, doubts = [], [], []
    spacing = volume.grid.spacing_mm
    for value in np.unique(own):
        mine = own == value
        scan = edges.Scan(volume.hu, labels.values, int(value), spacing, blur, noise)
        given = edges.prior(int(mine.sum()), cortex=(1200.0, 400.0), flesh=(20.0, 90.0))
        given.sigma[:, edges.LOG_BLUR] = 0.5
        found = edges.fit(
            scan, points[mine], normals[mine], np.zeros(len(given.mean)), given, reach_mm=reach_mm(spacing),
            search=True, rounds=20,
        )  # fmt: skip
        x = found.parameters
        width, held = np.exp(x[:, edges.LOG_BLUR]), np.sqrt(normals[mine] ** 2 @ blur**2)
        good = (np.exp(x[:, edges.LOG_THICK]) > THICK * np.maximum(width, held)) & (found.variance < 0.15**2)
        good &= (x[:, edges.CORTEX] - x[:, edges.FLESH] > 350) & (np.abs(x[:, edges.EDGE]) < 1.5)
        good &= (found.gap_mm > 1e8) & (found.far_mm > 1e8)
        squares.append(width[good] ** 2)
        along.append(normals[mine][good] ** 2)
        doubts.append(found.blur_variance[good])
    square, normal, doubt = np.concatenate(squares), np.concatenate(along), np.concatenate(doubts)
    few = np.sort(doubt)[min(PLENTY, len(doubt)) - 1] if len(doubt) else 0.0
    sure = doubt <= min(max(SURE**2, float(few)), WORST**2)
    return square[sure], normal[sure]


def _along_axes(square: Array, normal: Array, usual: Array, blur: Array) -> Array:
    """Variances along the axes from variances along normals: least absolute residuals, few steps of reweighting. An
    axis that no edge faces keeps its usual blur, in the proportion the other axes show."""
    scale = float(np.median(square / (normal @ usual**2)))
    weak = 0.01 * len(square)
    # slices are seldom sharper than half, and never blurrier than somewhat more, than their distance says
    low, high = (0.4 * usual) ** 2, (np.where(usual > 0.6, 1.15, 2.2) * usual) ** 2
    weight = np.ones(len(square))
    out: Array = np.square(blur)
    for _ in range(20):
        left = normal.T @ (normal * weight[:, None]) + weak * np.eye(3)
        found = np.linalg.solve(left, normal.T @ (square * weight) + weak * scale * usual**2)
        out = np.clip(found, low, high).astype(np.float64)
        weight = 0.05 / np.maximum(np.abs(square - normal @ out), 0.02)
    return np.sqrt(out)
