"""Mutated CT series with the outcome declared beforehand, over a small world that changes from slice to slice.

Each Fault is a series (data sets or raw bytes) and what the reader must do with it:

    corrected   loaded, with these rules flagged; markers within half a voxel of their place and HU right
    refused     refused by one of these rules (or by a message when no series can be made of it)
    told        loaded as its tags say, which is wrong and cannot be known, but flagged by this rule

What no reader can tell, because pixels and all tags agree, is not here: every slice mirrored; the z of all positions
negated; a position or intercept shifted alike in all slices within what scanners do; pixel spacing scaled alike without a
reconstruction diameter; slices missing at either end, or every second one (what is left is right).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from series import AXIAL, encoded, pixels, set_pixels, twin
from series import make_series as dress

CENTRE_MM = np.array([12.0, -30.0, 450.0])
MARKERS = ((21.0, 3.0, 1.5, 4.4), (-17.0, 12.0, -3.0, 3.6), (-8.0, -16.0, 2.5, 5.2))
MARKER_HU, SOFT_HU, SLICES = 1900.0, 45.0, 20
Series = list[Dataset]


def anatomy_hu(points_mm: np.ndarray) -> np.ndarray:
    """HU at LPS points (...,3): a body that tapers, two slanted bones with marrow, a gas bubble and three markers."""
    x, y, z = np.moveaxis(points_mm - CENTRE_MM, -1, 0)
    away = np.hypot(x / (34 + 0.35 * z), y / (29 - 0.3 * z))
    hu = -1000 + (SOFT_HU + 1000) / (1 + np.exp((away - 1) * 25))
    for at_x, at_y, lean_x, lean_y, radius in ((4, 12, 0.5, -0.3, 8.0), (-3, -4, -0.6, 0.35, 6.0)):
        apart = np.hypot(x - at_x - lean_x * z, y - at_y - lean_y * z)
        hu += 900 / (1 + np.exp((apart - radius) * 2)) - 950 / (1 + np.exp((apart - radius + 3) * 2))
    hu -= 900 / (1 + np.exp((np.sqrt((x + 22) ** 2 + (y + 2 - z) ** 2 + (z + 1) ** 2) - 5) * 2))
    for at_x, at_y, at_z, radius in MARKERS:
        apart = np.sqrt((x - at_x) ** 2 + (y - at_y) ** 2 + (z - at_z) ** 2)
        mix = 1 / (1 + np.exp((apart - radius) * 3))
        hu = hu * (1 - mix) + MARKER_HU * mix
    return hu


def make(spacing: tuple[float, ...] = (0.7, 0.7, 1.0), shape: tuple[int, ...] = (128, 120, SLICES), noise: float = 12.0,
         orientation: tuple[float, ...] = AXIAL, step_mm: Any = None, **tags: Any) -> Series:  # fmt: skip
    """The world as slices, stored as most scanners do; noise is the same every time."""
    rng = np.random.default_rng(7)
    out = dress(shape, spacing, orientation, step_mm, **{"PatientPosition": "HFS", **tags})  # type: ignore[arg-type]
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for ds in out:
        at = np.array([float(v) for v in ds.ImagePositionPatient])
        points = at + i[..., None] * spacing[0] * row + j[..., None] * spacing[1] * column
        hu = anatomy_hu(points) + rng.normal(0, noise, i.shape)
        set_pixels(ds, np.clip(np.rint(hu + 1024), 0, 4095))
    return out


@dataclass(frozen=True)
class Fault:
    """One mutated series: name, outcome, the rules of which one must be hit, and a maker of file contents."""

    name: str
    outcome: str
    rules: tuple[str, ...]
    make: Callable[[], list[bytes]] = field(repr=False)


_BASES: dict[Any, Series] = {}


def base(**how: Any) -> Series:
    """A fresh copy of the series made so; made once."""
    key = tuple(sorted((k, tuple(v) if isinstance(v, (list, tuple)) else v) for k, v in how.items()))
    if key not in _BASES:
        _BASES[key] = make(**how)
    return copy.deepcopy(_BASES[key])


def fault(name: str, outcome: str, change: Callable[[Series], Any], **how: Any) -> Fault:
    """outcome is 'corrected', 'corrected: rules', 'refused: rules' or 'told: rules'; change returns a new series,
    raw bytes, or anything else when it worked in place."""

    def files() -> list[bytes]:
        series = base(**how)
        with unjudged():
            out = change(series)
            made = isinstance(out, list) and out and isinstance(out[0], (Dataset, bytes))
            return [ds if isinstance(ds, bytes) else encoded(ds) for ds in (out if made else series)]

    act, _, rules = outcome.partition(": ")
    return Fault(name, act, tuple(rules.split()), files)


def every(tag: str, value: Any) -> Callable[[Series], None]:
    """Sets (or with None removes) a tag in all slices; bytes go in as unknown VR, so that nothing checks them."""
    return lambda series: [put(ds, tag, value) for ds in series]


def put(ds: Dataset, tag: str, value: Any) -> None:
    """One tag of one slice."""
    if value is None:
        del ds[tag]
    elif isinstance(value, bytes):
        number = tag_for_keyword(tag)
        ds.pop(number, None)
        with unjudged():
            ds.add_new(number, "UN", value)
    else:
        setattr(ds, tag, value)
        if tag.startswith("PixelPadding"):
            ds[tag].VR = "SS" if value < 0 else "US"


@contextmanager
def unjudged() -> Iterator[None]:
    """Within it pydicom takes bytes of unknown VR as they are."""
    config.replace_un_with_known_vr = False
    try:
        yield
    finally:
        config.replace_un_with_known_vr = True


def one(k: int, tag: str, value: Any) -> Callable[[Series], None]:
    """Sets a tag in slice k."""
    return lambda series: put(series[k], tag, value)


def some(ks: Any, tag: str, value: Any) -> Callable[[Series], None]:
    """Sets a tag in these slices."""
    return lambda series: [put(series[k], tag, value) for k in ks]


def without(*gone: int) -> Callable[[Series], Series]:
    """Leaves slices out."""
    return lambda series: [ds for k, ds in enumerate(series) if k not in gone]


def place(ds: Dataset) -> np.ndarray:
    """Image position as numbers."""
    return np.array([float(v) for v in ds.ImagePositionPatient])


def shift(ks: Any, by: tuple[float, float, float]) -> Callable[[Series], None]:
    """Moves the positions of slices."""

    def change(series: Series) -> None:
        for k in ks:
            series[k].ImagePositionPatient = [f"{v:.6f}" for v in place(series[k]) + by]

    return change


def moved(order: list[int]) -> Callable[[Series], None]:
    """Gives slice k the position of slice order[k]."""

    def change(series: Series) -> None:
        places = [list(ds.ImagePositionPatient) for ds in series]
        for ds, n in zip(series, order):
            ds.ImagePositionPatient = places[n]

    return change


def swapped(a: int, b: int) -> Callable[[Series], None]:
    """Two slices with each other's position."""
    order = list(range(SLICES))
    order[a], order[b] = b, a
    return moved(order)


