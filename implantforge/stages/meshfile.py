"""Mesh files with units and uncertainty: PLY (sigma_mm a vertex), OBJ, binary STL, and mesh.json beside them.

Equal input gives equal bytes. Coordinates are patient LPS in mm, rounded to 0.01 um as in the printing files.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, InputError, Mesh

SUFFIXES = (".ply", ".obj", ".stl")
_STEP_MM = 1e-5


def write_mesh(path: Path, mesh: Mesh, sigma_mm: Array | None = None) -> None:
    """Writes by suffix. PLY is binary little endian with float64 x y z and, when given, float32 quality and sigma_mm;
    OBJ and STL cannot hold sigma_mm. InputError for another suffix."""
    writers = {".ply": _ply, ".obj": _obj, ".stl": _stl}
    if path.suffix.lower() not in writers:
        raise InputError(f"mesh: {path.name} must end in {', '.join(SUFFIXES)}")
    if sigma_mm is not None and len(sigma_mm) != len(mesh.vertices):
        raise InputError(f"mesh: {len(sigma_mm)} sigmas for {len(mesh.vertices)} vertices")
    points = np.round(mesh.vertices / _STEP_MM) * _STEP_MM + 0.0
    fresh = path.with_name(f".{path.name}.part")
    try:
        fresh.write_bytes(writers[path.suffix.lower()](points, mesh.faces, sigma_mm))
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)  # a disk that is full, Ctrl-C


def write_meshes(folder: Path, meshes: Mapping[str, tuple[Mesh, Array | None, Mapping[str, Any]]], suffix: str) -> Path:
    """One file a bone, and mesh.json with what is said of each (third item); returns the path of mesh.json, written
    last. meshes: name -> (mesh, sigma_mm or None, numbers)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for name, (mesh, sigma_mm, numbers) in sorted(meshes.items()):
        path = folder / f"{name}{suffix}"
        write_mesh(path, mesh, sigma_mm)
        rows[name] = {"file": path.name, "sigma_in_file": sigma_mm is not None and suffix.lower() == ".ply", **numbers}
    page = {"units": "mm", "frame": "patient LPS", "meshes": rows}
    if suffix.lower() != ".ply":
        page["note"] = f"{suffix} holds no value per vertex: sigma_mm is in PLY files only"
    fresh = folder / ".mesh.json.part"
    fresh.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, folder / "mesh.json")
    return folder / "mesh.json"


def read_ply(path: Path) -> tuple[Mesh, Array | None]:
    """Mesh and sigma_mm (None when there is none) of a PLY as `write_mesh` writes it; InputError for another."""
    data = path.read_bytes()
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").split("\n")
    sizes = [int(line.split()[2]) for line in lines if line.startswith("element")]
    if not mark or "format binary_little_endian 1.0" not in lines or len(sizes) != 2:
        raise InputError(f"mesh: {path.name} is not a PLY of this program")
    kinds = {"double": "<f8", "float": "<f4"}
    row = np.dtype([(line.split()[2], kinds[line.split()[1]]) for line in lines
                    if line.startswith("property") and "list" not in line])  # fmt: skip
    face = np.dtype([("n", "u1"), ("v", "<i4", 3)])
    if len(body) != sizes[0] * row.itemsize + sizes[1] * face.itemsize:
        raise InputError(f"mesh: {path.name} is cut short")
    vertex = np.frombuffer(body, row, sizes[0])
    faces = np.frombuffer(body, face, sizes[1], sizes[0] * row.itemsize)["v"]
    names = row.names or ()
    sigma = vertex["sigma_mm"].astype(np.float64) if "sigma_mm" in names else None
    return Mesh(np.stack([vertex[a] for a in "xyz"], axis=1), faces), sigma


def _ply(points: Array, faces: NDArray[np.int32], sigma_mm: Array | None) -> bytes:
    columns = [(a, "<f8") for a in "xyz"] + ([("quality", "<f4"), ("sigma_mm", "<f4")] if sigma_mm is not None else [])
    vertex = np.zeros(len(points), np.dtype(columns))
    for a, axis in enumerate("xyz"):
        vertex[axis] = points[:, a]
    if sigma_mm is not None:
        vertex["quality"] = vertex["sigma_mm"] = sigma_mm
    face = np.zeros(len(faces), [("n", "u1"), ("v", "<i4", 3)])
    face["n"], face["v"] = 3, faces
    words = {"<f8": "double", "<f4": "float"}
    head = ["ply", "format binary_little_endian 1.0", "comment units mm, patient LPS",
            "comment sigma_mm: one standard deviation of the vertex along its normal", f"element vertex {len(points)}",
            *(f"property {words[kind]} {name}" for name, kind in columns),
            f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]  # fmt: skip
    return ("\n".join(head) + "\n").encode() + vertex.tobytes() + face.tobytes()


def _obj(points: Array, faces: NDArray[np.int32], sigma_mm: Array | None) -> bytes:
    rows = ["# units mm, patient LPS", *(f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in points.tolist())]
    rows += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    return ("\n".join(rows) + "\n").encode()


def _stl(points: Array, faces: NDArray[np.int32], sigma_mm: Array | None) -> bytes:
    corners = points.astype(np.float32)[faces]
    wide = corners.astype(np.float64)
    normal = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    rows = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    rows["corners"] = corners
    return b"UNITS=mm ImplantForge binary STL, patient LPS".ljust(80) + struct.pack("<I", len(faces)) + rows.tobytes()
