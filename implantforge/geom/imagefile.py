"""NIfTI and NRRD files as arrays with an index-to-LPS affine, and back. No length in a file is believed unbounded."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Grid, InputError

MAX_VOXELS = 1_000_000_000
MAX_HEADER_BYTES = 1_000_000
MAX_LAYERS = 255
NAMES_KEY = "implantforge_names"
_TO_LPS = {"left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
           "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)}  # fmt: skip
_TYPES = {
    "i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t", "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t", "i8": "longlong|long long|int64|int64_t",
    "u8": "ulonglong|unsigned long long|uint64|uint64_t", "f4": "float", "f8": "double",
}  # fmt: skip
_CODES = {name: code for code, names in _TYPES.items() for name in names.split("|")}


@dataclass(frozen=True, eq=False)
class RawImage:
    """values [i,j,k] as stored (an array or what slices like one); affine maps index to LPS mm, None when not known."""

    values: Any
    affine: Array | None
    shape: tuple[int, int, int]
    dtype: np.dtype
    fields: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: Path, layered: bool = False) -> RawImage:
    """A .nii, .nii.gz, .nrrd or .seg.nrrd file; InputError when damaged, of lying size or not a 3D scalar image.

    layered: a NRRD whose first axis is a list (layers of a Slicer segmentation) is taken too, values [i,j,k,layer].
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path)
    if name.endswith(".nrrd"):
        return _read_nrrd(path, layered)
    raise InputError("image: give a .nii, .nii.gz or .nrrd file (a detached .nhdr header cannot be read)")


def voxels(image: RawImage, what: str) -> NDArray:
    """All values as an array of the image's shape; InputError when the file ends before its last voxel or is damaged."""
    try:
        values = np.asarray(image.values[:, :, :])
        return values if values.ndim == 4 and values.shape[:3] == image.shape else values.reshape(image.shape)
    except Exception as error:
        raise InputError(f"{what}: the voxels cannot be read ({type(error).__name__}): cut off or damaged") from None


def write_nrrd(path: Path, grid: Grid, values: NDArray, fields: Mapping[str, str]) -> None:
    """An attached gzip NRRD in left-posterior-superior mm. Same input, same bytes: no time, no file name inside."""
    columns = grid.pose.rotation * grid.spacing_mm
    kind = {"uint8": "uint8", "int16": "int16", "float32": "float"}[values.dtype.name]
    lines = ["NRRD0005", f"type: {kind}", "dimension: 3", "space: left-posterior-superior",
             f"sizes: {' '.join(str(n) for n in values.shape)}",
             f"space directions: {' '.join(_vector(columns[:, a]) for a in range(3))}", "kinds: domain domain domain",
             "endian: little", "encoding: gzip", 'space units: "mm" "mm" "mm"',
             f"space origin: {_vector(grid.pose.origin_mm)}"]  # fmt: skip
    head = "\n".join(lines + [f"{key}:={value}" for key, value in fields.items()]) + "\n\n"
    with replacing(path) as raw:
        raw.write(head.encode("utf-8"))
        with gzip.GzipFile("", "wb", 1, raw, mtime=0) as stream:
            for k in range(0, values.shape[2], 32):
                stream.write(values[:, :, k : k + 32].tobytes(order="F"))


def write_nifti(path: Path, grid: Grid, values: NDArray[np.uint8], names: Mapping[str, int]) -> None:
    """A gzip NIfTI (RAS affine as the format wants), names kept in a comment extension. Same input, same bytes."""
    import nibabel

    image = nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 2)
    image.set_qform(image.affine, 2)
    text = json.dumps({NAMES_KEY: dict(names)}, sort_keys=True).encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    with replacing(path) as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as stream:
        stream.write(image.to_bytes())


class replacing:
    """A file that appears under its name only when it was written whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")

    def __enter__(self) -> Any:
        self.stream = open(self.part, "wb")
        return self.stream

    def __exit__(self, kind: object, *_: object) -> None:
        self.stream.close()
        if kind is None:
            os.replace(self.part, self.path)
        else:
            self.part.unlink(missing_ok=True)


def _vector(values: Array) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"


def _size(shape: tuple[int, ...], what: str) -> tuple[int, int, int]:
    """The shape as three positive sizes; InputError when it is not one volume or too large."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(f"{what}: {' x '.join(map(str, shape))} samples: one 3D volume is needed")
    if min(shape) < 1 or int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS or max(shape) > MAX_VOXELS:
        raise InputError(f"{what}: {' x '.join(map(str, shape))} voxels, limit {MAX_VOXELS:.0e}")
    return shape


def _read_nifti(path: Path) -> RawImage:
    import nibabel

    try:
        image = nibabel.Nifti1Image.from_filename(path, keep_file_open=True)
        header = image.header
        offset = float(header["vox_offset"])
        shape = _size(tuple(int(n) for n in image.shape), "NIfTI")
        sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
        unit = header.get_xyzt_units()[0]
        dtype = header.get_data_dtype()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"NIfTI: the header cannot be read ({type(error).__name__})") from None
    if offset > MAX_HEADER_BYTES:
        raise InputError(f"NIfTI: voxels are said to start at byte {offset:.0f}: a damaged header")
    if dtype.kind not in "iuf" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise InputError(f"NIfTI: voxels are {dtype}: numbers are needed")
    if unit in ("meter", "micron"):
        raise InputError(f"NIfTI: lengths are in {unit}s: write them in mm")
    notes = [] if unit == "mm" else ["NIfTI without a length unit: mm assumed"]
    affine, code = (sform[0], sform[1]) if sform[1] else (qform[0], qform[1])
    if sform[1] and qform[1]:
        corners = np.array(
            [[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)]
        )
        apart = float(np.abs((sform[0] - qform[0]) @ corners.T).max())
        if apart > 0.1:
            raise InputError(
                f"NIfTI: sform and qform place the volume {apart:.1f} mm apart: the writer must say which holds"
            )
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine if code and affine is not None else None
    return RawImage(image.dataobj, lps, shape, dtype, {}, _nifti_names(header), tuple(notes))


