"""Label maps and CT crops on disk: NIfTI and NRRD that 3D Slicer opens, the same bytes for the same input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Grid, InputError, Labels, Side, Volume
from implantforge.geom import bonenames, grids, imagefile

TOTALSEGMENTATOR = bonenames.TASKS["total"]
_VALUES = {name: value for value, name in TOTALSEGMENTATOR.items()}
FIRST_OTHER_VALUE = 200
# Two segments may share this part of the one painted later.
OVERLAP = 0.01
SIDES_APART_MM = 50.0
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
    """Labels of a .nii(.gz), .nrrd or .seg.nrrd, or of a folder with one .nii.gz a bone, as TotalSegmentator writes.

    Named by the file (segments, label table, file names), else by TotalSegmentator's values; turned to L, P, S and, with
    `grid`, sampled onto it by the nearest label. Layers of a Slicer segmentation become one map. InputError when the file
    has no place in space, no labels, segments that overlap, or misses the grid.
    """
    path = Path(path)
    found = _folder(path) if path.is_dir() else _file(path)
    return found if grid is None else grids.resampled(found, grid)


def _file(path: Path) -> Labels:
    image = imagefile.read(path, layered=True)
    axes, own = _place(image)
    raw = imagefile.voxels(image, "labels")
    if raw.min() < 0 or raw.max() > 255 or (raw.dtype.kind == "f" and not np.array_equal(raw, np.rint(raw))):
        raise InputError(f"labels: values {raw.min():g} to {raw.max():g}: whole numbers 0 to 255 are needed")
    values = np.zeros(own.shape, np.uint8)
    view = grids.raw_view(values, axes)
    if raw.ndim == 4:
        return Labels(own, values, _layers(image.fields, raw, view))
    view[...] = raw
    return Labels(own, values, _names(image.fields, image.names, values))


def _place(image: imagefile.RawImage) -> tuple[NDArray, Grid]:
    """Directions of the raw indices and the canonical grid; InputError when the image has no place."""
    if image.affine is None:
        raise InputError("labels: the file does not say where its voxels lie in the patient")
    found = grids.from_affine(image.affine)
    if isinstance(found, str):
        raise InputError(f"labels: {found}")
    return found[0], grids.canonical(found[0], found[1], image.affine[:3, 3], image.shape)


def _layers(fields: Mapping[str, str], raw: NDArray, view: NDArray) -> dict[str, int]:
    """Segments of several layers painted into one map (`view`); InputError where two of them overlap."""
    names: dict[str, int] = {}
    for n, (name, layer, value) in enumerate(_segments_of(fields), 1):
        if not 0 <= layer < raw.shape[3] or name in names or n > 255:
            raise InputError(f"labels: segment {name} is described twice or lies in layer {layer} of {raw.shape[3]}")
        names[name] = n
        _paint(view, raw[..., layer] == value, n, name)
    if not names:
        raise InputError("labels: layers without a description of their segments")
    return names


def _paint(view: NDArray, mask: NDArray[np.bool_], value: int, name: str) -> None:
    """Sets free voxels of `mask`; InputError when more than OVERLAP of it is taken."""
    taken, size = int(np.count_nonzero(mask & (view > 0))), int(np.count_nonzero(mask))
    if taken > OVERLAP * max(size, 1):
        raise InputError(f"labels: {taken} of {size} voxels of {name} lie in another segment too: one label per voxel is "
                         "needed")  # fmt: skip
    view[mask & (view == 0)] = value


def _folder(folder: Path) -> Labels:
    """One mask a file, named by the file; files that are no bone are left alone."""
    files = {bonenames.bone_name(p.name[: p.name.lower().index(".nii")]): p for p in sorted(folder.iterdir())
             if p.is_file() and p.name.lower().endswith((".nii.gz", ".nii"))}  # fmt: skip
    files.pop(None, None)
    if not files or len(files) > 255:
        raise InputError(f"labels: {len(files)} files of the folder are named as bones (femur_left.nii.gz and so on)")
    own: Grid | None = None
    values, view, names = np.zeros(0, np.uint8), np.zeros(0, np.uint8), {}
    for n, (name, path) in enumerate(sorted(files.items(), key=lambda item: str(item[0])), 1):
        image = imagefile.read(path)
        axes, place = _place(image)
        if own is None:
            own, values = place, np.zeros(place.shape, np.uint8)
        elif own.shape != place.shape or not np.allclose(own.affine, place.affine, atol=1e-3):
            raise InputError(f"labels: {name} lies on another grid than the bones before it: not of one scan")
        view = grids.raw_view(values, axes)
        mask = imagefile.voxels(image, "labels") > 0
        if mask.any():
            names[str(name)] = n
            _paint(view, mask, n, str(name))
    if own is None or not names:
        raise InputError("labels: every mask of the folder is empty")
    return Labels(own, values, names)


def sided(labels: Labels, side: Side | None = None) -> Labels:
    """The same map with left and right told apart in bones that come without (TotalSegmentator's appendicular bones).

    Two bodies at least SIDES_APART_MM apart along x are left and right; one body is of `side`, else of the only side the
    other bones have. What stays unclear keeps its plain name.
    """
    from scipy import ndimage

    values, names = labels.values.copy(), dict(labels.names)
    sides = {bonenames.parted(name)[1] for name in names} - {""}
    only = side or (sides.pop() if len(sides) == 1 else "")
    for name in sorted(labels.names):
        if not bonenames.CODES.get(name, ((), False))[1]:
            continue
        value = names[name]
        parts, count = ndimage.label(labels.values == value)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        big = np.flatnonzero(sizes > 0.2 * sizes.max()) + 1 if count else np.array([], int)
        x = [labels.grid.to_patient(np.argwhere(parts == n).mean(axis=0))[0] for n in big]
        if len(big) and np.ptp(x) >= SIDES_APART_MM and len(names) < 255:
            middle = (max(x) + min(x)) / 2
            where = np.argwhere(parts > 0)
            right = where[labels.grid.to_patient(where.astype(float))[:, 0] < middle]
            other = next(v for v in range(1, 256) if v not in names.values())
            values[tuple(right.T)] = other
            names |= {f"{name}_left": names.pop(name), f"{name}_right": other}
        elif only and len(big):
            names[f"{name}_{only}"] = names.pop(name)
    return Labels(labels.grid, values, names)


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
        return {_called(name): value for name, value in own.items()}
    names = {name: value for name, layer, value in _segments_of(fields) if layer == 0}
    if names:
        return names
    present = [int(v) for v in np.unique(values) if v]
    if not present:
        raise InputError("labels: the map is empty")
    return {TOTALSEGMENTATOR.get(v, f"label_{v}"): v for v in present}


def _segments_of(fields: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """(name, layer, value) of each segment that a 3D Slicer segmentation describes."""
    out = []
    for key, text in fields.items():
        segment = re.fullmatch(r"Segment(\d{1,5})_LabelValue", key)
        layer = fields.get(f"Segment{segment[1]}_Layer", "0") if segment else ""
        if segment and re.fullmatch(r"\d{1,5}", text) and re.fullmatch(r"\d{1,5}", layer):
            out.append((_called(fields.get(f"Segment{segment[1]}_Name", f"label_{text}")), int(layer), int(text)))
    return out


def _called(name: str) -> str:
    """A bone's class name for what someone called it, else the name made safe for a file."""
    return bonenames.bone_name(name) or bonenames.plain(name) or "label"
