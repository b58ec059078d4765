"""Label maps and CT crops on disk: NIfTI and NRRD that 3D Slicer opens, the same bytes for the same input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Grid, InputError, Labels, Volume
from implantforge.geom import grids, imagefile

# Value: class name of TotalSegmentator's task "total", version 2 (bones only).
TOTALSEGMENTATOR: dict[int, str] = {
    25: "sacrum", 26: "vertebrae_S1", 27: "vertebrae_L5", 28: "vertebrae_L4", 29: "vertebrae_L3", 30: "vertebrae_L2",
    31: "vertebrae_L1", 32: "vertebrae_T12", 33: "vertebrae_T11", 34: "vertebrae_T10", 69: "humerus_left",
    70: "humerus_right", 71: "scapula_left", 72: "scapula_right", 73: "clavicula_left", 74: "clavicula_right",
    75: "femur_left", 76: "femur_right", 77: "hip_left", 78: "hip_right", 91: "skull", 116: "sternum",
}  # fmt: skip
_VALUES = {name: value for value, name in TOTALSEGMENTATOR.items()}
FIRST_OTHER_VALUE = 200
_BONE_COLOURS = ((0.95, 0.84, 0.57), (0.72, 0.86, 0.95), (0.85, 0.70, 0.92), (0.70, 0.92, 0.73), (0.96, 0.70, 0.66))


def write(labels: Labels, path: str | Path) -> None:
    """Labels as .nii.gz (TotalSegmentator values, names kept inside) or .nrrd / .seg.nrrd (a Slicer segmentation).

    Bones that TotalSegmentator's main task does not know get values from 200 in a NIfTI. InputError: other suffix.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        table, names = np.arange(256, dtype=np.uint8), {}
        others = sorted(n for n in labels.names if n not in _VALUES)
        for bone, value in labels.names.items():
            names[bone] = _VALUES[bone] if bone in _VALUES else FIRST_OTHER_VALUE + others.index(bone)
            table[value] = names[bone]
        imagefile.write_nifti(path, labels.grid, table[labels.values], names)
    elif name.endswith(".nrrd"):
        imagefile.write_nrrd(path, labels.grid, labels.values, _segments(labels))
    else:
        raise InputError(
            f"labels: cannot write {path.suffix or 'a file without suffix'}: use .nii.gz, .nrrd or .seg.nrrd"
        )


def read(path: str | Path, grid: Grid | None = None) -> Labels:
    """Labels with the file's own names, else TotalSegmentator's; turned to L, P, S and, with `grid`, sampled onto it.

    Sampling takes the nearest label. InputError when the file has no place in space, no labels, or misses the grid.
    """
    image = imagefile.read(Path(path))
    if image.affine is None:
        raise InputError("labels: the file does not say where its voxels lie in the patient")
    found = grids.from_affine(image.affine)
    if isinstance(found, str):
        raise InputError(f"labels: {found}")
    raw = imagefile.voxels(image, "labels")
    if raw.min() < 0 or raw.max() > 255 or (raw.dtype.kind == "f" and not np.array_equal(raw, np.rint(raw))):
        raise InputError(f"labels: values {raw.min():g} to {raw.max():g}: whole numbers 0 to 255 are needed")
    own = grids.canonical(found[0], found[1], image.affine[:3, 3], image.shape)
    values = np.empty(own.shape, np.uint8)
    grids.raw_view(values, found[0])[...] = raw
    names = _names(image.fields, image.names, values)
    if grid is not None and not _same(own, grid):
        values, own = _sampled(values, own, grid), grid
    return Labels(own, values, names)


def write_volume(volume: Volume, path: str | Path) -> None:
    """HU as .nrrd in left-posterior-superior mm with the series hash; nothing about the person goes in."""
    imagefile.write_nrrd(Path(path), volume.grid, volume.hu, {"series_uid_sha256": volume.series_uid, "unit": "HU"})


