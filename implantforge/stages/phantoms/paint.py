"""CT numbers for drawn bones: partial volume and scanner blur in closed form from signed distance, tissue, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d
from scipy.special import ndtr

from implantforge.core import Array, Grid, Labels, Pose, Volume
from implantforge.stages.phantoms.bones import PELVIS, SIDES, Bones
from implantforge.stages.phantoms.distance import Float, signed

LABELS = {"femur_left": 1, "femur_right": 2, "hip_left": 3, "hip_right": 4, "sacrum": 5}
_COARSE_MM = 4.0
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


@dataclass
class _Painted:
    """One bone on its own box of the CT grid: share of each voxel that is bone, and its CT number times that share."""

    start: NDArray[np.int64]
    inside: NDArray[np.bool_]
    share: Float
    value: Float


def field_of_view(bones: Bones, spacing: tuple[float, float, float], fat_mm: float) -> tuple[Grid, Array]:
    """The CT grid, 220 mm below the lower lesser trochanter up to the iliac crest; torso centre and half axes.

    Axes lie along the patient's; rows and columns differ in number so that a swapped axis shows.
    """
    step = np.array(spacing)
    hips = np.concatenate([bones.meshes[name].vertices for name in PELVIS])
    femora = np.concatenate([bones.meshes[f"femur_{side}"].vertices for side in SIDES])
    bottom = min(float((bones.femur[side].trochanter + 220 * bones.femur[side].distal)[2]) for side in SIDES)
    top = float(hips[:, 2].max()) + 8.0
    upper = femora[femora[:, 2] > bones.femur["left"].head[2] - 80]
    lo, hi = np.minimum(hips.min(axis=0), upper.min(axis=0)), np.maximum(hips.max(axis=0), upper.max(axis=0))
    centre = (lo + hi) / 2
    half = np.array([(hi - lo)[0] / 2 + fat_mm + 12, (hi - lo)[1] / 2 + fat_mm + 24])
    low = np.array([centre[0] - half[0] - 10, centre[1] - half[1] - 10, bottom])
    high = np.array([centre[0] + half[0] + 10, centre[1] + half[1] + 32, top])
    size = np.ceil((high - low) / step / 2).astype(int) * 2
    grid = Grid(
        Pose(np.eye(3), np.round(low, 2)), step, (int(size[0]), int(size[1]), int(np.ceil((top - bottom) / step[2])))
    )
    return grid, np.array([centre[0], centre[1], half[0], half[1]])


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


def _speckle(rng: np.random.Generator, shape: tuple[int, ...], smooth: float) -> Float:
    """Smooth random lattice with unit standard deviation."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), smooth, mode="wrap")
    return noise / noise.std()


