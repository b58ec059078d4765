"""One group of frames against the rules: its stack if it has one, and every finding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from implantforge.core import InputError
from implantforge.stages.dicom import agreement, decoding, geometry, hounsfield, pixels
from implantforge.stages.dicom.grouping import Group, is_localizer
from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.rules import RULES, Finding, hit

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
SAMPLE_SLICES = 7
NO_BONE = ("PERFUSION", "RCBF", "RCBV", "MTT", "TTP", "DOSE", "SCREEN", "MIP", "MINIP", "PROJECTION", "VRT", "SSD",
           "IODINE", "VOLUME_RENDER", "SUBTRACTION", "BONE_REMOVED", "MATERIAL")  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A group, its stack when its geometry is known, and what was found."""

    group: Group
    stack: geometry.Stack | None
    findings: tuple[Finding, ...]


def judge(group: Group) -> Judged:
    """All rules on one group; pixels are sampled from a few slices only."""
    findings = _kind(group)
    if any(not f.rule.acceptable for f in findings):
        return Judged(group, None, tuple(findings))
    findings += _identity(group) + _consistency(group)
    stack, more = geometry.stack(list(group.frames))
    findings += more + _encoding(group)
    if stack is not None:
        findings += _duplicates(stack)
        findings += _fitness(stack, group) + agreement.judge(stack, group)
    if stack is not None and all(f.rule.acceptable for f in findings):
        findings += _numbers(stack)
    return Judged(group, stack, tuple(findings))


def _kind(group: Group) -> list[Finding]:
    first, out = group.frames[0], []
    modality = first.modality or ("CT" if first.sop_class in CT_CLASSES else "unknown")
    if modality != "CT":
        return [hit("modality", f"modality {modality}: only CT can be read")]
    if is_localizer(first):
        return [hit("localizer", f"localizer ({len(group.frames)} images): a projection, not slices")]
    empty = sum(f.pixel_bytes == 0 for f in group.frames)
    if empty:
        return [hit("no_pixels", f"no pixel data in {empty} of {len(group.frames)} images")]
    if first.samples != 1:
        return [hit("colour", f"{first.samples} samples per pixel: a colour picture, not CT numbers")]
    if first.sop_class and first.sop_class not in CT_CLASSES:
        out.append(hit("secondary_capture", "not stored as a CT image: a screen capture or a secondary object"))
    kinds = {k for f in group.frames for k in f.image_type}
    odd = sorted(k for k in kinds for word in NO_BONE if word in k)
    if odd:
        out.append(hit("derived", f"image type {'/'.join(first.image_type)}: computed, not CT numbers"))
    elif any(len(f.image_type) > 1 and f.image_type[1] == "SECONDARY" for f in group.frames):
        out.append(
            hit("derived", f"image type {'/'.join(first.image_type)}: reformatted or computed from another series")
        )
    elif any(f.image_type and f.image_type[0] == "DERIVED" for f in group.frames):
        out.append(hit("derived_primary", f"image type {'/'.join(first.image_type)}: changed after reconstruction"))
    if first.photometric == "MONOCHROME1":
        out.append(hit("monochrome1", "MONOCHROME1: shown inverted, numbers taken as they are"))
    elif first.photometric not in ("MONOCHROME2", ""):
        out.append(hit("colour", f"photometric interpretation {first.photometric}: not CT numbers"))
    if 0 < first.bits_stored <= RULES["few_bits"].threshold:
        out.append(hit("few_bits", f"{first.bits_stored} bits per pixel: cannot hold the range of CT numbers"))
    return out


