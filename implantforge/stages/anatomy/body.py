"""The one bone of a file: its largest piece with its triangles the right way round, and what was left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from implantforge.core import InputError, Mesh

COMPARABLE = 0.5
"""A second piece with this share of the first one's area is another bone, and which is meant is not known: a tibia has 0.7
of its femur's, the other hip 1.0; a fibula has 0.4 of its tibia's, a patella 0.06 of its femur's."""
TURNED, LEFT_OUT, LEFT_OUT_PCT, LEFT_OUT_MM = ("surface_turned", "left_out_pieces", "left_out_area_pct",
                                               "left_out_largest_mm")  # fmt: skip
"""Measures that say what was done to the surface; absent when nothing was."""


def one(mesh: Mesh, name: str) -> tuple[Mesh, dict[str, float]]:
    """The largest piece, outward side out, and measures of what was done: `surface_turned` 1 when it was inside out;
    of pieces left out how many, their area in per cent of the bone's, and the largest corner to corner (mm).

    The wall of a marrow canal or a cranial cavity, a piece inside the bone that is turned against it, is neither used nor
    counted. InputError when a second piece is so large that it is another bone.
    """
    pieces = apart(mesh)
    body, notes = pieces[0], {}
    bulk = volume_mm3(body)
    rest = [piece for piece in pieces[1:] if not _cavity(body, bulk, piece)]
    if rest:
        area = [_area(piece) for piece in (body, *rest)]
        sizes = [_size(piece) for piece in (body, *rest)]
        if area[1] > COMPARABLE * area[0]:
            raise InputError(
                f"{name}: two bones in one mesh: a piece of {area[0] / 100:.0f} cm2, {sizes[0]:.0f} mm from corner to "
                f"corner, and one of {area[1] / 100:.0f} cm2, {sizes[1]:.0f} mm: give each bone as its own file"
            )
        notes = {LEFT_OUT: float(len(rest)), LEFT_OUT_PCT: 100.0 * sum(area[1:]) / area[0], LEFT_OUT_MM: max(sizes[1:])}
    if bulk < 0.0:
        notes[TURNED] = 1.0
        body = Mesh(body.vertices, body.faces[:, ::-1])
    return body, notes


def apart(mesh: Mesh) -> list[Mesh]:
    """The pieces of a surface that hang together, the one with the largest area first."""
    label, count = _labels(mesh)
    if count == 1:
        return [mesh]
    area = np.bincount(label[mesh.faces[:, 0]], np.linalg.norm(mesh.face_cross, axis=1), count)
    order = np.argsort(-area, kind="stable")
    return [_part(mesh, label == int(number)) for number in order if area[number] > 0.0 or number == order[0]]


def bone_mm3(mesh: Mesh) -> float:
    """Volume of the largest piece without the hollows that are pieces of their own."""
    pieces = apart(mesh)
    bulk = volume_mm3(pieces[0])
    return abs(bulk) - sum(abs(volume_mm3(piece)) for piece in pieces[1:] if _cavity(pieces[0], bulk, piece))


def upright(mesh: Mesh) -> Mesh:
    """The surface with its triangles turned when it is inside out as a whole."""
    return Mesh(mesh.vertices, mesh.faces[:, ::-1]) if volume_mm3(mesh) < 0.0 else mesh


def volume_mm3(mesh: Mesh) -> float:
    """Signed volume: positive when triangles face outward. Of an open surface that of the cone to its middle."""
    away = mesh.vertices - mesh.vertices.mean(axis=0)
    a, b, c = (away[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)


def _labels(mesh: Mesh) -> tuple[NDArray[np.int32], int]:
    n, faces = len(mesh.vertices), mesh.faces
    graph = sparse.coo_matrix((np.ones(2 * len(faces), np.int8), (faces[:, :2].ravel("F"), faces[:, 1:].ravel("F"))),
                              shape=(n, n))  # fmt: skip
    count, label = connected_components(graph, directed=False)
    return label, int(count)


def _part(mesh: Mesh, keep: NDArray[np.bool_]) -> Mesh:
    back = np.cumsum(keep) - 1
    return Mesh(mesh.vertices[keep], back[mesh.faces[keep[mesh.faces[:, 0]]]])


def _area(mesh: Mesh) -> float:
    return float(np.linalg.norm(mesh.face_cross, axis=1).sum() / 2.0)


def _size(mesh: Mesh) -> float:
    return float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))


def _cavity(body: Mesh, bulk: float, piece: Mesh) -> bool:
    """Whether a piece is the wall of a hollow of the body: turned against it, and inside its box."""
    inside = (piece.bounds[0] > body.bounds[0]).all() and (piece.bounds[1] < body.bounds[1]).all()
    return bool(inside) and volume_mm3(piece) * bulk < 0.0
