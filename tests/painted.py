"""Analytic shapes painted as a CT, independent of the package: fine grid, partial volume, gaussian blur, voxel average,
grain. The truth is a closed formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from implantforge.core import Grid, Labels, Pose, Volume

Array = NDArray[np.float64]
FWHM = 2.3548
Distance = Callable[[Array, Array, Array], Array]


def ball(radius: float) -> Distance:
    """Distance to a sphere."""
    return lambda x, y, z: np.sqrt(x * x + y * y + z * z) - radius


def rod(radius: float, axis: tuple[float, float, float], half: float = 1e9) -> Distance:
    """Distance to a cylinder about an axis through the origin, flat ends at +-half (a bound of it beyond the rims)."""
    u = np.asarray(axis) / np.linalg.norm(axis)

    def at(x: Array, y: Array, z: Array) -> Array:
        along = x * u[0] + y * u[1] + z * u[2]
        away = np.sqrt(np.maximum(x * x + y * y + z * z - along * along, 0.0)) - radius
        return np.maximum(away, np.abs(along) - half)

    return at


def plate(thickness: float, normal: tuple[float, float, float], half: float) -> Distance:
    """Distance to a square plate: box in a frame whose first axis is the normal."""
    n = np.asarray(normal) / np.linalg.norm(normal)
    u = np.cross(n, [0.0, 0.0, 1.0] if abs(n[2]) < 0.9 else [0.0, 1.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(n, u)

    def at(x: Array, y: Array, z: Array) -> Array:
        a, b, c = (np.abs(x * w[0] + y * w[1] + z * w[2]) for w in (n, u, v))
        return np.maximum(np.maximum(a - thickness / 2, b - half), c - half)

    return at


@dataclass(frozen=True)
class Bone:
    """A body with cortex of the given thickness (all cortex when None)."""

    distance: Distance
    cortex_mm: float | None = None
    cortex_hu: float = 1300.0
    marrow_hu: float = -20.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Scan:
    """How it is scanned."""

    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.0)
    fwhm_mm: float = 0.8
    fwhm_axial_mm: float = 1.0
    noise_hu: float = 0.0
    grain: float = 0.7
    flesh_hu: float = 50.0
    seed: int = 0


def scan(bones: dict[str, Bone], half_mm: tuple[float, float, float], how: Scan) -> tuple[Volume, Labels]:
    """CT of a box about the origin and the truth labels (voxel centres inside)."""
    step = np.array(how.spacing_mm)
    count = np.ceil(2 * np.array(half_mm) / step).astype(int)
    low = -0.5 * (count - 1) * step + [0.11, 0.07, 0.13]
    fine = np.maximum(np.ceil(step / 0.22), 2).astype(int)
    tiny = step / fine
    pad = np.ceil(3.0 / step).astype(int)
    axes = [low[a] - pad[a] * step[a] + (np.arange((count[a] + 2 * pad[a]) * fine[a]) + 0.5) * tiny[a] - step[a] / 2
            for a in range(3)]  # fmt: skip
    x, y, z = (axes[a].reshape([-1 if b == a else 1 for b in range(3)]) for a in range(3))
    hu = np.full([len(a) for a in axes], how.flesh_hu, np.float32)
    soft = float(tiny.mean())
    names, values = {}, np.zeros(count, np.uint8)
    cx, cy, cz = ((low[a] + np.arange(count[a]) * step[a]).reshape([-1 if b == a else 1 for b in range(3)])
                  for a in range(3))  # fmt: skip
    for number, (name, bone) in enumerate(bones.items(), 1):
        ox, oy, oz = bone.offset
        d = bone.distance(x - ox, y - oy, z - oz)
        share = np.clip(0.5 - d / soft, 0, 1)
        level: float | Array = bone.cortex_hu
        if bone.cortex_mm is not None:
            core = np.clip(0.5 - (d + bone.cortex_mm) / soft, 0, 1)
            level = bone.cortex_hu + (bone.marrow_hu - bone.cortex_hu) * core
        hu += (share * (level - hu)).astype(np.float32)
        names[name] = number
        values[bone.distance(cx - ox, cy - oy, cz - oz) < 0] = number
    sigma = np.array([how.fwhm_mm, how.fwhm_mm, how.fwhm_axial_mm]) / FWHM
    hu = gaussian_filter(hu, sigma / tiny, mode="nearest", truncate=4.5)
    nx, ny, nz = (n // f for n, f in zip(hu.shape, fine))
    hu = hu.reshape(nx, fine[0], ny, fine[1], nz, fine[2]).mean(axis=(1, 3, 5))
    hu = hu[tuple(slice(p, p + n) for p, n in zip(pad, count))]
    if how.noise_hu > 0:
        noise = np.random.default_rng(how.seed).standard_normal(hu.shape)
        for axis in (0, 1):
            noise = gaussian_filter1d(noise, how.grain, axis=axis)
        hu = hu + noise * (how.noise_hu / noise.std())
    grid = Grid(Pose(np.eye(3), low), step, tuple(int(n) for n in count))
    return Volume(grid, np.rint(hu).astype(np.int16)), Labels(grid, values, names)