def repainted(ks: Any, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[Series], None]:
    """Changes the stored values of slices."""

    def change(series: Series) -> None:
        for k in ks:
            set_pixels(series[k], how(pixels(series[k]).astype(np.int64)))

    return change


def copied(pairs: list[tuple[int, int]], **tags: Any) -> Callable[[Series], Series]:
    """Adds copies of the first of each pair with the pixels of the second."""

    def change(series: Series) -> Series:
        return series + [
            twin(series[a], PixelData=series[b].PixelData, SOPInstanceUID=f"1.2.9.{a}.{b}", **tags) for a, b in pairs
        ]

    return change


def cut(k: int, share: float) -> Callable[[Series], list[Any]]:
    """One file cut off."""

    def change(series: Series) -> list[Any]:
        data = encoded(series[k])
        return [data[: int(len(data) * share)] if n == k else ds for n, ds in enumerate(series)]

    return change


def compressed(syntax: str, k: int, harm: Callable[[bytes], bytes]) -> Callable[[Series], None]:
    """All slices compressed, the code stream of one harmed."""

    def change(series: Series) -> None:
        from pydicom.encaps import generate_frames

        for n, ds in enumerate(series):
            ds.compress(syntax, generate_instance_uid=False)
            if n == k:
                (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
                ds.PixelData = encapsulate([harm(stream)])

    return change


def jumbled(seed: int) -> Callable[[Series], Series]:
    """Files in another order."""
    return lambda series: random.Random(seed).sample(series, len(series))


def catalogue() -> Iterator[Fault]:
    """Every fault, grouped by what was done."""
    yield from _slices()
    yield from _order()
    yield from _spacing()
    yield from _orientation()
    yield from _positions()
    yield from _tilts()
    yield from _rescale()
    yield from _paint()
    yield from _cuts()
    yield from _mixtures()
    yield from _layout()
    yield from _encoding()


def _slices() -> Iterator[Fault]:
    for k in range(1, SLICES - 1):
        yield fault(f"drop {k}", "refused: missing_slices", without(k))
    for k in range(2, 16, 2):
        yield fault(f"drop {k} {k + 1}", "refused: missing_slices", without(k, k + 1))
        yield fault(f"drop {k} and {k + 3}", "refused: missing_slices", without(k, k + 3))
        yield fault(f"drop block from {k} of 3", "refused: missing_slices", without(k, k + 1, k + 2))
    for gone in ((0,), (19,), (0, 1), (18, 19), (0, 19), (0, 1, 2)):
        yield fault(f"drop ends {gone}", "corrected", without(*gone))
    yield fault("drop every second", "corrected: slice_gap", without(*range(1, SLICES, 2)))
    for seed in range(6):
        gone = sorted(random.Random(seed).sample(range(1, 19), 7))
        yield fault(f"drop at random {gone}", "refused: missing_slices uneven_slices", without(*gone))
    yield fault("one left", "refused: one_slice", without(*range(1, SLICES)))
    yield fault("four left", "refused: few_slices", without(*range(4, SLICES)))
    for k in range(0, SLICES, 2):
        yield fault(f"duplicate {k}", "corrected: duplicate_slices", copied([(k, k)]))
        yield fault(f"duplicate {k} with other pixels", "refused: conflicting_slices", copied([(k, (k + 3) % SLICES)]))
    yield fault("whole series twice", "corrected: duplicate_slices", copied([(k, k) for k in range(SLICES)]))
    for k in range(1, 17, 2):
        yield fault(
            f"pixels of {k} in {k + 1}",
            "refused: repeated_slices",
            lambda s, k=k: repainted([k + 1], lambda v: pixels(s[k]))(s),
        )
        far = (k + 7) % SLICES
        yield fault(
            f"pixels of {k} in {far}",
            "refused: repeated_slices",
            lambda s, k=k, far=far: repainted([far], lambda v: pixels(s[k]))(s),
        )


def _order() -> Iterator[Fault]:
    for seed in range(10):
        yield fault(f"files shuffled {seed}", "corrected", jumbled(seed))
    for seed in range(5):
        numbers = random.Random(seed).sample(range(500), SLICES)
        yield fault(f"instance numbers scrambled {seed}", "corrected",
                    lambda s, n=numbers: [put(ds, "InstanceNumber", m) for ds, m in zip(s, n)])  # fmt: skip
        yield fault(f"slice locations scrambled {seed}", "corrected",
                    lambda s, n=numbers: [put(ds, "SliceLocation", m) for ds, m in zip(s, n)])  # fmt: skip
    for k in range(2, 17):
        yield fault(f"neighbours {k} {k + 1} swapped", "refused: out_of_order", swapped(k, k + 1))
    for k in range(1, 13):
        yield fault(f"slices {k} {k + 6} swapped", "refused: out_of_order", swapped(k, k + 6))
    for seed in range(5):
        order = random.Random(seed).sample(range(SLICES), SLICES)
        yield fault(f"positions shuffled {seed}", "refused: out_of_order jump_max", moved(order))
    for n in (7, 10, 13):
        order = [(k + n) % SLICES for k in range(SLICES)]
        yield fault(f"positions turned round by {n}", "refused: out_of_order jump_max", moved(order))


def _spacing() -> Iterator[Fault]:
    bad = {"zero": [0, 0], "one zero": [0.7, 0], "negative": [-0.7, 0.7], "both negative": [-0.7, -0.7], "text": b"abc\\def ",
           "nan": b"nan\\nan ", "one nan": b"0.7\\nan ", "inf": b"inf\\inf ", "empty": b"", "one value": b"0.70", "missing": None,
           "three": b"0.7\\0.7\\0.7 ", "comma": b"0,7\\0,7 ", "tiny": [1e-30, 1e-30], "huge": [1e30, 1e30]}  # fmt: skip
    for name, value in bad.items():
        yield fault(f"pixel spacing {name}", "refused: no_geometry bad_spacing field_of_view_min field_of_view_max too_big",
                    every("PixelSpacing", value))  # fmt: skip
        yield fault(f"pixel spacing {name} in slice 9", "refused: no_geometry bad_spacing missing_slices mixed_spacing",
                    one(9, "PixelSpacing", value))  # fmt: skip
    for factor in (0.001, 0.1, 0.5, 10.0, 25.4, 1000.0):
        yield fault(f"pixel spacing times {factor}", "refused: field_of_view_min field_of_view_max",
                    every("PixelSpacing", [0.7 * factor] * 2))  # fmt: skip
    for factor in (0.97, 1.03, 1.2, 2.0):
        yield fault(f"pixel spacing times {factor}, diameter known", "refused: diameter_disagrees",
                    every("PixelSpacing", [0.7 * factor] * 2), ReconstructionDiameter=89.6)  # fmt: skip
    yield fault("spacing right, diameter known", "corrected", lambda s: None, ReconstructionDiameter=89.6)
    for spacing in ((0.6, 0.9, 1.0), (0.9, 0.6, 1.0), (0.7, 0.8, 1.0)):
        yield fault(f"row and column spacing swapped {spacing}", "told: pixel_not_square",
                    every("PixelSpacing", [spacing[0], spacing[1]]), spacing=spacing, shape=(150, 140, SLICES))  # fmt: skip
    for k in (0, 4, 10, 19):
        yield fault(
            f"other pixel spacing in slice {k}",
            "refused: missing_slices mixed_spacing",
            one(k, "PixelSpacing", [0.7, 0.71]),
        )
    for where in (range(10), range(10, 20), range(0, 20, 2)):
        yield fault(
            f"other pixel spacing in {where}", "refused: mixed_spacing", some(where, "PixelSpacing", [0.9, 0.9])
        )


def _orientation() -> Iterator[Fault]:
    bad = {"zero": [0] * 6, "long": [2, 0, 0, 0, 1, 0], "skew": [1, 0, 0, 0.1, 0.995, 0], "same": [1, 0, 0, 1, 0, 0], "missing": None,
           "nan": b"1\\0\\0\\0\\nan\\0 ", "text": b"L\\0\\0\\0\\P\\0 ", "five": b"1\\0\\0\\0\\1 ", "empty": b"",
           "short": [0.99, 0, 0, 0, 0.99, 0]}  # fmt: skip
    for name, value in bad.items():
        yield fault(f"orientation {name}", "refused: no_geometry bad_cosines", every("ImageOrientationPatient", value))
        yield fault(f"orientation {name} in slice 8", "refused: no_geometry bad_cosines missing_slices mixed_orientation",
                    one(8, "ImageOrientationPatient", value))  # fmt: skip
    turned = {"rows reversed": [-1, 0, 0, 0, 1, 0], "columns reversed": [1, 0, 0, 0, -1, 0], "upside down": [-1, 0, 0, 0, -1, 0],
              "transposed": [0, 1, 0, 1, 0, 0], "quarter": [0, 1, 0, -1, 0, 0]}  # fmt: skip
    for name, value in turned.items():
        for k in (0, 7, 19):
            yield fault(
                f"{name} in slice {k}",
                "refused: missing_slices mixed_orientation",
                one(k, "ImageOrientationPatient", value),
            )
        for half in (range(10), range(12, 20), range(0, 20, 2)):
            yield fault(f"{name} in {half}", "refused: missing_slices mixed_orientation",
                        some(half, "ImageOrientationPatient", value))  # fmt: skip
        yield fault(f"{name} in all", "told: orientation_unusual", every("ImageOrientationPatient", value))
        if name != "transposed":
            yield fault(f"{name} in all, centre known", "refused: centre_disagrees", every("ImageOrientationPatient", value),
                        ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0])  # fmt: skip
    yield fault(
        "nothing, centre known", "corrected", lambda s: None, ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0]
    )
    for deg in (36, 50, 70, -40, -60):
        c, s = float(np.cos(np.radians(deg))), float(np.sin(np.radians(deg)))
        yield fault(f"orientation turned {deg} deg, positions not", "refused: tilt_max one_slice",
                    every("ImageOrientationPatient", [1, 0, 0, 0, c, s]))  # fmt: skip
    yield fault(
        "coronal tags on axial slices",
        "refused: tilt_max one_slice",
        every("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
    )


def _positions() -> Iterator[Fault]:
    for k in (1, 6, 12, 18):
        for by in ((0.6, 0, 0), (0, -2.0, 0), (30.0, 4.0, 0)):
            yield fault(f"slice {k} put {by} aside", "refused: wandering_slices", shift([k], by))
        for up in (0.06, 0.3, -0.45):
            yield fault(f"slice {k} put {up} mm up", "refused: uneven_slices", shift([k], (0, 0, up)))
    for by in (0.5, 1.0, 3.0, -6.0):
        yield fault(f"upper half {by} mm aside", "refused: wandering_slices", shift(range(10, 20), (by, 0, 0)))
        yield fault(f"lower half {by} mm back", "refused: wandering_slices", shift(range(10), (0, by, 0)))
    for up in (0.5, 1.0, 2.0, 37.0, 0.05):
        yield fault(f"upper half {up} mm up", "refused: missing_slices uneven_slices", shift(range(10, 20), (0, 0, up)))
    bad = {
        "missing": None,
        "nan": b"nan\\0\\0 ",
        "text": b"a\\b\\c ",
        "two": b"1\\2 ",
        "empty": b"",
        "inf": b"0\\0\\inf ",
    }
    for name, value in bad.items():
        yield fault(f"position {name}", "refused: no_geometry", every("ImagePositionPatient", value))
        yield fault(f"position {name} in slice 6", "refused: no_geometry", one(6, "ImagePositionPatient", value))
    yield fault("all at one position", "refused: one_slice", every("ImagePositionPatient", [0, 0, 0]))
    for factor in (0.1, 1000.0, 10.0, 0.001):
        yield fault(f"z times {factor}", "refused: slice_overlap slice_spacing_max length_max one_slice duplicate_slices "
                    "conflicting_slices", lambda s, f=factor: [put(d, "ImagePositionPatient", [*place(d)[:2], place(d)[2] * f])
                                                               for d in s])  # fmt: skip
    for by in (20.0, -80.0):
        yield fault(f"all {by} mm aside, centre known", "refused: centre_disagrees", shift(range(20), (by, 0, 0)),
                    ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0])  # fmt: skip
    yield fault("x and y exchanged, centre known", "refused: centre_disagrees",
                lambda s: [put(d, "ImagePositionPatient", [*place(d)[1::-1], place(d)[2]]) for d in s],
                ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0])  # fmt: skip
    yield fault("steps creep", "refused: creeping_slices uneven_slices",
                lambda s: [put(d, "ImagePositionPatient", [*place(d)[:2], 430 + k + 2.2e-3 * k**2]) for k, d in enumerate(s)])  # fmt: skip
    for digits in (2, 3, 4):
        yield fault(f"positions rounded to {digits} decimals", "corrected",
                    lambda s, n=digits: [put(d, "ImagePositionPatient", [f"{v:.{n}f}" for v in place(d)]) for d in s])  # fmt: skip


