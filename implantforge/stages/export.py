"""Files for the printing plant: binary STL, 3MF with units, material and build transform, Slicer markups.

Equal input gives equal bytes: no clock, no random identifiers. Both mesh writers pass through `exportable`, so the two
files hold the same triangles.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, GeometryError, InputError, Landmark, Mesh, Pose
from implantforge.geom.meshing import Surface
from implantforge.kernels import files

STL_HEADER = b"UNITS=mm ImplantForge binary STL, patient LPS"
GRID_MM = 1e-5  # coordinates are written in steps of this: distinct vertices stay distinct in float32 and in text
SPACE_3MF = "urn:implantforge:metadata:1"
METADATA_3MF = (
    "Title", "Designer", "Description", "Copyright", "LicenseTerms", "Rating", "CreationDate", "ModificationDate",
    "Application",
)  # fmt: skip

LINES = 1 << 16  # of a 3MF that are deflated together
PARTS_3MF = {
    "[Content_Types].xml": '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>\n',
    "_rels/.rels": '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>\n',
}

_Names = NDArray[np.int64]


class Reread(NamedTuple):
    """What a strict reader found in a 3MF file."""

    volume_mm3: float
    triangles: int
    warnings: tuple[str, ...]
    manifold: bool
    unit_is_mm: bool
    metadata: dict[str, str]
    transforms: tuple[Array, ...]
    materials: tuple[str, ...]
    thumbnail_bytes: int


def exportable(mesh: Mesh) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices (n,3) float32 on the writing grid and faces (m,3), without faces that the rounding collapses.

    The ends of a collapsed edge become one vertex, so a closed surface stays closed. GeometryError when nothing is left
    or a coordinate is not finite.
    """
    if not np.isfinite(mesh.vertices).all():
        raise GeometryError("export: the part has a vertex that is not finite")
    points = (np.round(mesh.vertices / GRID_MM) * GRID_MM).astype(np.float32)
    faces = mesh.faces.astype(np.int64)
    for _ in range(8):
        ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        same = (points[ends[:, 0]] == points[ends[:, 1]]).all(axis=1)
        if not same.any():
            break
        faces = _merged(ends[same], len(points))[faces]
        distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        faces = faces[distinct]
    if not len(faces):
        raise GeometryError("export: no triangle is larger than the file's resolution")
    used, numbers = np.unique(faces, return_inverse=True)
    return points[used], numbers.reshape(-1, 3).astype(np.int32)


def _merged(pairs: _Names, count: int) -> _Names:
    """For each of `count` vertices the lowest vertex it is joined to by the pairs (itself when none)."""
    target = np.arange(count)
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    while True:
        before = target.copy()
        np.minimum.at(target, high, target[low])
        np.minimum.at(target, low, target[high])
        target = target[target]
        if (target == before).all():
            return target


