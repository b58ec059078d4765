"""CT numbers for drawn bones: partial volume and scanner blur in closed form from signed distance, tissue, noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import ndtr

from implantforge.core import Array, Grid, Labels, Volume
from implantforge.stages.phantoms.bones import Bones
from implantforge.stages.phantoms.distance import Float, signed

COARSE_MM = 4.0
_MUSCLE_HU, _FAT_HU, _SKIN_HU, _AIR_HU = 52.0, -95.0, 25.0, -1000.0


@dataclass(frozen=True)
class Scanner:
    """What differs from scan to scan: blur in mm (standard deviation), noise in HU, patient size in mm, HU offsets."""

    blur_mm: float
    blur_axial_mm: float
    noise_hu: float
    grain: float
    fat_mm: float
    cortex_hu: float
    cancellous_hu: float
    marrow_hu: float


def draw_scanner(rng: np.random.Generator, noise_hu: float | None, slice_mm: float) -> Scanner:
    """Point-spread of about 0.8 mm FWHM in plane and one slice (at least 1 mm) along z; noise 15-19 HU unless given."""
    fwhm, axial = rng.uniform(0.75, 0.85), rng.uniform(0.95, 1.05) * max(1.0, slice_mm)
    noise = rng.uniform(15, 19)
    return Scanner(
        fwhm / 2.3548, axial / 2.3548, float(noise if noise_hu is None else noise_hu), float(rng.uniform(0.65, 0.8)),
        float(rng.uniform(14, 26)), float(rng.normal(0, 40)), float(rng.uniform(0.85, 1.15)),
        float(rng.uniform(-55, -20)),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """What differs from region to region.

    labels: value of every bone; grid: the CT's; trunk: x and y of the middle of what lies on the table and its half
    axes, mm; spongy(name, points, depth under the cortex, grain): CT number inside the cortex; tissue(label values,
    rng): origin of the coarse lattice, skin level and muscle level on it, negative inside.
    """

    labels: Mapping[str, int]
    grid: Grid
    trunk: Array
    spongy: Callable[[str, Array, NDArray, NDArray], NDArray]
    tissue: Callable[[NDArray[np.uint8], np.random.Generator], tuple[Array, Float, Float]]


@dataclass
class _Painted:
    """One bone on its own box of the CT grid: share of each voxel that is bone, and its CT number times that share."""

    start: NDArray[np.int64]
    inside: NDArray[np.bool_]
    share: Float
    value: Float


def _upsample(coarse: Float, origin: Array, pitch: float, axes: list[Array]) -> Float:
    """Linear interpolation of a coarse lattice onto the product of three axes of coordinates."""
    out = coarse
    for axis in range(3):
        at = ((axes[axis] - origin[axis]) / pitch).clip(0, coarse.shape[axis] - 1.001)
        low = at.astype(int)
        part = (at - low).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        part = part.reshape(shape)
        out = out.take(low, axis) * (1 - part) + out.take(low + 1, axis) * part
    return out


def speckle(rng: np.random.Generator, shape: tuple[int, ...], smooth: float) -> Float:
    """Smooth random lattice with unit standard deviation."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), smooth, mode="wrap")
    return noise / noise.std()


def _paint_bone(bones: Bones, name: str, scene: Scene, scanner: Scanner, rng: np.random.Generator) -> _Painted:
    grid = scene.grid
    mesh, step = bones.meshes[name], grid.spacing_mm
    lo = np.floor((mesh.bounds[0] - 3.0 - grid.pose.origin_mm) / step).astype(int).clip(0)
    hi = np.minimum(np.ceil((mesh.bounds[1] + 3.0 - grid.pose.origin_mm) / step).astype(int) + 1, grid.shape)
    origin = grid.pose.origin_mm + lo * step
    shape = (int(hi[0] - lo[0]), int(hi[1] - lo[1]), int(hi[2] - lo[2]))
    d = signed(mesh, origin, step, shape, inner_mm=11.0, outer_mm=2.5)
    normal_z = np.gradient(d, float(step[2]), axis=2).clip(-1, 1) ** 2
    blur = np.sqrt(scanner.blur_mm**2 * (1 - normal_z) + scanner.blur_axial_mm**2 * normal_z)
    near = d < 2.5
    where = np.argwhere(near)
    points = origin + where * step
    depth, sigma = d[near], blur[near]
    thick = bones.cortex[name](points).astype(np.float32)
    outer, inner = ndtr(-depth / sigma), ndtr(-(depth + thick) / sigma)
    texture = speckle(rng, tuple(np.ceil(np.array(shape) * step / 2.5).astype(int) + 2), 0.8)
    axes = [origin[a] + np.arange(shape[a]) * step[a] for a in range(3)]
    grain = _upsample(texture, origin, 2.5, axes)[near]
    cortex = np.interp(thick, [1.0, 2.0, 4.0, 6.0], [880, 960, 1300, 1430]) + scanner.cortex_hu + 18 * grain
    spongy = scene.spongy(name, points, -depth - thick, grain)
    share, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    share[near] = outer
    value[near] = cortex * (outer - inner) + spongy * inner
    return _Painted(lo, d < 0, share, value)