def _tilts() -> Iterator[Fault]:
    for deg in (-28, -18.5, -12, -5, -1, 1, 3, 8, 15, 22, 29):
        c, s = float(np.cos(np.radians(deg))), float(np.sin(np.radians(deg)))
        how = {"orientation": (1.0, 0.0, 0.0, 0.0, c, s), "step_mm": (0.0, 0.0, 1.0)}
        yield fault(f"tilt {deg}", "corrected: tilt", lambda s: None, **how)
        yield fault(f"tilt {deg}, slice 7 missing", "refused: missing_slices", without(7), **how)
        yield fault(
            f"tilt {deg}, slice 11 aside",
            "refused: wandering_slices",
            shift([11], (0.0, 0.0, 0.0) if deg == 0 else (1.0, 0, 0)),
            **how,
        )
    for step in ((0.2, 0.0, 1.0), (-0.15, 0.1, 1.0), (0.0, 0.5, 1.0), (0.03, -0.02, 1.0)):
        yield fault(f"shear {step}", "corrected: tilt", lambda s: None, step_mm=step)


def _rescale() -> Iterator[Fault]:
    hu = "refused: hu_air hu_deep hu_tissue hu_range hu_window rescale_odd"
    yield fault(
        "rescale removed",
        hu,
        lambda s: [delattr(d, t) for d in s for t in ("RescaleSlope", "RescaleIntercept")],
    )
    yield fault("intercept removed", hu, every("RescaleIntercept", None))
    yield fault("slope removed", "corrected: rescale_missing", every("RescaleSlope", None))
    yield fault("slope nan", "corrected: rescale_missing", every("RescaleSlope", b"nan "))
    yield fault("intercept nan", hu, every("RescaleIntercept", b"nan "))
    yield fault("intercept text", hu, every("RescaleIntercept", b"none"))
    for value in (0, -824, -900, -1124, -1200, -2048, 1024, -8192, -950):
        yield fault(f"intercept {value}", hu, every("RescaleIntercept", value))
    for value in (0, 2, 3, 0.5, 0.1, 10, -1, 0.001, 1e9):
        yield fault(f"slope {value}", hu + " undecodable", every("RescaleSlope", value))
    for value in (1.1, 0.9, 1.02):
        yield fault(f"slope {value}", "told: rescale_odd", every("RescaleSlope", value))
    for k in range(0, 20, 3):
        yield fault(f"intercept of slice {k}", "refused: rescale_varies", one(k, "RescaleIntercept", -1000))
        yield fault(f"slope of slice {k}", "refused: rescale_varies", one(k, "RescaleSlope", 1.2))
        yield fault(f"no intercept in slice {k}", "refused: rescale_varies", one(k, "RescaleIntercept", None))
    for unit in ("MGML", "HU_MOD", "OD", "Z_EFF", "PCT"):
        yield fault(f"unit {unit}", "refused: rescale_unit", every("RescaleType", unit))
    for unit in ("HU", "US"):
        yield fault(f"unit {unit}", "corrected", every("RescaleType", unit))
    yield fault("stored as HU / 0.5", "corrected", lambda s: [(set_pixels(d, pixels(d) * 2), put(d, "RescaleSlope", 0.5)) for d in s] + [bits(s, 16, 15)])  # fmt: skip
    for name, how in {"windowed": lambda v: np.clip(v, 824, 1424), "eight bits": lambda v: v // 16, "flat": lambda v: v * 0 + 1000,
                      "inverted": lambda v: 4095 - v, "squared": lambda v: v * v // 4096, "bytes swapped": lambda v: (v >> 8) | (v & 255) << 8,
                      "random": lambda v: np.random.default_rng(1).integers(0, 4096, v.shape)}.items():  # fmt: skip
        yield fault(f"pixels {name}", hu + " undecodable out_of_order scrambled_rows", repainted(range(20), how))
    for k in (5, 9, 14):
        for by in (150, 400, -150):
            yield fault(
                f"slice {k} brighter by {by}",
                "refused: out_of_order",
                repainted([k], lambda v, b=by: np.clip(v + b, 0, 4095)),
            )


