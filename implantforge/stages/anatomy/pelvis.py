"""A whole pelvis in one surface, its joints fused or not: cut along its own plane of symmetry into two hip bones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from implantforge.core import AnatomyError, Array, InputError, Mesh
from implantforge.stages.anatomy import body, register, skull
from implantforge.stages.anatomy.atlas import spread_of

LIMIT_MM = (150.0, 500.0)
SYMMETRIC_MM = 5.0
"""Halves of a pelvis that match worse than this (RMS of the better half) are none."""
MIDLINE_MM = 4.0
"""What lies this near the plane of symmetry, the fused symphysis and the middle of the sacrum, goes to neither side."""


def split(mesh: Mesh) -> dict[str, Mesh]:
    """`hip_left` and `hip_right` with what is fused to each (half of the sacrum): the input of `hip.measure`.

    Pieces that are apart stay apart: a hip bone is the largest piece of its half. InputError when the mesh is hardly in
    mm, AnatomyError when it is not symmetric or its halves are not a left and a right hip bone.
    """
    size = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    if not LIMIT_MM[0] <= size <= LIMIT_MM[1]:
        raise InputError(
            f"pelvis: {size:.4g} from corner to corner, a pelvis measures {LIMIT_MM[0]:.0f}-{LIMIT_MM[1]:.0f} mm: "
            "save the mesh in mm"
        )
    mesh = body.upright(mesh)
    normal, at, rms = symmetry(mesh)
    if rms > SYMMETRIC_MM:
        raise AnatomyError(f"pelvis: not symmetric: its halves lie {rms:.1f} mm RMS apart (limit {SYMMETRIC_MM})")
    out: dict[str, Mesh] = {}
    for sign in (1.0, -1.0):
        beyond = np.asarray(sign * ((mesh.vertices - at) @ normal) > MIDLINE_MM)
        kept = np.flatnonzero(beyond[mesh.faces].all(axis=1))
        if not len(kept):
            raise AnatomyError("pelvis: all of it lies on one side of its plane of symmetry")
        half = body.apart(_of_faces(mesh, kept))[0]
        out[_side(half)] = half
    if len(out) != 2:
        raise AnatomyError(f"pelvis: both halves look like a {next(iter(out)).replace('_', ' ')}")
    return out


def symmetry(mesh: Mesh) -> tuple[Array, Array, float]:
    """Unit normal of the plane of symmetry, a point on it, and the RMS distance of the better half of the surface."""
    cloud = register.sample(mesh, 4000)
    tree = cKDTree(cloud.points)
    centre, axes, _ = spread_of(cloud.points, np.ones(len(cloud.points)))
    found = [skull.settled(cloud.every(500), tree, cloud, axes @ way, centre) for way in skull.directions()]
    found.sort(key=lambda item: item[2])
    normal, at, rms, _ = skull.fine(cloud, tree, *found[0][:2])
    return normal, at, rms


def _side(half: Mesh) -> str:
    ranked = register.best(register.sample(half, 8000), ("hip",))
    if not ranked:
        raise AnatomyError("pelvis: a half of it has not the proportions of a hip bone")
    return "hip_right" if ranked[0].mirrored else "hip_left"


def _of_faces(mesh: Mesh, kept: NDArray[np.int64]) -> Mesh:
    used = np.unique(mesh.faces[kept])
    back = np.zeros(len(mesh.vertices), np.int32)
    back[used] = np.arange(len(used), dtype=np.int32)
    return Mesh(mesh.vertices[used], back[mesh.faces[kept]])