def _nifti_names(header: Any) -> dict[str, int]:
    for extension in header.extensions:
        try:
            names = json.loads(extension.get_content().decode().rstrip("\0"))[NAMES_KEY]
            return {str(name): int(value) for name, value in names.items()}
        except Exception:  # another program's extension, perhaps of a kind nibabel itself cannot read
            continue
    return _label_table(header)


def _label_table(header: Any) -> dict[str, int]:
    """Names from a label table in an extension, as TotalSegmentator writes it: <Label Key="75" ...>femur_left</Label>."""
    for extension in header.extensions:
        try:
            text = extension.get_content()
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        except Exception:  # an extension of its own kind, which nibabel could not read
            continue
        found = re.findall(
            r'<Label\s[^<>]{0,200}?Key="(\d{1,5})"[^<>]{0,200}>\s*(?:<!\[CDATA\[)?([^<>\]]{1,100})',
            text[:MAX_HEADER_BYTES],
        )
        if found:
            return {name.strip(): int(key) for key, name in found if int(key)}
    return {}


def _read_nrrd(path: Path, layered: bool) -> RawImage:
    with open(path, "rb") as stream:
        fields, start = _nrrd_header(stream.read(MAX_HEADER_BYTES))
        try:
            dtype = np.dtype(_CODES[fields["type"].lower()])
            layers, sizes = _layered(fields, layered)
        except (KeyError, ValueError):
            raise InputError("NRRD: type and sizes of one scalar volume are needed") from None
        if dtype.itemsize > 1:
            dtype = dtype.newbyteorder(">" if fields.get("endian", "").lower() == "big" else "<")
        if "data file" in fields or "datafile" in fields:
            raise InputError("NRRD: voxels lie in another file: save with attached data")
        want = int(np.prod(sizes)) * layers * dtype.itemsize
        stream.seek(start)
        data = _payload(stream, fields.get("encoding", "").lower(), want)
    values = np.frombuffer(data, dtype, int(np.prod(sizes)) * layers).reshape((layers, *sizes), order="F")
    values = np.moveaxis(values, 0, 3) if layers > 1 else values[0]
    return RawImage(values, _nrrd_affine(fields), sizes, dtype, fields)


def _layered(fields: Mapping[str, str], layered: bool) -> tuple[int, tuple[int, int, int]]:
    """(layers, sizes) of a NRRD: a leading list axis counts layers."""
    sizes, kinds = tuple(int(n) for n in fields["sizes"].split()), fields.get("kinds", "").lower().split()
    listed = len(sizes) == 4 and len(kinds) == 4 and kinds[0] in ("list", "vector") and kinds[1:] == ["domain"] * 3
    if not listed or not layered:
        return 1, _size(sizes, "NRRD")
    if not 1 <= sizes[0] <= MAX_LAYERS:
        raise InputError(f"NRRD: {sizes[0]} layers, limit {MAX_LAYERS}")
    return sizes[0], _size((sizes[1], sizes[2], sizes[3] * sizes[0]), "NRRD")[:2] + (sizes[3],)


def _nrrd_header(head: bytes) -> tuple[dict[str, str], int]:
    ends = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if mark in head]
    if not head.startswith(b"NRRD000") or not ends:
        raise InputError("NRRD: no header found")
    end, length = min(ends)
    fields: dict[str, str] = {}
    for line in head[:end].decode("utf-8", "replace").splitlines()[1:]:
        key, mark, value = line.partition(":=") if ":=" in line else line.partition(": ")
        if mark and not line.startswith("#"):
            fields[key.strip() if mark == ":=" else key.strip().lower()] = value.strip()
    return fields, end + length


def _payload(stream: Any, encoding: str, want: int) -> bytearray:
    """Exactly `want` bytes of voxels; what a bomb would add is never unpacked."""
    data = bytearray()
    if encoding == "raw":
        data += stream.read(want)
    elif encoding in ("gzip", "gz"):
        unpack = zlib.decompressobj(wbits=31)
        try:
            while len(data) < want and not unpack.eof:
                packed = unpack.unconsumed_tail or stream.read(1 << 20)
                if not packed:
                    break
                data += unpack.decompress(packed, min(want - len(data), 1 << 24))
        except zlib.error:
            raise InputError(f"NRRD: the voxels are damaged after {len(data)} of {want} bytes") from None
    else:
        raise InputError(f"NRRD: encoding {encoding or 'missing'} cannot be read: save as raw or gzip")
    if len(data) != want:
        raise InputError(f"NRRD: {len(data)} of {want} bytes of voxels: the file is cut off")
    return data


def _nrrd_affine(fields: Mapping[str, str]) -> Array | None:
    """Index to LPS mm, None when the file has no space, directions or origin."""
    signs = _TO_LPS.get(fields.get("space", "").lower())
    try:
        columns = re.sub(r",\s+", ",", fields["space directions"].replace("none", "")).split()
        vectors = [[float(n) for n in c.strip("()").split(",")] for c in columns]
        origin = [float(n) for n in fields["space origin"].strip("()").split(",")]
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = np.array(vectors).T, origin
    except (KeyError, ValueError):
        return None
    return None if signs is None else np.diag([*signs, 1.0]) @ out