def _identity(group: Group) -> list[Finding]:
    """Within one series every slice must name the same person."""
    frames, out = group.frames, []
    fields = list(zip(*(f.identity for f in frames)))
    people = max(len({v for v in field if v}) for field in fields)
    if people > 1:
        out.append(hit("mixed_patients", f"slices of {people} patients in one series"))
    lacking = max((sum(not v for v in field) for field in fields if any(field)), default=0)
    if lacking:
        out.append(
            hit("identity_partly_missing", f"{lacking} of {len(frames)} slices do not say whose they are, the rest do")
        )
    if len({f.study for f in frames}) > 1:
        out.append(hit("mixed_studies", f"slices of {len({f.study for f in frames})} studies in one series"))
    if not frames[0].series_uid:
        out.append(hit("no_series_uid", f"no SeriesInstanceUID in {len(frames)} slices: grouped by study and geometry"))
    spaces = {f.frame_of_reference for f in frames if f.frame_of_reference}
    if len(spaces) > 1:
        out.append(
            hit(
                "mixed_frame_of_reference", f"{len(spaces)} frames of reference in one series: positions do not compare"
            )
        )
    blank = sum(not f.frame_of_reference for f in frames)
    if spaces and blank:
        out.append(
            hit("frame_of_reference_partly_missing", f"no frame of reference in {blank} of {len(frames)} slices")
        )
    if group.siblings:
        out.append(hit("other_slices_of_series", f"{group.siblings} images of the same series left out: other size, "
                       "direction, kernel or phase"))  # fmt: skip
    return out


def _consistency(group: Group) -> list[Finding]:
    frames, out = group.frames, []
    kernels = Counter(f.kernel for f in frames)
    if len(kernels) > 1:
        out.append(
            hit(
                "mixed_kernels",
                f"{len(kernels)} kernels in one series ({', '.join(k or 'none' for k in sorted(kernels))})",
            )
        )
    volts = sorted({f.kvp for f in frames if f.kvp})
    if len(volts) > 1:
        out.append(hit("mixed_kvp", f"tube voltage varies: {', '.join(f'{v:.0f}' for v in volts)} kV"))
    scales = {(f.slope, f.intercept) for f in frames}
    if len(scales) > 1:
        slopes = sorted(f.slope if f.slope is not None else float("nan") for f in frames)
        shifts = sorted(f.intercept if f.intercept is not None else float("nan") for f in frames)
        out.append(hit("rescale_varies", f"{len(scales)} rescale pairs in one series (slope {slopes[0]:g} to "
                       f"{slopes[-1]:g}, intercept {shifts[0]:g} to {shifts[-1]:g}): must be constant"))  # fmt: skip
    lacking = sum(f.slope is None or f.intercept is None for f in frames)
    if lacking:
        out.append(
            hit(
                "rescale_missing",
                f"no rescale slope or intercept in {lacking} of {len(frames)} slices: 1 and 0 assumed",
            )
        )
    if any(f.slope == 0 for f in frames):
        out.append(hit("undecodable", "rescale slope 0: every voxel would have the same number"))
    units = {f.rescale_type for f in frames} - {"", "HU", "US"}
    if units:
        out.append(hit("rescale_unit", f"numbers are in {'/'.join(sorted(units))}, not HU"))
    if any(f.contrast for f in frames):
        out.append(
            hit("contrast", "contrast agent given: vessels and gut may reach the HU of bone; look at the labels")
        )
    return out