def fade(x: NDArray, full: float, none: float) -> NDArray:
    """1 up to full, smoothly to 0 at none."""
    t = ((x - full) / (none - full)).clip(0, 1)
    return 1 - t * t * (3 - 2 * t)


def blend_min(a: NDArray, b: NDArray, width: float) -> NDArray:
    """Smooth minimum."""
    h = (0.5 + 0.5 * (b - a) / width).clip(0, 1)
    return b + (a - b) * h - width * h * (1 - h)


def paint(bones: Bones, scene: Scene, scanner: Scanner, rng: np.random.Generator) -> tuple[Volume, Labels]:
    """HU volume and label map of the drawn patient, LPS, axes along the patient's."""
    grid, torso = scene.grid, scene.trunk
    painted = {name: _paint_bone(bones, name, scene, scanner, rng) for name in scene.labels}
    labels = np.zeros(grid.shape, np.uint8)
    for name, bone in painted.items():
        box = tuple(slice(int(s), int(s) + n) for s, n in zip(bone.start, bone.inside.shape))
        labels[box][bone.inside] = scene.labels[name]
    tissue = scene.tissue(labels, rng)
    hu = np.empty(grid.shape, np.int16)
    for k in range(0, grid.shape[2], 32):
        stop = min(k + 32, grid.shape[2])
        soft = _soft_slab(grid, torso, tissue, scanner, k, stop)
        slab = soft.copy()
        for bone in painted.values():
            lo, hi = max(k - int(bone.start[2]), 0), min(stop - int(bone.start[2]), bone.share.shape[2])
            if lo >= hi:
                continue
            i, j = (slice(int(bone.start[a]), int(bone.start[a]) + bone.share.shape[a]) for a in range(2))
            rows = slice(lo + int(bone.start[2]) - k, hi + int(bone.start[2]) - k)
            # blurring is linear: every bone displaces its share of the tissue that lay there
            slab[i, j, rows] += bone.value[:, :, lo:hi] - bone.share[:, :, lo:hi] * soft[i, j, rows]
        hu[:, :, k:stop] = _noisy(slab, scanner, rng)
    return Volume(grid, hu), Labels(grid, labels, scene.labels)


def _soft_slab(
    grid: Grid, torso: Array, tissue: tuple[Array, Float, Float], scanner: Scanner, k: int, stop: int
) -> Float:
    """Air, table, skin, fat and muscle of slices k..stop, blurred."""
    low, body_level, muscle_level = tissue
    axes = [grid.pose.origin_mm[a] + np.arange(grid.shape[a]) * grid.spacing_mm[a] for a in range(3)]
    axes[2] = axes[2][k:stop]
    body = _upsample(body_level, low, COARSE_MM, axes)
    muscle = _upsample(muscle_level, low, COARSE_MM, axes)
    blur = scanner.blur_mm
    flesh, under_skin = ndtr(-body / blur), ndtr(-(body + 1.8) / blur)
    out = _FAT_HU + (_MUSCLE_HU - _FAT_HU) * ndtr(-muscle / (2 * blur))
    out = out * under_skin + _SKIN_HU * (flesh - under_skin) + _AIR_HU * (1 - flesh)
    x = axes[0] - torso[0]
    top = torso[1] + torso[3] + 4.0 - 0.0011 * x**2  # a curved table top touching the patient's back
    depth = axes[1][None, :] - top[:, None]
    shell = sum((ndtr((depth - a) / blur) - ndtr((depth - a - 2.0) / blur)) for a in (0.0, 18.0))
    foam = ndtr(depth / blur) - ndtr((depth - 20.0) / blur)
    table = (860 * shell + 70 * foam) * (np.abs(x) < 0.93 * torso[2])[:, None]
    return (out + table[:, :, None] * (1 - flesh)).astype(np.float32)


def _noisy(slab: Float, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """Correlated noise, an eighth as strong in air, rounded to int16 within -1024..3071."""
    noise = rng.standard_normal(slab.shape, dtype=np.float32)
    for axis in (0, 1):
        noise = gaussian_filter1d(noise, scanner.grain, axis=axis, truncate=3.0)
    gain = 0.12 + 0.88 * ((slab + 1000) / 900).clip(0, 1)
    slab += noise * (scanner.noise_hu / noise.std()) * gain
    return np.rint(slab).clip(-1024, 3071).astype(np.int16)
