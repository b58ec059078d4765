"""The four bones of every knee apart: cores that are certain, a flood on depth, and sheets through the joints."""

from __future__ import annotations

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from implantforge.core import Array, InputError, Side
from implantforge.stages.segment.heads import BONE_HU
from implantforge.stages.segment.knee import Knee
from implantforge.stages.segment.knee_sheet import apply_sheet, find_sheet
from implantforge.stages.segment.names import NAMES

FEMUR, TIBIA, FIBULA, PATELLA = 1, 2, 3, 4
KNEE_BONES = {"femur": FEMUR, "tibia": TIBIA, "fibula": FIBULA, "patella": PATELLA}
JOINTS = (((TIBIA, FEMUR), 9.0), ((FEMUR, PATELLA), 8.0), ((TIBIA, FIBULA), 5.0))
"""Lower and upper bone of each joint space, and how near they must come to share one (mm)."""
_COARSE_MM = 1.3
_TUNNEL_VOXELS = 12
_PLATE_HU = (350.0, 500.0, 650.0)
"""Where the patella cannot be told from the femur, the dip between their plates shows at one of these."""
_POCKET_MM3, _POCKET_HU, _POCKET_THICK_MM = 60.0, 120.0, 6.5
"""A joint space that contact seals is a sheet at most 6 mm thick; marrow is thicker, cancellous holes are brighter."""
_AXIS_MM, _NEIGHBOUR_MM, _LEAST_MM3 = 70.0, 65.0, 800.0
"""A shaft's middle lies this near the axis of its knee, a fibula's this near the tibia's; smaller pieces are no shafts."""
_GLOW_MM, _GLOW, _GLOW_LAYERS = 1.5, 0.35, 2
"""Two layers, for a narrow joint glows from both sides; more would eat marrow through a cortex that is not seen."""
_LEVELS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


def split(smooth: NDArray[np.float32], spacing_mm: Array, knees: list[Knee]) -> NDArray[np.uint8]:
    """Values of segment.names for femur, tibia, fibula and patella of every knee; interiors filled, joints apart.

    Everything connected with a knee's bones through the image gets their names: of a scan that shows hips or feet as
    well, hand in the part between. InputError where a knee's side cannot be told or left and right disagree with shape.
    """
    out = np.zeros(smooth.shape, dtype=np.uint8)
    found: list[tuple[Side, float]] = []
    for window, at in _windows(smooth.shape, spacing_mm, knees):
        local, side = _one(smooth[window], spacing_mm, at)
        found.append((side, at[0] + window[0].start * spacing_mm[0]))
        table = np.zeros(5, dtype=np.uint8)
        for bone, value in KNEE_BONES.items():
            table[value] = NAMES[f"{bone}_{side}"]
        out[window] = table[local]
    if len(found) == 2 and (found[0][0] == found[1][0] or (found[0][1] > found[1][1]) != (found[0][0] == "left")):
        raise InputError("segment: left and right disagree with the shape of the knees; is the scan mirrored?")
    return out


def _windows(
    shape: tuple[int, ...], spacing_mm: Array, knees: list[Knee]
) -> list[tuple[tuple[slice, slice, slice], Array]]:
    """Part of the image that belongs to each knee, halfway to the other one, and the knee's middle in it (mm)."""
    cuts = [0, shape[0]]
    if len(knees) == 2:
        cuts.insert(1, round(float((knees[0].at_mm[0] + knees[1].at_mm[0]) / 2 / spacing_mm[0])))
    return [
        ((slice(a, b), slice(0, shape[1]), slice(0, shape[2])), knee.at_mm - [a * spacing_mm[0], 0.0, 0.0])
        for knee, a, b in zip(knees, cuts[:-1], cuts[1:])
    ]