def read_volume(path: str | Path) -> Volume:
    """A volume that write_volume wrote (any int16 HU NRRD will do); DICOM and foreign files go through stages.dicom."""
    image = imagefile.read(Path(path))
    if image.affine is None or image.dtype.kind != "i" or image.dtype.itemsize != 2:
        raise InputError("volume: an int16 .nrrd with space directions and origin is needed")
    found = grids.from_affine(image.affine)
    if isinstance(found, str):
        raise InputError(f"volume: {found}")
    own = grids.canonical(found[0], found[1], image.affine[:3, 3], image.shape)
    hu = np.empty(own.shape, np.int16)
    grids.raw_view(hu, found[0])[...] = imagefile.voxels(image, "volume")
    return Volume(own, hu, image.fields.get("series_uid_sha256", ""))


def _segments(labels: Labels) -> dict[str, str]:
    """Header keys of a 3D Slicer segmentation, one block per bone."""
    fields = {"Segmentation_MasterRepresentation": "Binary labelmap",
              "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
              "Segmentation_ReferenceImageExtentOffset": "0 0 0"}  # fmt: skip
    for n, (name, value) in enumerate(sorted(labels.names.items(), key=lambda item: item[1])):
        colour = _BONE_COLOURS[n % len(_BONE_COLOURS)]
        extent = _extent(labels.values == value)
        entries = {"ID": name, "Name": name, "NameAutoGenerated": "0", "Color": " ".join(map(str, colour)),
                   "ColorAutoGenerated": "0", "LabelValue": str(value), "Layer": "0",
                   "Extent": " ".join(map(str, extent)), "Tags": "|"}  # fmt: skip
        fields |= {f"Segment{n}_{key}": text for key, text in entries.items()}
    return fields


def _extent(mask: NDArray[np.bool_]) -> list[int]:
    """First and last index along i, j, k; Slicer writes 0 -1 for an empty segment."""
    out: list[int] = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        out += [int(hits[0]), int(hits[-1])] if len(hits) else [0, -1]
    return out


def _names(fields: Mapping[str, str], own: Mapping[str, int], values: NDArray[np.uint8]) -> dict[str, int]:
    if own:
        return {_plain(name): value for name, value in own.items()}
    names: dict[str, int] = {}
    for key, text in fields.items():
        segment = re.fullmatch(r"Segment(\d+)_LabelValue", key)
        if segment and text.isdigit() and fields.get(f"Segment{segment[1]}_Layer", "0") == "0":
            names[_plain(fields.get(f"Segment{segment[1]}_Name", f"label_{text}"))] = int(text)
    if names:
        return names
    present = [int(v) for v in np.unique(values) if v]
    if not present:
        raise InputError("labels: the map is empty")
    return {TOTALSEGMENTATOR.get(v, f"label_{v}"): v for v in present}


def _plain(name: str) -> str:
    """A name that may safely become a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.strip())[:64] or "label"


def _same(one: Grid, two: Grid) -> bool:
    return one.shape == two.shape and bool(np.allclose(one.affine, two.affine, atol=1e-3))


def _sampled(values: NDArray[np.uint8], own: Grid, grid: Grid) -> NDArray[np.uint8]:
    """Nearest label at each place of `grid`, 0 outside the map; InputError when the two do not meet."""
    out = np.zeros(grid.shape, np.uint8)
    plane = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape[:2]), indexing="ij"), axis=-1).reshape(-1, 2)
    met = False
    for k in range(grid.shape[2]):
        at = np.column_stack([plane, np.full(len(plane), k)])
        index = np.rint(own.to_index(grid.to_patient(at))).astype(np.int64)
        inside = ((index >= 0) & (index < own.shape)).all(axis=1)
        met |= bool(inside.any())
        layer = np.zeros(len(plane), np.uint8)
        layer[inside] = values[tuple(index[inside].T)]
        out[:, :, k] = layer.reshape(grid.shape[:2])
    if not met:
        raise InputError("labels: the map and the CT lie in different places: not of the same scan")
    return out
