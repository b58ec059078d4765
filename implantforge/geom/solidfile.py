"""A closed surface from a file of any usual mesh format, or the reason why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, InputError, Mesh
from implantforge.geom import measure, nearby

UNITS_3MF = {"millimeter": "mm", "centimeter": "cm", "meter": "m", "inch": "inch", "micron": "um", "foot": "foot"}


def triangles(path: Path, what: str) -> tuple[Array, NDArray, str | None]:
    """Vertices (n,3) in the file's unit, faces (m,3) with three corners each, and the unit that a 3MF states (None where
    the format has none). InputError, begun by `what`, when it cannot be read or holds no triangle."""
    import trimesh

    try:
        loaded: Any = trimesh.load(path, process=False)
        unit = None
        if path.suffix.lower() == ".3mf":
            stated = str(getattr(loaded, "units", None) or "millimeter")
            unit = UNITS_3MF.get(stated, "mm")
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_geometry()
        loaded.merge_vertices(merge_tex=True, merge_norm=True)
        vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces)
    except Exception as error:
        raise InputError(f"{what}: {path.name} cannot be read as a mesh ({type(error).__name__})") from error
    if not len(faces):
        raise InputError(f"{what}: {path.name} holds no triangle")
    if not np.isfinite(vertices).all():
        raise InputError(f"{what}: {path.name} has vertices that are not finite numbers")
    return vertices, faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)], unit


def closed(name: str, mesh: Mesh, what: str) -> Mesh:
    """The mesh with its faces outward. InputError, begun by `what`, when it is open, crosses itself or holds nothing."""
    if bad := measure.bad_edges(mesh):
        raise InputError(
            f"{what}: {name} is not a closed surface: {bad} open, doubled or turned edges; repair it first"
        )
    if wrong := int(nearby.crossing_faces(mesh).sum()):
        raise InputError(f"{what}: {name} crosses itself at {wrong} triangles; repair it first")
    if mesh.volume_mm3 < 0:
        mesh = Mesh(mesh.vertices, mesh.faces[:, ::-1])
    if mesh.volume_mm3 <= 1e-9:
        raise InputError(f"{what}: {name} encloses no volume")
    return mesh