def _encoding(group: Group) -> list[Finding]:
    out = []
    for uid in sorted({f.syntax for f in group.frames}):
        if uid not in decoding.SYNTAXES:
            out.append(
                hit(
                    "syntax",
                    f"transfer syntax {decoding.syntax_name(uid)} cannot be decoded: export as JPEG-LS or uncompressed",
                )
            )
    lossy = sum(f.lossy or (f.syntax in decoding.SYNTAXES and decoding.SYNTAXES[f.syntax][2]) for f in group.frames)
    if lossy:
        out.append(
            hit(
                "lossy",
                f"lossy compression in {lossy} of {len(group.frames)} slices: edges may have moved; export losslessly",
            )
        )
    short = [
        f
        for f in group.frames
        if decoding.SYNTAXES.get(f.syntax, ("", "x"))[1] == "" and f.pixel_bytes < _native_bytes(f)
    ]
    if short:
        out.append(hit("pixel_length", f"pixel data of {len(short)} of {len(group.frames)} images is short: "
                       f"{short[0].pixel_bytes} of {_native_bytes(short[0])} bytes"))  # fmt: skip
    long = [f for f in group.frames
            if decoding.SYNTAXES.get(f.syntax, ("", "x"))[1] == "" and f.pixel_bytes > _native_bytes(f) + 1]  # fmt: skip
    if long:
        out.append(hit("pixel_length", f"pixel data of {len(long)} of {len(group.frames)} images is longer than its "
                       f"header says: {long[0].pixel_bytes} where {_native_bytes(long[0])} bytes are expected: rows, "
                       "columns or bits are miscounted"))  # fmt: skip
    crooked = sum(f.bits_stored > f.bits_allocated or f.high_bit != f.bits_stored - 1 for f in group.frames)
    if crooked:
        out.append(
            hit("bit_layout", f"bits of {crooked} images are laid out oddly: where a number begins is not clear")
        )
    huge = max(_native_bytes(f) for f in group.frames)
    if huge > 4 * 1024**3:
        out.append(hit("pixel_length", f"one image claims {huge / 1e9:.1f} GB"))
    return out


def _native_bytes(frame: Frame) -> int:
    return frame.rows * frame.columns * frame.samples * max(frame.bits_allocated, 8) // 8 * frame.frames


def _duplicates(stack: geometry.Stack) -> list[Finding]:
    """Slices at one place: the same pixels are one slice, others cannot be chosen between."""
    if not stack.duplicates:
        return []
    extra = 0
    for group in stack.duplicates:
        try:
            first, *others = [pixels.to_hu(s, f)[0] for s, f in zip(decoding.stored_slices(group), group)]
        except InputError as error:
            return [hit("undecodable", str(error).removeprefix("CT: "))]
        at = group[0].position
        assert at
        axis = int(np.argmax(np.abs(stack.axes[2])))
        for other in others:
            extra += 1
            if not np.array_equal(first, other):
                return [hit("conflicting_slices", f"{len(group)} slices with different pixels at {'xyz'[axis]}="
                            f"{at[axis]:.1f} mm ({len(stack.duplicates)} such places)")]  # fmt: skip
    return [hit("duplicate_slices", f"{extra} duplicate slices with identical pixels dropped")]


def _fitness(stack: geometry.Stack, group: Group) -> list[Finding]:
    frame, out = stack.frames[0], []
    columns, rows, slices = stack.shape
    column_mm, row_mm, step = (float(v) for v in stack.spacing_mm)
    if columns * rows * slices > RULES["too_big"].threshold:
        out.append(hit("too_big", f"{columns} x {rows} x {slices} voxels, limit {RULES['too_big'].threshold:.0e}"))
    view = (columns * column_mm, rows * row_mm)
    if max(view) < RULES["field_of_view_min"].threshold or max(view) > RULES["field_of_view_max"].threshold:
        name = "field_of_view_min" if max(view) < RULES["field_of_view_min"].threshold else "field_of_view_max"
        out.append(
            hit(name, f"field of view {view[0]:.1f} x {view[1]:.1f} mm: a CT shows 80 to 700 mm, is the spacing in mm?")
        )
    if slices * step > RULES["length_max"].threshold:
        out.append(hit("length_max", f"{slices * step:.0f} mm long, limit {RULES['length_max'].threshold:.0f} mm"))
    out += resolution(column_mm, row_mm, step)
    thick = frame.thickness_mm
    if thick and thick > RULES["slice_thickness"].threshold:
        out.append(hit("slice_thickness", f"slice thickness {thick:.2f} mm, for fit surfaces at most "
                       f"{RULES['slice_thickness'].threshold} mm: plan only"))  # fmt: skip
    if thick and step > RULES["slice_gap"].threshold * thick:
        out.append(
            hit(
                "slice_gap", f"slices of {thick:.2f} mm stand {step:.2f} mm apart: {step - thick:.2f} mm unseen between"
            )
        )
    if thick and step < RULES["slice_overlap"].threshold * thick:
        out.append(hit("slice_overlap", f"slices of {thick:.2f} mm stand only {step:.3f} mm apart: are positions in "
                       "mm?"))  # fmt: skip
    return out + _kernel(group.frames[0].kernel) + _padding(frame)