def _paint_bone(bones: Bones, name: str, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> _Painted:
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
    texture = _speckle(rng, tuple(np.ceil(np.array(shape) * step / 2.5).astype(int) + 2), 0.8)
    axes = [origin[a] + np.arange(shape[a]) * step[a] for a in range(3)]
    grain = _upsample(texture, origin, 2.5, axes)[near]
    cortex = np.interp(thick, [1.0, 2.0, 4.0, 6.0], [880, 960, 1300, 1430]) + scanner.cortex_hu + 18 * grain
    spongy = _cancellous(bones, name, points, -depth - thick, grain, scanner)
    share, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    share[near] = outer
    value[near] = cortex * (outer - inner) + spongy * inner
    return _Painted(lo, d < 0, share, value)


def _cancellous(
    bones: Bones, name: str, points: Array, under: NDArray, grain: NDArray, scanner: Scanner
) -> NDArray[np.float64]:
    """CT number inside the cortex: dense head, sparser trochanters, marrow fat down the shaft."""
    if not name.startswith("femur"):
        base = 230 if name.startswith("hip") else 170
        return scanner.cancellous_hu * (base + 90 * np.exp(-under.clip(0) / 3.0)) + 38 * grain
    frame = bones.femur[name.removeprefix("femur_")]
    below = frame.below(points)
    head = np.linalg.norm(points - frame.head, axis=1)
    dense = 150 + 230 * _fade(head, 14, 48) + 90 * np.exp(-under.clip(0) / 3.5)
    spongy = scanner.cancellous_hu * dense + 42 * grain
    # trabeculae reach further down along the wall than in the middle
    solid = _fade(below - 8 * np.exp(-under.clip(0) / 3.0), -5, 55)
    return spongy * solid + (scanner.marrow_hu + 10 * grain) * (1 - solid)


def _fade(x: NDArray, full: float, none: float) -> NDArray:
    """1 up to full, smoothly to 0 at none."""
    t = ((x - full) / (none - full)).clip(0, 1)
    return 1 - t * t * (3 - 2 * t)


def _blend_min(a: NDArray, b: NDArray, width: float) -> NDArray:
    """Smooth minimum."""
    h = (0.5 + 0.5 * (b - a) / width).clip(0, 1)
    return b + (a - b) * h - width * h * (1 - h)


def _body(bones: Bones, grid: Grid, torso: Array, fat_mm: float, low: Array, shape: tuple[int, ...]) -> Float:
    """Approximate distance to the skin on the coarse lattice: a torso that tapers upward, and two thighs."""
    x, y, z = np.meshgrid(*(low[a] + np.arange(shape[a]) * _COARSE_MM for a in range(3)), indexing="ij", sparse=True)
    hip_z = float(np.mean([bones.femur[side].head[2] for side in SIDES]))
    wide = 1 - 0.10 * (1 - _fade(z, hip_z - 20, hip_z + 130))
    out = (np.hypot((x - torso[0]) / (torso[2] * wide), (y - torso[1]) / torso[3]) - 1) * torso[3]
    out = out + 1.2 * (hip_z - 45 - z).clip(0)
    for side in SIDES:
        frame, sign = bones.femur[side], 1 if side == "left" else -1
        along = (frame.trochanter[2] - z) / -frame.distal[2]
        cx = frame.trochanter[0] + along * frame.distal[0] - 4 * sign
        cy = frame.trochanter[1] + along * frame.distal[1] - 8
        taper = 1 - 0.10 * (along / 220).clip(0, 1.2)
        rx, ry = (60 + fat_mm) * taper, (66 + fat_mm) * taper
        thigh = (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * rx
        out = _blend_min(out, np.maximum(thigh, z - hip_z - 20), 14.0)
    return np.broadcast_to(out, shape).astype(np.float32)


def _tissue(
    bones: Bones, grid: Grid, torso: Array, scanner: Scanner, labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[Array, Float, Float]:
    """Coarse lattice origin, skin level and muscle level (negative inside)."""
    low = grid.pose.origin_mm - _COARSE_MM
    extent = np.array(grid.shape) * grid.spacing_mm + 2 * _COARSE_MM
    size = np.ceil(extent / _COARSE_MM).astype(int) + 1
    shape = (int(size[0]), int(size[1]), int(size[2]))
    body = _body(bones, grid, torso, scanner.fat_mm, low, shape)
    index = [
        ((low[a] + np.arange(shape[a]) * _COARSE_MM - grid.pose.origin_mm[a]) / grid.spacing_mm[a]) for a in range(3)
    ]
    take = np.ix_(*(np.rint(i).astype(int).clip(0, n - 1) for i, n in zip(index, grid.shape)))
    bone = labels[take] > 0
    away = distance_transform_edt(~bone, _COARSE_MM).astype(np.float32)
    broad, fine = _speckle(rng, shape, 4.0), _speckle(rng, shape, 1.6)
    z = low[2] + np.arange(shape[2]) * _COARSE_MM
    hip_z = float(np.mean([bones.femur[side].head[2] for side in SIDES]))
    reach = 36 + 40 * _fade(z, hip_z - 120, hip_z - 40)
    muscle = np.maximum(away - reach + 7 * broad, body + scanner.fat_mm * (1 + 0.2 * broad))
    x = low[0] + np.arange(shape[0]) * _COARSE_MM
    pelvic = (np.abs(x - torso[0])[:, None, None] < 70) & (z > hip_z - 40)
    bowel = np.maximum(6 * (fine - 0.1), body + scanner.fat_mm + 12)
    muscle = np.where(pelvic, np.minimum(muscle, bowel), muscle)
    # fat planes between muscles, kept off the bones so that every bone edge borders on one tissue
    septa = 2.2 - 9.0 * np.abs(gaussian_filter(broad + 0.8 * fine, 0.6)) - 0.5 * (8 - away).clip(0)
    return low, body, np.maximum(muscle, septa).astype(np.float32)


def paint(
    bones: Bones, spacing: tuple[float, float, float], scanner: Scanner, rng: np.random.Generator
) -> tuple[Volume, Labels]:
    """HU volume and label map of the drawn patient, LPS, axes along the patient's."""
    grid, torso = field_of_view(bones, spacing, scanner.fat_mm)
    painted = {name: _paint_bone(bones, name, grid, scanner, rng) for name in LABELS}
    labels = np.zeros(grid.shape, np.uint8)
    for name, bone in painted.items():
        box = tuple(slice(int(s), int(s) + n) for s, n in zip(bone.start, bone.inside.shape))
        labels[box][bone.inside] = LABELS[name]
    tissue = _tissue(bones, grid, torso, scanner, labels, rng)
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
    return Volume(grid, hu), Labels(grid, labels, LABELS)


def _soft_slab(
    grid: Grid, torso: Array, tissue: tuple[Array, Float, Float], scanner: Scanner, k: int, stop: int
) -> Float:
    """Air, table, skin, fat and muscle of slices k..stop, blurred."""
    low, body_level, muscle_level = tissue
    axes = [grid.pose.origin_mm[a] + np.arange(grid.shape[a]) * grid.spacing_mm[a] for a in range(3)]
    axes[2] = axes[2][k:stop]
    body = _upsample(body_level, low, _COARSE_MM, axes)
    muscle = _upsample(muscle_level, low, _COARSE_MM, axes)
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
