"""Label maps held against the scan: maps of another scan, shifted, mirrored or swapped must not pass as bones."""

from __future__ import annotations

from collections.abc import Mapping

import cc3d
import numpy as np
from scipy import ndimage

from implantforge.core import Array, InputError, Labels, Mesh, Volume

MOST_UNSEEN, SOME_UNSEEN = 0.25, 0.06
"""Share of a surface without a bone edge in the scan: 0.003-0.03 where labels fit, 0.1-0.4 when 5 mm off, 0.5 mirrored."""
LEFT_OUT_SHARE = 0.01
FLAT_MM2, GOES_ON, BONE_HU = 60.0, 0.5, 250
"""A bone's own end leaves no face of this size with bone beyond it; a shaft's wall cut across is 100 mm2 and more."""
_WAYS = (("right", "left"), ("front", "back"), ("feet", "head"))
SIDED = ("femur", "hip", "tibia", "fibula", "patella")


def held_against_scan(unseen: Mapping[str, float]) -> list[str]:
    """Sentences on bones whose surface lies partly on no edge of the scan; InputError when most of a bone does."""
    bad = {name: share for name, share in sorted(unseen.items()) if share > MOST_UNSEEN}
    if bad:
        rows = ", ".join(f"{name} {100 * share:.0f} %" for name, share in bad.items())
        raise InputError(
            f"labels: surface that lies on no bone edge of this scan: {rows} (at most {100 * MOST_UNSEEN:.0f} %): "
            "labels of another scan, shifted or mirrored; check the map over the CT in a viewer"
        )
    return [
        f"{name}: {100 * share:.0f} % of the surface lies on no bone edge of the scan (usual: under 3 %); "
        "look at the label over the CT"
        for name, share in sorted(unseen.items())
        if share > SOME_UNSEEN
    ]


def pieces_left_out(labels: Labels) -> list[str]:
    """Sentences on labels of several pieces: only the largest becomes a surface."""
    out = []
    voxel_cm3 = float(np.prod(labels.grid.spacing_mm)) / 1000.0
    for name, value in sorted(labels.names.items()):
        pieces, count = cc3d.connected_components(labels.values == value, connectivity=26, return_N=True)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        lost = int(sizes.sum() - sizes.max())
        if lost > LEFT_OUT_SHARE * sizes.max():
            out.append(f"{name}: {count} pieces, the largest kept, {lost * voxel_cm3:.1f} cm3 left out")
    return out


def cut_short(labels: Labels, volume: Volume) -> list[str]:
    """Sentences on labels that end in a flat face inside the scan while dense bone goes on beyond it."""
    out = []
    boxes = ndimage.find_objects(labels.values)
    for name, value in sorted(labels.names.items()):
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        for axis in range(3):
            for end, step, way in ((box[axis].start, -1, 0), (box[axis].stop - 1, 1, 1)):
                if not 0 <= end + step < labels.values.shape[axis]:
                    continue
                plane, beyond = ([*box[:axis], end + n, *box[axis + 1 :]] for n in (0, step))
                face = labels.values[tuple(plane)] == value
                area = float(face.sum() * np.prod(np.delete(labels.grid.spacing_mm, axis)))
                bare = labels.values[tuple(beyond)][face] == 0
                goes_on = float((bare & (volume.hu[tuple(beyond)][face] > BONE_HU)).mean())
                if area > FLAT_MM2 and goes_on > GOES_ON:
                    out.append(
                        f"{name}: the label ends flat ({area:.0f} mm2) towards {_WAYS[axis][way]} inside the scan, and "
                        "bone goes on there: a map cut short? its end counts as the bone's"
                    )
    return out


def swapped_sides(meshes: Mapping[str, Mesh]) -> None:
    """InputError when a bone called left lies to the right of its fellow; one side alone cannot be told this way."""
    for bone in SIDED:
        left, right = meshes.get(f"{bone}_left"), meshes.get(f"{bone}_right")
        if left is not None and right is not None and _middle(left)[0] < _middle(right)[0]:
            raise InputError(
                f"labels: {bone}_left lies to the patient's right of {bone}_right: left and right are swapped"
            )


def _middle(mesh: Mesh) -> Array:
    return np.asarray(mesh.vertices.mean(axis=0))