def _paint() -> Iterator[Fault]:
    rng = np.random.default_rng(3)
    harms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mirrored": np.fliplr, "upside down": np.flipud, "turned": lambda v: np.rot90(v, 2), "black": lambda v: v * 0,
        "noise": lambda v: rng.integers(0, 2000, v.shape), "inverted": lambda v: np.clip(2100 - v, 0, 4095),
        "half black": lambda v: np.where(np.arange(len(v))[:, None] < 60, v, 0), "moved": lambda v: np.roll(v, 12, 1),
        "rows rolled": lambda v: np.roll(v, 15, 0), "half rolled": lambda v: np.where(np.arange(len(v))[:, None] < 60, v, np.roll(v, 30, 1)),
    }  # fmt: skip
    for name, how in harms.items():
        for k in (4, 8, 13, 15):
            yield fault(f"slice {k} {name}", "refused: out_of_order jump_max scrambled_rows", repainted([k], how))
    for n in (3, 8, 40, 64):
        yield fault(f"rows of {128 + n} cut as rows of 128", "refused: scrambled_rows",
                    repainted(range(20), lambda v, n=n: np.resize(np.pad(v, ((0, 8), (0, n)), mode="edge").ravel(), v.shape)))  # fmt: skip


def _cuts() -> Iterator[Fault]:
    for k in (3, 9, 16):
        for share in (0.0, 0.005, 0.01, 0.02, 0.04, 0.3, 0.7, 0.99):
            yield fault(f"slice {k} cut at {share}", "refused: missing_slices pixel_length no_pixels no_geometry undecodable",
                        cut(k, share))  # fmt: skip
    for k in (2, 10, 17):
        yield fault(
            f"pixels of slice {k} short",
            "refused: pixel_length",
            lambda s, k=k: put_pixels(s[k], s[k].PixelData[:-500]),
        )
        yield fault(
            f"pixels of slice {k} long",
            "refused: pixel_length",
            lambda s, k=k: put_pixels(s[k], s[k].PixelData + bytes(256)),
        )
        yield fault(f"no pixels in slice {k}", "refused: no_pixels", one(k, "PixelData", None))
        yield fault(f"garbage in the header of slice {k}", "refused: missing_slices pixel_length no_pixels no_geometry undecodable",
                    lambda s, k=k: [overwritten(encoded(d), 400) if n == k else d for n, d in enumerate(s)])  # fmt: skip
        yield fault(
            f"slice {k} is text",
            "refused: missing_slices",
            lambda s, k=k: [b"not DICOM " * 99 if n == k else d for n, d in enumerate(s)],
        )
    yield fault("all cut", "refused: pixel_length no_pixels undecodable", lambda s: [encoded(d)[:9000] for d in s])
    for k in (0, 19):
        yield fault(f"end slice {k} cut in its header", "corrected", cut(k, 0.01))


