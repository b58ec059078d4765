"""Mutations of where slices lie: which there are, their order, spacing, orientation, position, tilt."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from faults import (
    SLICES,
    Fault,
    copied,
    every,
    fault,
    jumbled,
    moved,
    one,
    place,
    put,
    repainted,
    shift,
    some,
    swapped,
    without,
)
from series import pixels


def places() -> Iterator[Fault]:
    """Every such fault, grouped by what was done."""
    yield from _slices()
    yield from _order()
    yield from _spacing()
    yield from _orientation()
    yield from _positions()
    yield from _tilts()


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
        yield fault(
            f"instance numbers scrambled {seed}",
            "corrected",
            lambda s, n=numbers: [put(ds, "InstanceNumber", m) for ds, m in zip(s, n)],
        )
        yield fault(
            f"slice locations scrambled {seed}",
            "corrected",
            lambda s, n=numbers: [put(ds, "SliceLocation", m) for ds, m in zip(s, n)],
        )
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
    bad = {
        "zero": [0, 0],
        "one zero": [0.7, 0],
        "negative": [-0.7, 0.7],
        "both negative": [-0.7, -0.7],
        "text": b"abc\\def ",
        "nan": b"nan\\nan ",
        "one nan": b"0.7\\nan ",
        "inf": b"inf\\inf ",
        "empty": b"",
        "one value": b"0.70",
        "missing": None,
        "three": b"0.7\\0.7\\0.7 ",
        "comma": b"0,7\\0,7 ",
        "tiny": [1e-30, 1e-30],
        "huge": [1e30, 1e30],
    }
    for name, value in bad.items():
        yield fault(
            f"pixel spacing {name}",
            "refused: no_geometry bad_spacing field_of_view_min field_of_view_max too_big",
            every("PixelSpacing", value),
        )
        yield fault(
            f"pixel spacing {name} in slice 9",
            "refused: no_geometry bad_spacing missing_slices mixed_spacing",
            one(9, "PixelSpacing", value),
        )
    for factor in (0.001, 0.1, 0.5, 10.0, 25.4, 1000.0):
        yield fault(
            f"pixel spacing times {factor}",
            "refused: field_of_view_min field_of_view_max",
            every("PixelSpacing", [0.7 * factor] * 2),
        )
    for factor in (0.97, 1.03, 1.2, 2.0):
        yield fault(
            f"pixel spacing times {factor}, diameter known",
            "refused: diameter_disagrees",
            every("PixelSpacing", [0.7 * factor] * 2),
            ReconstructionDiameter=89.6,
        )
    yield fault("spacing right, diameter known", "corrected", lambda s: None, ReconstructionDiameter=89.6)
    for spacing in ((0.6, 0.9, 1.0), (0.9, 0.6, 1.0), (0.7, 0.8, 1.0)):
        yield fault(
            f"row and column spacing swapped {spacing}",
            "told: pixel_not_square",
            every("PixelSpacing", [spacing[0], spacing[1]]),
            spacing=spacing,
            shape=(150, 140, SLICES),
        )
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
    bad = {
        "zero": [0] * 6,
        "long": [2, 0, 0, 0, 1, 0],
        "skew": [1, 0, 0, 0.1, 0.995, 0],
        "same": [1, 0, 0, 1, 0, 0],
        "missing": None,
        "nan": b"1\\0\\0\\0\\nan\\0 ",
        "text": b"L\\0\\0\\0\\P\\0 ",
        "five": b"1\\0\\0\\0\\1 ",
        "empty": b"",
        "short": [0.99, 0, 0, 0, 0.99, 0],
    }
    for name, value in bad.items():
        yield fault(f"orientation {name}", "refused: no_geometry bad_cosines", every("ImageOrientationPatient", value))
        yield fault(
            f"orientation {name} in slice 8",
            "refused: no_geometry bad_cosines missing_slices mixed_orientation",
            one(8, "ImageOrientationPatient", value),
        )
    turned = {
        "rows reversed": [-1, 0, 0, 0, 1, 0],
        "columns reversed": [1, 0, 0, 0, -1, 0],
        "upside down": [-1, 0, 0, 0, -1, 0],
        "transposed": [0, 1, 0, 1, 0, 0],
        "quarter": [0, 1, 0, -1, 0, 0],
    }
    for name, value in turned.items():
        for k in (0, 7, 19):
            yield fault(
                f"{name} in slice {k}",
                "refused: missing_slices mixed_orientation",
                one(k, "ImageOrientationPatient", value),
            )
        for half in (range(10), range(12, 20), range(0, 20, 2)):
            yield fault(
                f"{name} in {half}",
                "refused: missing_slices mixed_orientation",
                some(half, "ImageOrientationPatient", value),
            )
        yield fault(f"{name} in all", "told: orientation_unusual", every("ImageOrientationPatient", value))
        if name != "transposed":
            yield fault(
                f"{name} in all, centre known",
                "refused: centre_disagrees",
                every("ImageOrientationPatient", value),
                ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0],
            )
    yield fault(
        "nothing, centre known", "corrected", lambda s: None, ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0]
    )
    for deg in (36, 50, 70, -40, -60):
        c, s = float(np.cos(np.radians(deg))), float(np.sin(np.radians(deg)))
        yield fault(
            f"orientation turned {deg} deg, positions not",
            "refused: tilt_max one_slice",
            every("ImageOrientationPatient", [1, 0, 0, 0, c, s]),
        )
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
        yield fault(
            f"z times {factor}",
            "refused: slice_overlap slice_spacing_max length_max one_slice duplicate_slices conflicting_slices",
            lambda s, f=factor: [put(d, "ImagePositionPatient", [*place(d)[:2], place(d)[2] * f]) for d in s],
        )
    for by in (20.0, -80.0):
        yield fault(
            f"all {by} mm aside, centre known",
            "refused: centre_disagrees",
            shift(range(20), (by, 0, 0)),
            ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0],
        )
    yield fault(
        "x and y exchanged, centre known",
        "refused: centre_disagrees",
        lambda s: [put(d, "ImagePositionPatient", [*place(d)[1::-1], place(d)[2]]) for d in s],
        ReconstructionTargetCenterPatient=[12.0, -30.0, 450.0],
    )
    yield fault(
        "steps creep",
        "refused: creeping_slices uneven_slices",
        lambda s: [put(d, "ImagePositionPatient", [*place(d)[:2], 430 + k + 2.2e-3 * k**2]) for k, d in enumerate(s)],
    )
    for digits in (2, 3, 4):
        yield fault(
            f"positions rounded to {digits} decimals",
            "corrected",
            lambda s, n=digits: [put(d, "ImagePositionPatient", [f"{v:.{n}f}" for v in place(d)]) for d in s],
        )


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
