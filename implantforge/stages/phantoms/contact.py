"""Arthritic joints: a femur pressed into its socket until bone lies on bone over an area that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from implantforge.core import Array, GeometryError, Mesh

FARTHEST_MM = 12.0


def press(femur: Mesh, hip: Mesh, direction: Array, contact_mm2: float) -> tuple[Mesh, Mesh, float]:
    """The femur moved along `direction` (3,), the hip worn away where they meet, and the way moved in mm.

    contact_mm2 of the femur's surface then lie on the hip (within 2 % or 0.3 mm2; 0: the first touch). The head keeps
    its shape, the socket takes its form, as eburnated bone does. GeometryError when they do not meet within 12 mm.
    """
    unit = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    ball, socket = _solid(femur), _solid(hip)
    low, high = 0.0, FARTHEST_MM
    if _contact(ball, socket) > 0.0:
        raise GeometryError("contact: the femur and the hip meet before they are pressed together")
    if _contact(ball.translate(tuple(unit * high)), socket) <= contact_mm2:
        raise GeometryError(f"contact: {contact_mm2:g} mm2 are not reached within {high:g} mm")
    while high - low > 1e-3:
        middle = (low + high) / 2
        found = _contact(ball.translate(tuple(unit * middle)), socket)
        low, high = (middle, high) if found <= contact_mm2 else (low, middle)
    way = low if contact_mm2 == 0 else high
    moved = ball.translate(tuple(unit * way))
    return _mesh(moved), _mesh(max((socket - moved).decompose(), key=lambda part: part.volume())), way


def _contact(ball: Any, socket: Any) -> float:
    """Area (mm2) of the femur's surface inside the hip."""
    common = ball ^ socket
    if common.is_empty():
        return 0.0
    return float((common.surface_area() + ball.surface_area() - (ball - socket).surface_area()) / 2)


def _solid(mesh: Mesh) -> Any:
    import manifold3d

    # the binding takes no read-only arrays
    return manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices.copy(), mesh.faces.astype(np.uint64)))


def _mesh(solid: Any) -> Mesh:
    out = solid.to_mesh64()
    return Mesh(np.asarray(out.vert_properties[:, :3]), np.asarray(out.tri_verts, dtype=np.int32))