def put_pixels(ds: Dataset, data: bytes) -> None:
    """Other pixel bytes, whatever the tags say."""
    ds.PixelData = data
    ds["PixelData"].VR = "OW"


def overwritten(data: bytes, at: int) -> bytes:
    """Bytes with 120 of them replaced by noise."""
    return data[:at] + random.Random(at).randbytes(120) + data[at + 120 :]


def _mixtures() -> Iterator[Fault]:
    for tag, value in (
        ("PatientID", "other"),
        ("PatientName", "Other^One"),
        ("PatientBirthDate", "19700101"),
        ("PatientSex", "M"),
    ):
        for k in (0, 9, 19):
            yield fault(f"other {tag} in slice {k}", "refused: mixed_patients", one(k, tag, value))
            yield fault(f"no {tag} in slice {k}", "refused: identity_partly_missing", one(k, tag, ""))
        yield fault(f"other {tag} in half", "refused: mixed_patients", some(range(10), tag, value))
    for tag, rule in (("StudyInstanceUID", "mixed_studies"), ("FrameOfReferenceUID", "mixed_frame_of_reference"),
                      ("ConvolutionKernel", "mixed_kernels")):  # fmt: skip
        for k in (0, 8, 19):
            yield fault(
                f"other {tag} in slice {k}", f"refused: {rule}", one(k, tag, "1.2.9" if "UID" in tag else "B20s")
            )
        yield fault(
            f"other {tag} in half", f"refused: {rule}", some(range(10), tag, "1.2.9" if "UID" in tag else "B20s")
        )
    for k in (3, 11, 16):
        yield fault(f"slice {k} of another series", "refused: missing_slices", one(k, "SeriesInstanceUID", "1.2.9"))
        yield fault(f"slice {k} of another modality", "refused: missing_slices", one(k, "Modality", "MR"))
        yield fault(
            f"slice {k} a localizer",
            "refused: missing_slices",
            one(k, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        )
        yield fault(f"slice {k} in colour", "refused: missing_slices mixed_spacing", one(k, "SamplesPerPixel", 3))
        yield fault(f"other voltage in slice {k}", "corrected: mixed_kvp", one(k, "KVP", 80))
        yield fault(
            f"slice {k} from another scan", "refused: out_of_order", lambda s, k=k: put_pixels(s[k], stranger())
        )
    for patient in ({"PatientID": "x"}, {"PatientName": "X^Y", "PatientID": "x"}, {"PatientBirthDate": "19010101"}):
        yield fault(f"two patients {sorted(patient)}", "refused: mixed_patients",
                    lambda s, p=patient: s + [twin(d, SeriesInstanceUID="1.2.9", **p) for d in s])  # fmt: skip
    for up in (0.5, 0.25, 20.0, 21.0, 30.0):
        yield fault(f"series twice, {up} mm apart", "refused: uneven_slices missing_slices out_of_order repeated_slices jump_max",
                    lambda s, u=up: s + [twin(d, ImagePositionPatient=[*place(d)[:2], place(d)[2] + u]) for d in s])  # fmt: skip
    yield fault(
        "second series of one patient",
        "corrected",
        lambda s: s + [twin(d, SeriesInstanceUID="1.2.9", ConvolutionKernel="B20s") for d in s],
    )
    yield fault("a scout beside", "corrected", lambda s: [*s, twin(s[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
                ImageOrientationPatient=[1, 0, 0, 0, 0, -1])])  # fmt: skip


def stranger() -> bytes:
    """Pixels of a slice of another body."""
    hu = anatomy_hu(np.stack(np.meshgrid(np.arange(128) * 0.6, np.arange(120) * 0.6), axis=-1) @ np.array([[0.0, 1, 0], [1, 0, 0.1]])
                    + [-25.0, -60, 440])  # fmt: skip
    return np.clip(np.rint(hu + 1024), 0, 4095).astype("<u2").tobytes()


def _layout() -> Iterator[Fault]:
    wrong = "refused: pixel_length scrambled_rows undecodable field_of_view_min few_bits"
    for tag, values in {"Rows": (0, 1, 60, 119, 121, 240, 65535), "Columns": (0, 1, 64, 127, 129, 256, 65535)}.items():
        for value in values:
            yield fault(f"{tag} {value}", wrong, every(tag, value))
        yield fault(f"{tag} off by one in slice 7", "refused: missing_slices mixed_spacing", one(7, tag, 121))
        yield fault(f"{tag} missing", wrong, every(tag, None))
    yield fault(
        "rows and columns exchanged",
        "refused: scrambled_rows",
        lambda s: [(put(d, "Rows", 128), put(d, "Columns", 120)) for d in s],
    )
    yield fault("twice the rows, half the columns", "refused: scrambled_rows",
                lambda s: [(put(d, "Rows", 240), put(d, "Columns", 64)) for d in s], spacing=(1.4, 0.7, 1.0))  # fmt: skip
    yield fault("half the rows, twice the columns", "refused: scrambled_rows",
                lambda s: [(put(d, "Rows", 60), put(d, "Columns", 256)) for d in s])  # fmt: skip
    for value in (0, 1, 8, 32, 64, 12, 15, None):
        yield fault(f"BitsAllocated {value}", wrong + " bit_layout", every("BitsAllocated", value))
    for value in (8, 10, 11):
        yield fault(
            f"BitsStored {value}", "refused: undecodable few_bits bit_layout", lambda s, v=value: bits(s, v, v - 1)
        )
    for value in (13, 14, 15, 16):
        yield fault(f"BitsStored {value}", "corrected", lambda s, v=value: bits(s, v, v - 1))
    for high in (7, 10, 15, 0):
        yield fault(f"HighBit {high}", "refused: bit_layout", every("HighBit", high))
    yield fault("signed, twelve bits", "refused: undecodable", every("PixelRepresentation", 1))
    yield fault("signed, sixteen bits", "corrected", lambda s: (bits(s, 16, 15), every("PixelRepresentation", 1)(s)))
    yield fault("signed values called unsigned", "refused: undecodable hu_air hu_tissue",
                lambda s: [(put(d, "RescaleIntercept", 0), set_pixels(d, pixels(d).astype(int) - 1024)) for d in s])  # fmt: skip
    yield fault("PixelRepresentation missing", "refused: undecodable", every("PixelRepresentation", None))
    for value in (3, 4):
        yield fault(f"SamplesPerPixel {value}", "refused: colour", every("SamplesPerPixel", value))
    for value in ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422"):
        yield fault(f"photometric {value}", "refused: colour", every("PhotometricInterpretation", value))
    yield fault("photometric MONOCHROME1", "corrected: monochrome1", every("PhotometricInterpretation", "MONOCHROME1"))
    for value in (2, 5, 100_000, 2_000_000_000):
        yield fault(f"NumberOfFrames {value}", "refused: pixel_length no_geometry", every("NumberOfFrames", value))
    for value, outcome in (
        (-2000, "corrected"),
        (24, "corrected"),
        (1064, "corrected: padding_in_range"),
        (3000, "corrected: padding_in_range"),
    ):
        yield fault(f"padding value {value}", outcome, every("PixelPaddingValue", value))
    yield fault("padding range over all", "corrected: padding_in_range",
                lambda s: [(put(d, "PixelPaddingValue", 0), put(d, "PixelPaddingRangeLimit", 4000)) for d in s])  # fmt: skip
    for kind, rule in ((["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"), (["DERIVED", "SECONDARY", "MPR"], "derived"),
                       (["DERIVED", "PRIMARY", "MIP"], "derived"), (["ORIGINAL", "PRIMARY", "MINIP"], "derived")):  # fmt: skip
        yield fault(f"image type {kind}", f"refused: {rule}", every("ImageType", kind))
    for modality in ("MR", "PT", "SEG", "OT", "SR"):
        yield fault(f"modality {modality}", "refused: modality", every("Modality", modality))
    yield fault("secondary capture", "refused: secondary_capture", every("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))


def bits(series: Series, stored: int, high: int) -> None:
    """Bits stored and high bit of all slices."""
    for ds in series:
        ds.BitsStored, ds.HighBit = stored, high


def _encoding() -> Iterator[Fault]:
    for uid, name in (("1.2.840.10008.1.2", "implicit"), ("1.2.840.10008.1.2.2", "big endian"), ("1.2.840.10008.1.2.1.99", "deflated"),
                      ("1.2.840.10008.1.2.4.80", "JPEG-LS"), ("1.2.840.10008.1.2.4.90", "JPEG 2000"), ("1.2.840.10008.1.2.5", "RLE"),
                      ("1.2.840.10008.1.2.4.100", "MPEG-2"), ("1.2.3.4", "unknown"), ("1.2.840.10008.1.2.4.51", "JPEG 12 bit")):  # fmt: skip
        yield fault(f"uncompressed slices called {name}", "corrected" if name == "implicit" else "refused: syntax undecodable no_pixels pixel_length hu_air hu_tissue modality",
                    lambda s, u=uid: [encoded(d).replace(b"1.2.840.10008.1.2.1\0", (u + "\0" * (20 - len(u))).encode()[:20])
                                      if len(u) <= 20 else renamed(d, u) for d in s])  # fmt: skip
    streams = {"half": lambda b: b[: len(b) // 2], "tenth": lambda b: b[: len(b) // 10], "empty": lambda b: bytes(2), "noise": lambda b: b[:64]
               + random.Random(2).randbytes(len(b) - 64), "text": lambda b: b"x" * len(b)}  # fmt: skip
    for syntax, name in (
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
        ("1.2.840.10008.1.2.5", "RLE"),
    ):
        for how, harm in streams.items():
            for k in (5, 12):
                yield fault(f"{name} of slice {k}: {how}", "refused: undecodable out_of_order pixel_length no_pixels scrambled_rows",
                            compressed(syntax, k, harm))  # fmt: skip


def renamed(ds: Dataset, uid: str) -> bytes:
    """The file with another transfer syntax in its meta header and the same body."""
    whole, other = encoded(ds), twin(ds)
    body = whole[
        whole.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in whole else whole.index(b"\x08\x00\x08\x00") :
    ]
    other.file_meta.TransferSyntaxUID = uid
    from io import BytesIO

    from pydicom.filewriter import write_file_meta_info

    meta = BytesIO()
    write_file_meta_info(meta, other.file_meta, enforce_standard=True)
    return bytes(128) + b"DICM" + meta.getvalue() + body