def _one(smooth: NDArray[np.float32], spacing_mm: Array, at_mm: Array) -> tuple[NDArray[np.uint8], Side]:
    """Bone values (KNEE_BONES) of one knee, and its side."""
    dense = smooth > BONE_HU
    bone = filled(dense)
    pockets = _pockets(smooth, bone & ~dense, spacing_mm)
    bone &= ~pockets
    step = np.maximum(np.rint(_COARSE_MM / spacing_mm).astype(int), 1)
    coarse_mm = step * spacing_mm
    rough = _rough(_shrunk(bone, step), coarse_mm, at_mm)
    for level in _PLATE_HU:
        if (rough == PATELLA).any():
            break
        tighter = _rough(_shrunk(filled(smooth > level), step), coarse_mm, at_mm)
        rough = tighter if (tighter == PATELLA).any() else rough
    side = _side(rough, coarse_mm, at_mm)
    values = _grown(rough, step, bone)
    # the rough map's voxel (0,0,0) covers the first block: its centre lies half a block in
    shift = (step - 1) / 2 * spacing_mm
    for pair, within in JOINTS:
        sheet = find_sheet(smooth, spacing_mm, rough, coarse_mm, shift, pair, within)
        if sheet is not None:
            gap = apply_sheet(sheet, values, spacing_mm, pair)
            values.reshape(-1)[gap[~dense.reshape(-1)[gap]]] = 0
    values = _whole(values)
    if pockets.any():
        for value in KNEE_BONES.values():
            values[pockets & filled(values == value) & (values == 0)] = value
    for _ in range(_GLOW_LAYERS):
        values[_glow(smooth, values, spacing_mm)] = 0
    return _whole(values), side


def _glow(smooth: NDArray[np.float32], values: NDArray[np.uint8], spacing_mm: Array) -> NDArray[np.bool_]:
    """Outermost voxels that are bone by the blur of a dense cortex alone: under a share of the brightest beside them."""
    rim = (values > 0) & ndimage.binary_dilation(values == 0)
    size = tuple(int(n) for n in 2 * np.ceil(_GLOW_MM / spacing_mm).astype(int) + 1)
    return np.asarray(rim & (smooth < _GLOW * ndimage.maximum_filter(smooth, size)))