def resolution(column_mm: float, row_mm: float, step_mm: float) -> list[Finding]:
    """Findings on voxel size: fit surfaces want 1.25 mm slices and 0.7 mm pixels, planning models up to 3 mm."""
    out = []
    for value, name, what in (
        (step_mm, "slice_spacing", "slice spacing"),
        (max(column_mm, row_mm), "pixel", "pixel spacing"),
    ):
        fit, most = RULES[name].threshold, RULES[f"{name}_max"].threshold
        if value > most * 1.001:
            out.append(hit(f"{name}_max", f"{what} {value:.2f} mm, at most {most} mm even for planning"))
        elif value > fit * 1.001:
            out.append(
                hit(name, f"{what} {value:.2f} mm, for fit surfaces at most {fit} mm: plan only, or order finer ones")
            )
    return out


def kernel_class(kernel: str) -> str:
    """edge, bone, standard, soft or unknown, from the makers' kernel names."""
    import re

    name = kernel.upper()
    number = re.search(r"\b[A-Z]{1,2}(\d{2})", name)
    if any(w in name for w in ("EDGE", "ULTRA", "LUNG", "BONEPLUS", "BONE+")):
        return "edge"
    if "BONE" in name or name in ("YA", "YB", "YC", "YD", "D", "E", "FC30", "FC31", "FC35", "FC81"):
        return "bone"
    if name in ("STANDARD", "STND", "DETAIL", "B", "C", "UB"):
        return "standard"
    if "SOFT" in name or "SMOOTH" in name or name == "A":
        return "soft"
    if number and not name.startswith("FC"):
        value = int(number[1])
        return "edge" if value >= 70 else "bone" if value >= 50 else "standard" if value >= 36 else "soft"
    if number:
        value = int(number[1])
        return "bone" if value in range(30, 40) else "edge" if value >= 50 else "standard" if value >= 10 else "soft"
    return "unknown"


def _kernel(kernel: str) -> list[Finding]:
    kind = kernel_class(kernel)
    if kind == "edge":
        return [
            hit(
                "kernel_edge",
                f"kernel {kernel} enhances edges: bone surfaces may shift by 0.1-0.3 mm; a medium bone kernel is better",
            )
        ]
    if kind == "soft":
        return [
            hit(
                "kernel_smooth",
                f"kernel {kernel} smooths: thin cortex reads too low; a bone kernel of the same scan is better",
            )
        ]
    return []


def _padding(frame: Frame) -> list[Finding]:
    hu = pixels.padding_hu(frame)
    if hu is not None and hu > RULES["padding_in_range"].threshold:
        return [
            hit("padding_in_range", f"padding value stands for {hu:.0f} HU, a real CT number: not treated as padding")
        ]
    return []


def _numbers(stack: geometry.Stack) -> list[Finding]:
    """HU sanity on slices spread evenly through the stack."""
    picks = np.unique(np.linspace(0, len(stack.frames) - 1, SAMPLE_SLICES + 2).round().astype(int)[1:-1])
    frames = [stack.frames[int(k)] for k in picks]
    values, masks = [], []
    try:
        for frame, stored in zip(frames, decoding.stored_slices(frames)):
            values.append(stored * np.float32(frame.slope or 1.0) + np.float32(frame.intercept or 0.0))
            mask = values[-1] < -1100
            if frame.padding is not None and (pixels.padding_hu(frame) or 0) <= RULES["padding_in_range"].threshold:
                mask |= (stored >= frame.padding[0]) & (stored <= frame.padding[1])
            masks.append(mask)
    except InputError as error:
        return [hit("undecodable", str(error).removeprefix("CT: "))]
    return hounsfield.judge(np.stack(values), np.stack(masks))
