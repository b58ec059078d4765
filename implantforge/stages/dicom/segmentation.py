"""DICOM Segmentation objects in: binary, fractional or label map, of any maker, as Labels with our bone names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Grid, InputError, Labels
from implantforge.geom import bonenames, grids
from implantforge.stages.dicom import decoding, headers, sources
from implantforge.stages.dicom.headers import _first, _int, _number, _numbers, _text

STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
MAX_VOXELS = 1_000_000_000
MAX_FRAMES = 100_000
# Two segments may share this part of the smaller one (rounding); more has no one label.
OVERLAP = 0.01
STEP_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Frame:
    """segment is 0 in a label map, which holds all of them."""

    index: int
    segment: int
    position: Array
    orientation: Array
    spacing_mm: tuple[float, float]
    between_mm: float | None


def read_segmentation(path: str | Path, grid: Grid | None = None) -> Labels:
    """Labels of the one SEG at `path` (file, folder or zip), turned to L, P, S; with `grid`, sampled onto it (nearest).

    A segment is named by its label, else by its SNOMED code and laterality, as TotalSegmentator names bones; what is no
    bone known keeps its own words. Empty slices that the maker left out are filled in. InputError when there is not one
    SEG, when it has no place in space, or when segments overlap.
    """
    with headers.quiet(), sources.opened(Path(path)) as (members, _):
        found = []
        for member in members:
            dataset = _segmentation(member)
            if dataset is not None:
                found.append((member, dataset))
            if len(found) > 1:
                raise InputError("SEG: more than one segmentation in the input: give one file")
        if not found:
            raise InputError(f"SEG: no DICOM segmentation among {len(members)} files")
        try:
            labels = _read(*found[0])
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"SEG: the file is damaged ({type(error).__name__}): export it again") from None
    return labels if grid is None else grids.resampled(labels, grid)


def _segmentation(member: sources.Member) -> Any:
    """The data set of a SEG, None for any other file."""
    if member.size < 140 or not headers.plausible(member.read(256)):
        return None
    try:
        head = headers.dataset_of(member, ["SOPClassUID", "Modality", "Rows"])
        if head is None or str(head.get("SOPClassUID", "")) not in (STORAGE, LABELMAP_STORAGE):
            return None
        return headers.dataset_of(member)
    except InputError:
        return None
    except Exception as error:
        raise InputError(f"SEG: file {member.number} is damaged ({type(error).__name__})") from None


def _read(member: sources.Member, ds: Any) -> Labels:
    kind = _text(ds, "SegmentationType") or ("LABELMAP" if _text(ds, "SOPClassUID") == LABELMAP_STORAGE else "")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise InputError(
            f"SEG: segmentation type {headers._code(kind) or 'missing'}: BINARY, FRACTIONAL or LABELMAP can be read"
        )
    rows, columns, count = (_int(ds, tag) or 0 for tag in ("Rows", "Columns", "NumberOfFrames"))
    frames = _frames(ds, count, kind)
    if rows < 1 or columns < 1 or rows * columns * count > MAX_VOXELS * 8:
        raise InputError(f"SEG: {columns} x {rows} x {count} samples: too large or empty")
    axes, spacing, origin, slots = _stack(frames)
    shape = (columns, rows, int(slots.max()) + 1)
    if float(np.prod(shape)) > MAX_VOXELS:
        raise InputError(f"SEG: {shape[0]} x {shape[1]} x {shape[2]} voxels, limit {MAX_VOXELS:.0e}")
    names = _names(ds)
    values = {number: n for n, number in enumerate(sorted(names), 1)}
    own = grids.canonical(axes, spacing, origin, shape)
    out = np.zeros(own.shape, np.uint8)
    raw = grids.raw_view(out, axes)
    double = dict.fromkeys(names, 0)
    for frame, slot, plane in zip(frames, slots, _planes(member, ds, rows, columns, count, kind)):
        target = raw[:, :, slot]
        for number in [frame.segment] if frame.segment else np.unique(plane[plane > 0]):
            if int(number) not in values:
                raise InputError(f"SEG: a frame belongs to segment {int(number)}, which is not described")
            mask = (plane > 0 if frame.segment else plane == number).T
            taken = mask & (target > 0) & (target != values[int(number)])
            double[int(number)] += int(np.count_nonzero(taken))
            target[mask & (target == 0)] = values[int(number)]
    _overlapping(out, double, values, names)
    return Labels(own, out, {name: values[number] for number, name in names.items()})


def _overlapping(out: NDArray[np.uint8], double: dict[int, int], values: dict[int, int], names: dict[int, str]) -> None:
    sizes = np.bincount(out.ravel(), minlength=len(values) + 1)
    for number, shared in double.items():
        own = int(sizes[values[number]]) + shared
        if shared > OVERLAP * max(own, 1):
            raise InputError(f"SEG: {shared} of {own} voxels of {names[number]} lie in another segment too: export one "
                             "label per voxel")  # fmt: skip


def _frames(ds: Any, count: int, kind: str) -> list[_Frame]:
    shared, per_frame = _first(ds, "SharedFunctionalGroupsSequence"), ds.get("PerFrameFunctionalGroupsSequence") or []
    if not 0 < count <= MAX_FRAMES or len(per_frame) != count:
        raise InputError(f"SEG: claims {count} frames but describes {len(per_frame)}")
    out = []
    for n, own in enumerate(per_frame):

        def group(name: str, own: Any = own) -> Any:
            return _first(own, name) if _first(own, name) is not None else _first(shared, name)

        measures = group("PixelMeasuresSequence")
        spacing = _numbers(measures, "PixelSpacing", 2)
        position = _numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3)
        turn = _numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
        if spacing is None or position is None or turn is None or min(spacing) <= 0:
            raise InputError(f"SEG: frame {n + 1} does not say where it lies in the patient")
        number = _int(group("SegmentIdentificationSequence"), "ReferencedSegmentNumber") or 0
        if kind != "LABELMAP" and number < 1:
            raise InputError(f"SEG: frame {n + 1} does not say which segment it is")
        between = _number(measures, "SpacingBetweenSlices") or _number(measures, "SliceThickness")
        out.append(
            _Frame(
                n,
                0 if kind == "LABELMAP" else number,
                np.array(position),
                np.array(turn),
                (spacing[0], spacing[1]),
                between,
            )
        )
    return out


def _stack(frames: list[_Frame]) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """(axes as rows, spacing mm, first position, slice of each frame); frames share one upright, even stack."""
    first = frames[0]
    row, column = first.orientation[:3], first.orientation[3:]
    if max(abs(float(np.linalg.norm(v)) - 1) for v in (row, column)) > 1e-3 or abs(float(row @ column)) > 1e-3:
        raise InputError("SEG: row and column directions are off unit length or right angle")
    for frame in frames:
        if (
            np.abs(frame.orientation - first.orientation).max() > 1e-3
            or np.abs(np.subtract(frame.spacing_mm, first.spacing_mm)).max() > 1e-4
        ):
            raise InputError("SEG: frames differ in orientation or pixel spacing")
    normal = np.cross(row, column)
    axes = np.array([row, np.cross(normal, row), normal])
    along = np.array([f.position @ normal for f in frames])
    places, nth = np.unique(np.round(along - along.min(), 3), return_inverse=True)
    step = _step(places, first.between_mm)
    slots = np.rint(places / step)
    off = float(np.abs(places - slots * step).max())
    if off > max(STEP_TOLERANCE * step, 0.02) * max(1.0, len(places) / 20):
        raise InputError(f"SEG: frames lie up to {off:.3f} mm off even steps of {step:.3f} mm: not one stack")
    aside = np.array([f.position for f in frames]) @ axes[:2].T
    drift = float(np.abs(aside - aside[0]).max())
    if drift > 0.1:
        raise InputError(
            f"SEG: frames drift {drift:.1f} mm aside: drawn on a tilted scan; export it on straight slices"
        )
    origin = frames[int(np.argmin(along))].position
    return axes, np.array([first.spacing_mm[1], first.spacing_mm[0], step]), origin, slots[nth].astype(np.int64)


def _step(places: Array, said: float | None) -> float:
    """Slice step: the smallest there is, or what the file says when it left out so many slices that none is next."""
    if len(places) < 2:
        if not said or said <= 0:
            raise InputError("SEG: one slice of unknown thickness")
        return said
    least = float(np.diff(places).min())
    if said and said > 0 and least > 1.5 * said and abs(least / said - round(least / said)) < STEP_TOLERANCE:
        least = said
    whole = places[-1] / round(float(places[-1] / least))
    return float(whole) if abs(whole - least) < 0.05 * least else least


def _planes(member: sources.Member, ds: Any, rows: int, columns: int, count: int, kind: str) -> Any:
    """Each frame's numbers (rows, columns): 0 and 1, or the segments of a label map."""
    bits, syntax = _int(ds, "BitsAllocated"), str(ds.file_meta.TransferSyntaxUID)
    if syntax not in decoding.SYNTAXES:
        raise InputError(f"SEG: transfer syntax {decoding.syntax_name(syntax)} cannot be decoded: save uncompressed")
    least = 1.0
    if kind == "FRACTIONAL":
        most = _int(ds, "MaximumFractionalValue") or 255
        least = most / 2
    if "PixelData" not in ds:
        raise InputError("SEG: no pixel data")
    if bits == 1 and decoding.SYNTAXES[syntax][1] == "":
        data = np.frombuffer(ds.PixelData, np.uint8)
        want = (rows * columns * count + 7) // 8
        if len(data) < want:
            raise InputError(f"SEG: pixel data of {len(data)} bytes is short, {want} expected: cut off")
        for n in range(count):
            start, stop = n * rows * columns, (n + 1) * rows * columns
            part = np.unpackbits(data[start // 8 : (stop + 7) // 8], bitorder="little")
            yield part[start % 8 : start % 8 + rows * columns].reshape(rows, columns)
        return
    for n in range(count):
        plane = decoding.plain(ds, n, syntax, member.number)
        if plane.shape != (rows, columns):
            raise InputError(f"SEG: frame {n + 1} decodes to {plane.shape}, header says {(rows, columns)}")
        yield plane >= least if kind == "FRACTIONAL" else plane


def _names(ds: Any) -> dict[int, str]:
    """Segment number: name, each once."""
    out: dict[int, str] = {}
    for segment in ds.get("SegmentSequence") or []:
        number = _int(segment, "SegmentNumber")
        if number is None or number in out or not 0 <= number <= 65535:
            raise InputError("SEG: segments are not numbered one by one")
        if number == 0:  # the background of a label map
            continue
        name = _name(segment) or bonenames.plain(_text(segment, "SegmentLabel")) or f"label_{number}"
        while name in out.values():
            name = f"{name}_{number}"
        out[number] = name
    if not out or len(out) > 255:
        raise InputError(f"SEG: {len(out)} segments: 1 to 255 can be read")
    return out


def _name(segment: Any) -> str | None:
    """A bone's class name from the segment's label, else from its codes."""
    kind = _first(segment, "SegmentedPropertyTypeCodeSequence")
    region = _first(segment, "AnatomicRegionSequence")
    side = ""
    for owner, tag in ((kind, "SegmentedPropertyTypeModifierCodeSequence"), (region, "AnatomicRegionModifierSequence"),
                       (segment, "SegmentedPropertyTypeModifierCodeSequence"),
                       (segment, "AnatomicRegionModifierSequence")):  # fmt: skip
        side = side or bonenames.SIDE_CODES.get(_text(_first(owner, tag), "CodeValue"), "")
    named = bonenames.bone_name(_text(segment, "SegmentLabel"), side)
    if named is not None:
        return named
    coded = bonenames.coded_name(_text(kind, "CodeValue"), side)
    return coded or bonenames.coded_name(_text(region, "CodeValue"), side)