def _pockets(smooth: NDArray[np.float32], closed: NDArray[np.bool_], spacing_mm: Array) -> NDArray[np.bool_]:
    """Closed holes that look like joint space sealed by contact all round: a thin sheet as dark as cartilage."""
    piece = cc3d.connected_components(closed, connectivity=6)
    if not piece.any():
        return np.zeros(closed.shape, dtype=bool)
    count = np.bincount(piece.ravel())
    mean = np.bincount(piece.ravel(), weights=smooth.ravel()) / np.maximum(count, 1)
    large = (count * np.prod(spacing_mm) > _POCKET_MM3) & (mean < _POCKET_HU)
    large[0] = False
    if not large.any():
        return np.zeros(closed.shape, dtype=bool)
    depth = edt.edt(closed, anisotropy=tuple(spacing_mm), parallel=2)
    thick = np.unique(piece[depth > _POCKET_THICK_MM / 2])
    large[thick] = False
    return np.asarray(large[piece])


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with every hole closed that slices of two of the three orientations enclose.

    A hole in the cortex opens single slices only, and a joint space is enclosed in one orientation at most. Shafts that
    the image cuts are closed by what the end slices enclose. The tunnel that a hole leaves where two opened slices cross
    is small in the third orientation: holes up to _TUNNEL_VOXELS are closed there as well.
    """
    axial = _enclosed(mask, 2)
    capped = mask.copy()
    capped[:, :, [0, -1]] |= axial[:, :, [0, -1]]
    votes = axial.view(np.uint8) + _enclosed(capped, 0).view(np.uint8) + _enclosed(capped, 1).view(np.uint8)
    out = capped | (votes >= 2)
    for axis in range(3):
        out |= _enclosed(out, axis, _TUNNEL_VOXELS)
    return np.asarray(out)


def _enclosed(mask: NDArray[np.bool_], axis: int, largest: int = 0) -> NDArray[np.bool_]:
    """Background voxels that cannot reach the border of their slice, in holes up to a size unless it is 0."""
    out = np.zeros(mask.shape, dtype=bool)
    for n in range(mask.shape[axis]):
        at = tuple(n if a == axis else slice(None) for a in range(3))
        part = mask[at]
        rows, cols = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        if not len(rows):
            continue
        box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        holes = cc3d.connected_components(np.ascontiguousarray(~part[box]), connectivity=4)
        inner = np.ones(int(holes.max()) + 1, dtype=bool)
        inner[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = False
        inner[0] = False
        if largest:
            inner &= np.bincount(holes.ravel(), minlength=len(inner)) <= largest
        out[at][box] = inner[holes]
    return out


def _shrunk(mask: NDArray[np.bool_], step: NDArray) -> NDArray[np.bool_]:
    """Blocks that are bone for the most part."""
    size = -(-np.array(mask.shape) // step)
    padded = np.pad(mask, [(0, int(n * s - m)) for n, s, m in zip(size, step, mask.shape)], mode="edge")
    shape = [int(x) for pair in zip(size, step) for x in pair]
    return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32) >= 0.5)


def _rough(bone: NDArray[np.bool_], spacing_mm: Array, at_mm: Array) -> NDArray[np.uint8]:
    """First labels on blocks: a flood on depth from the shafts and from the patella's core."""
    depth = edt.edt(bone, anisotropy=tuple(spacing_mm), parallel=2)
    seeds = np.zeros(bone.shape, dtype=np.uint8)
    level = at_mm[2] / spacing_mm[2]
    top, high = _slab(level, 38.0, 105.0, spacing_mm, bone.shape[2])
    bottom, low = _slab(level, -105.0, -58.0, spacing_mm, bone.shape[2])
    femur = _largest(bone[:, :, top:high], 1, spacing_mm, at_mm)
    shank = _largest(bone[:, :, bottom:low], 2, spacing_mm, at_mm)
    if not femur or not shank:
        raise InputError("segment: a knee was seen, but no shafts above and below it; scan 100 mm on either side")
    seeds[:, :, top:high][femur[0]] = FEMUR
    for value, mask in zip((TIBIA, FIBULA), shank):
        seeds[:, :, bottom:low][mask] = value
    seeds[_patella(depth, spacing_mm, at_mm)] = PATELLA
    return np.asarray(watershed(-depth, seeds, mask=bone), dtype=np.uint8)


def _slab(level: float, low_mm: float, high_mm: float, spacing_mm: Array, count: int) -> tuple[int, int]:
    a, b = (int(np.clip(round(level + s / spacing_mm[2]), 0, count)) for s in (low_mm, high_mm))
    return a, b


def _largest(mask: NDArray[np.bool_], count: int, spacing_mm: Array, at_mm: Array) -> list[NDArray[np.bool_]]:
    """The largest pieces of a mask, largest first: one near the axis of the knee, the others near it in turn."""
    piece = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=6)
    if not piece.any():
        return []
    stats = cc3d.statistics(piece)
    sizes = stats["voxel_counts"] * np.prod(spacing_mm)
    middles = stats["centroids"] * spacing_mm
    sizes[0], sizes[sizes < _LEAST_MM3] = 0.0, 0.0
    around, chosen = at_mm, []
    for reach in (_AXIS_MM, *[_NEIGHBOUR_MM] * (count - 1)):
        away = np.linalg.norm((middles - around)[:, :2], axis=1)
        best = int(np.where(away < reach, sizes, 0.0).argmax())
        if sizes[best] <= 0.0 or away[best] >= reach:
            break
        chosen.append(piece == best)
        around, sizes[best] = middles[best], 0.0
    return chosen


