"""Every reason for which a series is refused or flagged, one row each: threshold, unit, action, source.

`refused` stops a build unless the caller accepts it with a reason; rows with acceptable=False can never be accepted,
because where the voxels lie, or whose they are, is not known. Sources: PS3.3 is the DICOM standard's part 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["accepted", "flagged", "refused"]
Use = Literal["implant", "planning", "none"]


@dataclass(frozen=True)
class Rule:
    """One question put to a series. threshold is in unit; nan where the question is yes or no.

    planning: a series that hits it is good for planning only, not for surfaces that an implant must fit.
    """

    name: str
    act: Literal["refused", "flagged", "note"]
    threshold: float
    unit: str
    source: str
    acceptable: bool = True
    planning: bool = False


@dataclass(frozen=True)
class Finding:
    """A rule that was hit, and the sentence with its numbers. Text never holds names, dates, UIDs or file paths."""

    rule: Rule
    text: str


_NAN = float("nan")
_PSI = "common limits of patient-specific instrument CT protocols"
_GEO = "DICOM PS3.3 C.7.6.2.1.1"
_OWN = "this program: a reader must not guess"

_ROWS = (
    # identity
    Rule("mixed_patients", "refused", 1, "patients", "IEC 62366 use error: wrong patient", acceptable=False),
    Rule("identity_partly_missing", "refused", 0, "slices", _OWN),
    Rule("mixed_studies", "refused", 1, "values", _OWN),
    Rule("no_series_uid", "flagged", 0, "slices", "DICOM PS3.3 C.7.3.1, type 1"),
    Rule("mixed_frame_of_reference", "refused", 1, "values", "DICOM PS3.3 C.7.4.1", acceptable=False),
    Rule("frame_of_reference_partly_missing", "flagged", 0, "slices", "DICOM PS3.3 C.7.4.1"),
    Rule("other_slices_of_series", "flagged", 0, "images", _OWN),
    Rule("scan_age", "flagged", 12, "months", "orders of patient-specific instruments ask for a recent scan"),
    Rule("scan_age_note", "note", 6, "months", "orders of patient-specific instruments ask for a recent scan"),
    # kind
    Rule("modality", "refused", _NAN, "", "CT numbers are needed for bone thresholds", acceptable=False),
    Rule("too_big", "refused", 1e9, "voxels", "bounded memory: 2 GB", acceptable=False),
    Rule("sheared_affine", "refused", 1e-3, "cosine", "NIfTI and NRRD have no slices to straighten", acceptable=False),
    Rule("no_pixels", "refused", _NAN, "", _OWN, acceptable=False),
    Rule("localizer", "refused", _NAN, "", "DICOM PS3.3 C.8.2.1.1.1", acceptable=False),
    Rule("secondary_capture", "refused", _NAN, "", "DICOM PS3.3 A.8"),
    Rule("derived", "refused", _NAN, "", "DICOM PS3.3 C.7.6.1.1.2"),
    Rule("derived_primary", "flagged", _NAN, "", "DICOM PS3.3 C.7.6.1.1.2"),
    Rule("colour", "refused", 1, "samples per pixel", _OWN, acceptable=False),
    Rule("monochrome1", "flagged", _NAN, "", "DICOM PS3.3 C.8.2.1: CT is MONOCHROME1 or 2; HU are not inverted by it"),
    Rule("few_bits", "refused", 8, "bits", "DICOM PS3.3 C.8.2.1: CT stores 12 to 16 bits"),
    # geometry
    Rule("no_geometry", "refused", _NAN, "", _GEO, acceptable=False),
    Rule("bad_cosines", "refused", 1e-3, "", _GEO, acceptable=False),
    Rule("bad_spacing", "refused", 0, "mm", _GEO, acceptable=False),
    Rule("one_slice", "refused", 2, "slices", _OWN, acceptable=False),
    Rule("few_slices", "refused", 5, "slices", "uneven steps cannot be told from even ones in so few"),
    Rule("field_of_view_min", "refused", 80, "mm", "human CT fields of view: 80 to 700 mm"),
    Rule("field_of_view_max", "refused", 700, "mm", "human CT fields of view: 80 to 700 mm"),
    Rule("crop_min", "refused", 20, "mm", "a NIfTI or NRRD may be cropped, but not below a patella"),
    Rule("length_max", "refused", 2500, "mm", "taller than a person: spacing not in mm"),
    Rule("duplicate_slices", "flagged", 0.01, "mm", _OWN),
    Rule("conflicting_slices", "refused", 0.01, "mm", _OWN, acceptable=False),
    Rule("missing_slices", "refused", 0.01, "of the usual step", _GEO),
    Rule("uneven_slices", "refused", 0.01, "of the usual step", _GEO),
    Rule("creeping_slices", "refused", 0.10, "mm off the even grid", _GEO),
    Rule("wandering_slices", "refused", 0.10, "mm off the straight line", _GEO, acceptable=False),
    Rule("tilt", "flagged", 0.1, "deg", "gantry tilt shears the stack: dcm2niix, Li et al. 2016", planning=True),
    Rule("drift", "flagged", 0.25, "mm over the stack", "a tilt too small to see still moves a long stack's end"),
    Rule("tilt_max", "refused", 35.0, "deg", "no CT gantry tilts beyond +-30 deg: positions or orientation are wrong"),
    Rule("oblique", "note", 1.0, "deg", _GEO),
    Rule("mixed_orientation", "refused", 0, "images", "rows of one series run one way", acceptable=False),
    Rule("mixed_spacing", "refused", 0, "images", "one series is one reconstruction: one matrix, one pixel spacing"),
    Rule("orientation_unusual", "flagged", _NAN, "", "DICOM PS3.3 C.7.3.1.1.2: Patient Position"),
    Rule("pixel_not_square", "flagged", 1.10, "of the smaller", "CT is reconstructed on square pixels"),
    Rule("diameter_disagrees", "refused", 0.02, "of the diameter", "DICOM PS3.3 C.8.15.3.3: Reconstruction Diameter"),
    Rule("centre_disagrees", "refused", 10.0, "mm", "DICOM PS3.3 C.8.15.3.6: Reconstruction Target Center (Patient)"),
    # fitness for a fit surface: a planning model may still be made
    Rule("slice_spacing", "flagged", 1.25, "mm", _PSI, planning=True),
    Rule("slice_spacing_max", "refused", 3.0, "mm", _PSI),
    Rule("slice_thickness", "flagged", 1.25, "mm", _PSI, planning=True),
    Rule("slice_gap", "flagged", 1.05, "of the thickness", _PSI, planning=True),
    Rule("slice_overlap", "refused", 0.15, "of the thickness", "no protocol overlaps so far: are positions in mm?"),
    Rule("pixel", "flagged", 0.7, "mm", _PSI, planning=True),
    Rule("pixel_max", "refused", 3.0, "mm", _PSI),
    Rule("kernel_edge", "flagged", _NAN, "", "edge-enhancing kernels move a half-maximum edge by 0.1-0.3 mm"),
    Rule("kernel_smooth", "flagged", _NAN, "", "soft-tissue kernels blur a 1 mm cortex below its true HU"),
    Rule("mixed_kernels", "refused", 1, "kernels", _PSI),
    Rule("mixed_kvp", "flagged", 1, "values", "HU of bone depends on tube voltage"),
    Rule("contrast", "flagged", _NAN, "", "enhanced vessels reach the HU of bone"),
    # numbers
    Rule("syntax", "refused", _NAN, "", "decoders installed: native, gdcm, openjpeg", acceptable=False),
    Rule("bit_layout", "refused", _NAN, "", "DICOM PS3.5 8.1.1: HighBit is BitsStored - 1"),
    Rule("undecodable", "refused", 0, "slices", _OWN, acceptable=False),
    Rule("pixel_length", "refused", 0, "bytes", "DICOM PS3.5 section 8", acceptable=False),
    Rule("lossy", "flagged", _NAN, "", "DICOM PS3.3 C.7.6.1.1.5", planning=True),
    Rule("rescale_varies", "refused", 0, "", "DICOM PS3.3 C.8.2.1: constant in CT"),
    Rule("rescale_missing", "flagged", 0, "slices", "DICOM PS3.3 C.8.2.1, type 1"),
    Rule("rescale_odd", "flagged", 16, "times or parts of 1", "CT is stored in steps of 1 HU, seldom 0.5, 0.25 or 10"),
    Rule("rescale_unit", "refused", _NAN, "", "DICOM PS3.3 C.11.1.1.2: RescaleType HU"),
    Rule("hu_air", "refused", 60, "HU from -1000", "air is -1000 HU by definition"),
    Rule("hu_deep", "refused", 0.02, "of numbers below -1300 HU", "padding is one number; air is the lowest tissue"),
    Rule("hu_tissue", "refused", 0.20, "of tissue in -200..200 HU", "fat -100, water 0, muscle +50 HU"),
    Rule("hu_range", "refused", 300, "HU", "air to bone spans over 1000 HU, fat to bone over 300"),
    Rule("hu_window", "refused", 0.01, "of voxels at the lowest value", "values were clipped to a display window"),
    Rule("hu_tissue_peak", "flagged", 130, "HU from 0", "fat -100, water 0, muscle +50 HU"),
    Rule("saturated", "flagged", 50, "mm3", "metal artefact: 50 mm3 at the top of the number range", planning=True),
    Rule("metal", "flagged", 50, "mm3 above 3000 HU", "cortex stays below 2500 HU, titanium above 3000", planning=True),
    Rule("metal_value", "note", 3000, "HU", "dense cortex stays below 2500 HU, titanium is above 3000"),
    # what the pixels of all slices together show
    Rule("repeated_slices", "refused", 0, "slices", "noise makes no two slices of a scan alike"),
    Rule("out_of_order", "refused", 0.75, "of the usual change", "measured on 7 scans: at most half of this"),
    Rule("swapped_slices", "refused", 0.10, "better the other way", "measured on 7 scans: never above 0"),
    Rule("jump", "flagged", 1.8, "times the usual change", "measured on 7 scans: at most 1.47", planning=True),
    Rule("jump_max", "refused", 3.0, "times the usual change", "blocks of two scans, or of one in the wrong order"),
    Rule("scrambled_rows", "refused", 1.3, "times the correlation in place", "rows of a picture join up", acceptable=False),
    Rule("noise", "flagged", 40, "HU", "SD in muscle; AAPM-style protocols stay below 40", planning=True),
    Rule("noise_max", "refused", 80, "HU", "SD in muscle; cancellous bone is lost"),
    Rule("field_of_view_cut", "flagged", 5, "mm of bone at the side", _PSI, planning=True),
    Rule("padding", "note", -1024, "HU", "DICOM PS3.3 C.7.5.1.1.2: PixelPaddingValue"),
    Rule("padding_in_range", "flagged", -900, "HU", "DICOM PS3.3 C.7.5.1.1.2: padding must not be a real HU"),
    Rule("not_dicom_source", "flagged", _NAN, "", "NIfTI and NRRD carry no identity, kernel or tilt"),
    Rule("outside_links", "note", 0, "links", _OWN),
    Rule("damaged_files", "flagged", 0, "files", _OWN),
    Rule("incomplete_medium", "flagged", 0, "files", "DICOM PS3.10: DICOMDIR names files that are not there"),
)  # fmt: skip
RULES: dict[str, Rule] = {row.name: row for row in _ROWS}

# HU below this are padding or noise around air; above it lies the whole int16 scale that metal may use.
FLOOR_HU = -1024


def hit(name: str, text: str) -> Finding:
    """The finding for a rule of that name."""
    return Finding(RULES[name], text)


def verdict(findings: tuple[Finding, ...] | list[Finding]) -> Verdict:
    """The worst action among the findings; notes do not count."""
    acts = {f.rule.act for f in findings}
    return "refused" if "refused" in acts else "flagged" if "flagged" in acts else "accepted"


def use(findings: tuple[Finding, ...] | list[Finding]) -> Use:
    """What the series is good for, going by its findings."""
    if verdict(findings) == "refused":
        return "none"
    return "planning" if any(f.rule.planning for f in findings) else "implant"


def texts(findings: list[Finding] | tuple[Finding, ...]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(reasons, names of their rules, notes): worst reasons first, those that can never be accepted before all."""
    rank = {("refused", False): 0, ("refused", True): 1, ("flagged", True): 2}
    ranked = sorted((f for f in findings if f.rule.act != "note"), key=lambda f: rank[f.rule.act, f.rule.acceptable])
    notes = tuple(f.text for f in findings if f.rule.act == "note")
    return tuple(f.text for f in ranked), tuple(f.rule.name for f in ranked), notes
