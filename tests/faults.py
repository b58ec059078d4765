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


def make(
    spacing: tuple[float, ...] = (0.7, 0.7, 1.0),
    shape: tuple[int, ...] = (128, 120, SLICES),
    noise: float = 12.0,
    orientation: tuple[float, ...] = AXIAL,
    step_mm: Any = None,
    **tags: Any,
) -> Series:
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


def put_pixels(ds: Dataset, data: bytes) -> None:
    """Other pixel bytes, whatever the tags say."""
    ds.PixelData = data
    ds["PixelData"].VR = "OW"


def overwritten(data: bytes, at: int) -> bytes:
    """Bytes with 120 of them replaced by noise."""
    return data[:at] + random.Random(at).randbytes(120) + data[at + 120 :]


def stranger() -> bytes:
    """Pixels of a slice of another body."""
    hu = anatomy_hu(
        np.stack(np.meshgrid(np.arange(128) * 0.6, np.arange(120) * 0.6), axis=-1)
        @ np.array([[0.0, 1, 0], [1, 0, 0.1]])
        + [-25.0, -60, 440]
    )
    return np.clip(np.rint(hu + 1024), 0, 4095).astype("<u2").tobytes()


def bits(series: Series, stored: int, high: int) -> None:
    """Bits stored and high bit of all slices."""
    for ds in series:
        ds.BitsStored, ds.HighBit = stored, high


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