def _patella(depth: NDArray[np.float32], spacing_mm: Array, at_mm: Array) -> NDArray[np.bool_]:
    """Core of the patella: the first piece in front of the joint that comes loose as the bones are peeled."""
    core = np.zeros(depth.shape, dtype=bool)
    low, high = _slab(at_mm[2] / spacing_mm[2], -45.0, 75.0, spacing_mm, depth.shape[2])
    for level in _LEVELS_MM:
        piece = cc3d.connected_components(np.ascontiguousarray(depth[:, :, low:high] > level), connectivity=6)
        if not piece.max():
            break
        stats = cc3d.statistics(piece)
        best, size = 0, 0.0
        for n in range(1, int(piece.max()) + 1):
            box = stats["bounding_boxes"][n]
            extent = np.array([b.stop - b.start for b in box]) * spacing_mm
            volume = float(stats["voxel_counts"][n] * np.prod(spacing_mm))
            middle = stats["centroids"][n] * spacing_mm
            free = box[2].start > 0 and box[2].stop < piece.shape[2]
            placed = middle[1] < at_mm[1] - 18.0 and abs(middle[0] - at_mm[0]) < 45.0
            if (
                free
                and placed
                and (extent < 65.0).all()
                and volume > max(3500.0 - 1200.0 * level, 120.0)
                and volume > size
            ):
                best, size = n, volume
        if best:
            core[:, :, low:high] = piece == best
            break
    return core


def _side(rough: NDArray[np.uint8], spacing_mm: Array, at_mm: Array) -> Side:
    """From the fibula, lateral of the tibia, seen with the patella in front; InputError without a fibula."""
    low, high = _slab(at_mm[2] / spacing_mm[2], -105.0, -45.0, spacing_mm, rough.shape[2])
    tibia, fibula = (np.argwhere(rough[:, :, low:high] == value).mean(axis=0) * spacing_mm if
                     (rough[:, :, low:high] == value).any() else None for value in (TIBIA, FIBULA))  # fmt: skip
    if tibia is None or fibula is None:
        raise InputError("segment: a knee without a fibula 50-100 mm below it: its side cannot be told")
    aside = (fibula - tibia)[:2]
    front = np.array([0.0, -1.0])
    patella, femur = (np.argwhere(rough == value) for value in (PATELLA, FEMUR))
    if len(patella):
        levels = (femur[:, 2] >= patella[:, 2].min()) & (femur[:, 2] <= patella[:, 2].max())
        front = ((patella.mean(axis=0) - femur[levels].mean(axis=0)) * spacing_mm)[:2]
        front = front / np.linalg.norm(front)
    # x is left and y is back: a quarter turn from front (0, -1) points left (1, 0)
    return "left" if aside @ np.array([-front[1], front[0]]) > 0 else "right"


def _grown(rough: NDArray[np.uint8], step: NDArray, bone: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Block labels on the image's voxels; bone voxels of blocks that were none take the nearest label within two blocks."""
    spread = rough.copy()
    for _ in range(2):
        wide = ndimage.grey_dilation(spread, size=(3, 3, 3))
        spread = np.where(spread == 0, wide, spread)
    for axis in range(3):
        spread = np.repeat(spread, int(step[axis]), axis)
    return np.where(bone, spread[tuple(slice(0, n) for n in bone.shape)], np.uint8(0))


def _whole(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each bone one piece: crumbs of it join the bone that they touch, else they are dropped."""
    piece = cc3d.connected_components(values, connectivity=6)
    stats = cc3d.statistics(piece)
    counts = stats["voxel_counts"]
    first = np.zeros(len(counts), dtype=np.uint8)
    for n in range(1, len(counts)):
        box = stats["bounding_boxes"][n]
        inside = piece[box] == n
        first[n] = values[box][inside][0]
    main = {int(v): max((n for n in range(1, len(counts)) if first[n] == v), key=lambda n: counts[n])
            for v in np.unique(first[1:])}  # fmt: skip
    out = values
    for n in range(1, len(counts)):
        if main[int(first[n])] == n:
            continue
        wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in stats["bounding_boxes"][n])
        own = piece[wide] == n
        ring = out[wide][ndimage.binary_dilation(own) & ~own]
        ring = ring[(ring != 0) & (ring != first[n])]
        out[wide][own] = np.bincount(ring).argmax() if len(ring) else 0
    return out