def write_stl(path: Path, mesh: Mesh) -> None:
    """Binary STL in mm; the header names the unit and nothing of the patient. Normals follow the winding."""
    points, faces = exportable(mesh)
    corners = points[faces]
    wide = corners.astype(np.float64)
    normal = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    rows = np.zeros(len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    rows["corners"] = corners
    with path.open("wb") as out:
        out.write(STL_HEADER.ljust(80))
        out.write(struct.pack("<I", len(faces)))
        rows.tofile(out)


class Body(NamedTuple):
    """One printable body: its name, surface in patient LPS mm, and the pose that stands it on the plate (z up)."""

    name: str
    mesh: Mesh
    build: Pose


def write_3mf(path: Path, mesh: Mesh, build: Pose, metadata: Mapping[str, str], **more: Any) -> None:
    """One printable body in millimetres, called "part"; the rest as in `write_bodies`."""
    write_bodies(path, [Body("part", mesh, build)], metadata, **more)


def write_bodies(
    path: Path,
    bodies: Sequence[Body],
    metadata: Mapping[str, str],
    *,
    material: str = "Ti-6Al-4V ELI",
    thumbnail_png: bytes = b"",
    extra: Mapping[str, str] | None = None,
) -> None:
    """Printable bodies in millimetres, each an object with a build item.

    Meshes stay in patient LPS; `build` is the build item's transform. metadata gives the nine standard names (a missing
    one is written as "not stated"); `extra` rides under the project's own prefix. Identifiers are derived from the
    content. GeometryError when a surface is not closed and outward.
    """
    from lib3mf import Lib3MF

    model = Lib3MF.Wrapper().CreateModel()
    model.SetUnit(Lib3MF.ModelUnit.MilliMeter)
    group = model.AddBaseMaterialGroup()
    metal = group.AddMaterial(material, Lib3MF.Color(165, 165, 170, 255))
    seals = []
    for one in bodies:
        points, faces = exportable(one.mesh)
        body = model.AddMeshObject()
        _set_geometry(body, points, faces)
        if not body.IsManifoldAndOriented():
            raise GeometryError(
                f"export: 3MF needs a closed, outward surface; the {one.name} has open or doubled edges"
            )
        body.SetName(one.name)
        body.SetPartNumber(one.name)
        body.SetObjectLevelProperty(group.GetResourceID(), metal)
        item = model.AddBuildItem(body, _transform(Lib3MF, one.build))
        item.SetPartNumber(one.name)
        notes = repr((one.name, one.build.matrix.tolist(), metadata)).encode()
        seals.append(hashlib.sha256(points.tobytes() + faces.tobytes() + notes).hexdigest())
        for name, target in (("object", body.SetUUID), ("item", item.SetUUID)):
            target(_uuid(seals[-1], name))
    model.SetBuildUUID(_uuid("/".join(seals), "build"))
    group_3mf = model.GetMetaDataGroup()
    for name in METADATA_3MF:
        group_3mf.AddMetaData("", name, metadata.get(name) or "not stated", "xs:string", True)
    for name, value in sorted((extra or {}).items()):
        group_3mf.AddMetaData(SPACE_3MF, name, value, "xs:string", True)
    if thumbnail_png:
        model.CreatePackageThumbnailAttachment().ReadFromBuffer(thumbnail_png)
    path.write_bytes(_packed(model))


def _packed(model: Any) -> bytes:
    """The model as lib3mf packs it. Not written by lib3mf itself: a disk that fills up ends the whole process there."""
    from lib3mf import Lib3MF

    held = io.BytesIO()

    def write(start: int, count: int, _: Any) -> int:
        return int(held.write(ctypes.string_at(start, count)) != count)

    def seek(place: int, _: Any) -> int:
        return int(held.seek(place) != place)

    calls = Lib3MF.WriteCallback(write), Lib3MF.SeekCallback(seek)  # held until the writer is done with them
    model.QueryWriter("3mf").WriteToCallback(*calls, 0)
    return held.getvalue()


def _uuid(seal: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{SPACE_3MF}/{seal}/{name}"))


Progress = Callable[[float], None]


@contextmanager
def _whole(path: Path, size: int, what: str) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes its place only when whole; InputError names a disk that is too full."""
    part = path.with_name(path.name + ".part")
    try:
        disk = shutil.disk_usage(path.parent)
        if not disk.total:
            raise InputError(f"{path}: {path.parent} is no place for files; choose another folder")
        if (free := disk.free) < size:
            raise InputError(
                f"{path}: {what} needs about {size / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; raise h or "
                "choose another folder"
            )
        with part.open("w+b") as out:
            yield out
        os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror}); {what} needs about {size / 1e6:.0f} MB; nothing is left"
        ) from error
    finally:
        part.unlink(missing_ok=True)  # also after Ctrl-C: no file that looks whole


def stream_stl(path: Path, surface: Surface, progress: Progress | None = None) -> None:
    """Binary STL of a surface made layer by layer: memory holds two layers and the surface's signs.

    Records are those of write_stl, without its merging: the surface's vertices lie apart. InputError for a full disk,
    GeometryError where the surface leaves its bounds; neither leaves a file.
    """
    size = 84 + 50 * surface.face_count
    if surface.face_count >= 2**32:
        raise GeometryError(f"STL counts triangles in 32 bits, the surface has {surface.face_count}; raise h")
    with _whole(path, size, f"STL of {surface.face_count} triangles") as out:
        out.write(STL_HEADER.ljust(80) + struct.pack("<I", surface.face_count))
        layers, starts = surface.layers, surface.offsets[0]
        here = surface.vertices(*layers[0])
        for n, (first, last) in enumerate(layers):
            above = surface.vertices(*layers[n + 1]) if n + 1 < len(layers) else here[:0]
            points, faces = np.concatenate([here, above]), surface.faces(first, last)
            rows = np.empty((len(faces), 25), np.uint16)
            files.stl_rows(points, points.view(np.uint16), faces, int(starts[first]), rows)
            out.write(rows.astype("<u2", copy=False).data)
            here = above
            if progress:
                progress((n + 1) / len(layers))


def stream_3mf(
    path: Path,
    surface: Surface,
    build: Pose,
    metadata: Mapping[str, str],
    *,
    material: str = "Ti-6Al-4V ELI",
    extra: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """3MF of a surface made run by run, vertices shared, coordinates in steps of GRID_MM; otherwise as write_3mf.

    Equal bytes for any number of threads. Errors as stream_stl.
    """
    size = 12 * surface.face_count + 12 * surface.vertex_count  # deflated, as measured
    fields = [float(x) for x in np.vstack([build.rotation.T, build.origin_mm]).ravel()]
    notes = [(name, metadata.get(name) or "not stated") for name in METADATA_3MF]
    notes += [(f"own:{name}", value) for name, value in sorted((extra or {}).items())]
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<model unit="millimeter" xml:lang="en-US" '
        f'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02" xmlns:own={quoteattr(SPACE_3MF)}>\n'
        + "".join(f"<metadata name={quoteattr(name)}>{escape(value)}</metadata>\n" for name, value in notes)
        + f'<resources>\n<basematerials id="1"><base name={quoteattr(material)} displaycolor="#A5A5AAFF"/>'
        '</basematerials>\n<object id="2" type="model" pid="1" pindex="0" name="part" partnumber="part"><mesh>\n'
    )
    tail = '</mesh></object>\n</resources>\n<build><item objectid="2" transform="{}"/></build>\n</model>\n'
    with _whole(path, size, f"3MF of {surface.face_count} triangles") as out:
        listing = [_entry(out, name, [text.encode()]) for name, text in PARTS_3MF.items()]
        body = _lines(surface, head, tail.format(" ".join(map(repr, fields))), progress)
        listing.append(_entry(out, "3D/3dmodel.model", body))
        _directory(out, listing)


def _lines(surface: Surface, head: str, tail: str, progress: Progress | None) -> Iterator[bytes]:
    """The model file: vertices of all runs, then faces of all runs."""
    yield head.encode() + b"<vertices>\n"
    done, every = 0, surface.vertex_count + surface.face_count
    for kind, rule, width, words in (
        (surface.vertices, files.vertex_lines, 64, (b'<vertex x="', b'" y="', b'" z="', b'"/>\n')),
        (surface.faces, files.face_lines, 60, (b'<triangle v1="', b'" v2="', b'" v3="', b'"/>\n')),
    ):
        given = tuple(np.frombuffer(word, np.uint8) for word in words)
        for first, last in surface.layers:
            rows = kind(first, last)
            if rows.dtype == np.float32 and len(rows) and not np.abs(rows).max() < 1e4:
                raise GeometryError("export: the part reaches beyond 10 m from the origin")
            out = np.empty((len(rows), width), np.uint8)
            rule(rows, given, out)
            yield from (out[n : n + LINES].tobytes() for n in range(0, len(out), LINES))
            done += len(rows)
            if progress:
                progress(done / every)
        yield b"</vertices>\n<triangles>\n" if width == 64 else b"</triangles>\n"
    yield tail.encode()


def _deflated(data: bytes) -> bytes:
    """One piece of a deflate stream that leans on no other."""
    press = zlib.compressobj(1, zlib.DEFLATED, -15)
    return press.compress(data) + press.flush(zlib.Z_FULL_FLUSH)


def _entry(out: BinaryIO, name: str, pieces: Iterable[bytes]) -> bytes:
    """Adds a file to a zip, deflated by two threads; its line in the directory. Sizes of 64 bits throughout."""
    start, crc, size = out.tell(), 0, 0
    header = "<IHHHHHIIIHH"
    plain = name.encode()

    def first() -> bytes:
        wide = struct.pack("<HHQQ", 1, 16, size, packed)
        fixed = (0x04034B50, 45, 0, 8, 0, 0x21, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(plain), len(wide))
        return struct.pack(header, *fixed) + plain + wide

    packed = 0
    out.write(first())
    waiting: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        for piece in pieces:
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            waiting.append(pool.submit(_deflated, piece))
            if len(waiting) == 8:
                packed += out.write(waiting.pop(0).result())
        for left in waiting:
            packed += out.write(left.result())
    packed += out.write(b"\x03\x00")  # an empty last block ends the stream
    out.seek(start)
    out.write(first())
    out.seek(0, os.SEEK_END)
    wide = struct.pack("<HHQQQ", 1, 24, size, packed, start)
    full = 0xFFFFFFFF
    fixed = (0x02014B50, 45, 45, 0, 8, 0, 0x21, crc, full, full, len(plain), len(wide), 0, 0, 0, 0, full)
    return struct.pack("<IHHHHHHIIIHHHHHII", *fixed) + plain + wide


def _directory(out: BinaryIO, lines: list[bytes]) -> None:
    """Ends a zip."""
    start, size = out.tell(), sum(map(len, lines))
    out.write(b"".join(lines))
    count, full = len(lines), 0xFFFFFFFF
    out.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start))
    out.write(struct.pack("<IIQI", 0x07064B50, 0, start + size, 1))
    out.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, full, full, 0))


def reread_3mf(path: Path) -> Reread:
    """Reads a 3MF with one body in strict mode; GeometryError says why a file cannot be read."""
    from lib3mf import Lib3MF

    model = Lib3MF.Wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    try:
        reader.ReadFromFile(str(path))
    except Lib3MF.ELib3MFException as error:
        raise GeometryError(f"3MF: {path.name} is refused by a strict reader: {error}") from error
    warnings = tuple(str(reader.GetWarning(i)) for i in range(reader.GetWarningCount()))
    volume, triangles, manifold = 0.0, 0, True
    bodies = model.GetMeshObjects()
    while bodies.MoveNext():
        body = bodies.GetCurrentMeshObject()
        points, faces = _get_geometry(body)
        volume += Mesh(points.astype(np.float64), faces).volume_mm3
        triangles += len(faces)
        manifold &= bool(body.IsManifoldAndOriented())
    return Reread(
        volume,
        triangles,
        warnings,
        manifold,
        model.GetUnit() == Lib3MF.ModelUnit.MilliMeter,
        _metadata(model),
        _transforms(model),
        _materials(model),
        model.GetPackageThumbnailAttachment().GetStreamSize() if model.HasPackageThumbnailAttachment() else 0,
    )


def write_markups(path: Path, landmarks: Mapping[str, Landmark]) -> None:
    """A 3D Slicer point list (.mrk.json) in LPS mm; the label is the landmark's name, the description its method."""
    points = [
        {
            "id": str(number),
            "label": name,
            "description": f"{mark.method} sigma {mark.sigma_mm:.2f} mm",
            "position": [round(float(x), 4) for x in mark.at_mm],
            "positionStatus": "defined",
            "selected": True,
            "locked": True,
            "visibility": True,
        }
        for number, (name, mark) in enumerate(landmarks.items(), 1)
    ]
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema"
    page = {
        "@schema": f"{schema}/markups-schema-v1.0.3.json#",
        "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}],
    }
    path.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


def png(rgb: NDArray[np.uint8]) -> bytes:
    """A picture (H,W,3) as PNG, the same bytes every time."""
    height, width, _ = rgb.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = rgb.reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _set_geometry(body: Any, points: NDArray[np.float32], faces: NDArray[np.int32]) -> None:
    # lib3mf's own SetGeometry makes one Python object a vertex: 6 s for 1.3 M triangles. The C entry takes the arrays.
    from lib3mf import Lib3MF

    points, indices = np.ascontiguousarray(points), np.ascontiguousarray(faces, dtype=np.uint32)
    call = body._wrapper.lib.lib3mf_meshobject_setgeometry
    where = (
        ctypes.c_uint64(len(points)), points.ctypes.data_as(ctypes.POINTER(Lib3MF.Position)),
        ctypes.c_uint64(len(indices)), indices.ctypes.data_as(ctypes.POINTER(Lib3MF.Triangle)),
    )  # fmt: skip
    body._wrapper.checkError(body, call(body._handle, *where))


def _get_geometry(body: Any) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    from lib3mf import Lib3MF

    points = np.empty((body.GetVertexCount(), 3), np.float32)
    faces = np.empty((body.GetTriangleCount(), 3), np.uint32)
    lib = body._wrapper.lib
    pairs = (
        (points, Lib3MF.Position, lib.lib3mf_meshobject_getvertices),
        (faces, Lib3MF.Triangle, lib.lib3mf_meshobject_gettriangleindices),
    )
    for array, kind, call in pairs:
        needed = ctypes.c_uint64(0)
        pointer = array.ctypes.data_as(ctypes.POINTER(kind))
        body._wrapper.checkError(body, call(body._handle, ctypes.c_uint64(len(array)), needed, pointer))
    return points, faces.astype(np.int32)


def _transform(lib: Any, build: Pose) -> Any:
    """3MF multiplies row vectors: three rows of the transposed rotation, then the translation."""
    rows = np.vstack([build.rotation.T, build.origin_mm])
    out = lib.Transform()
    for i in range(4):
        for j in range(3):
            out.Fields[i][j] = float(rows[i, j])
    return out


def _transforms(model: Any) -> tuple[Array, ...]:
    found, items = [], model.GetBuildItems()
    while items.MoveNext():
        fields = items.GetCurrent().GetObjectTransform().Fields
        found.append(np.array([[fields[i][j] for j in range(3)] for i in range(4)]))
    return tuple(found)


def _materials(model: Any) -> tuple[str, ...]:
    found, groups = [], model.GetBaseMaterialGroups()
    while groups.MoveNext():
        group = groups.GetCurrentBaseMaterialGroup()
        found += [group.GetName(number) for number in group.GetAllPropertyIDs()]
    return tuple(found)


def _metadata(model: Any) -> dict[str, str]:
    group = model.GetMetaDataGroup()
    rows = (group.GetMetaData(i) for i in range(group.GetMetaDataCount()))
    return {row.GetName(): row.GetValue() for row in rows}
