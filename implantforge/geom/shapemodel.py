"""Bones from the licensed lower-limb shape model (PyPI musculoskeletal-models, MPL-2.0; 26 subjects, 26 modes).

The model's files are read here without its own software: Lagrange elements on shared nodes (JSON) and a pickle of
numpy arrays, which passes an unpickler that knows three names and refuses every other.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from implantforge.core import Array, InputError, Mesh

_PELVIS_NODES = slice(0, 1946)
_FEMUR_NODES = slice(1946, 2580)
_PATELLA_NODES = slice(2580, 2654)
_SHANK_NODES = slice(2654, 3225)
_ORDERS = {"quad55": (4, 4), "quad54": (4, 3), "quad44": (3, 3), "tri15": (4, 0), "tri10": (3, 0)}
_ATLASES: dict[str, tuple[slice, int, tuple[str, ...]]] = {
    "pelvis_combined_cubic_flat": (_PELVIS_NODES, 12, ("hip_right", "sacrum", "hip_left")),
    "femur_left_quartic_flat": (_FEMUR_NODES, 20, ("femur_left",)),
    "patella_11_left": (_PATELLA_NODES, 12, ("patella_left",)),
    "tibia_fibula_left_cubic_flat": (_SHANK_NODES, 16, ("tibia_left", "fibula_left")),
}
"""Files of the model: their nodes, parts an element's edge is cut into, and bodies from the patient's right to left."""
_ALLOWED = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.rsplit(".", 1)[-1], name) not in _ALLOWED or not module.startswith("numpy"):
            raise InputError(f"shape model: refuses to load {module}.{name}, only plain arrays are expected")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        return {"ndarray": np.ndarray, "dtype": np.dtype}[name]


class ShapeModel:
    """Mean (n,3) mm, unit modes (m,n,3), standard deviation of each mode (m,); LPS, left femur."""

    def __init__(self, stream: IO[bytes]) -> None:
        raw = _ArraysOnly(stream, encoding="latin1").load()
        sd = np.sqrt(np.maximum(np.asarray(raw["weights"], dtype=float), 0.0))
        keep = sd > 1e-6
        self.mean: Array = raw["mean"].reshape(3, -1).T
        self.modes: Array = np.stack([m.reshape(3, -1).T for m in raw["modes"].T[keep]])
        self.sd: Array = sd[keep]

    def nodes(self, weights: Array) -> Array:
        """Node positions (n,3) mm for mode weights in standard deviations."""
        return self.mean + np.tensordot(weights * self.sd, self.modes, axes=1)


def _lagrange(order: int, t: Array) -> Array:
    """(len(t), order + 1) one-dimensional Lagrange bases with equally spaced nodes on 0..1."""
    nodes = np.linspace(0.0, 1.0, order + 1)
    columns = []
    for i in range(order + 1):
        others = np.delete(nodes, i)
        columns.append(np.prod((t[:, None] - others) / (nodes[i] - others), axis=1))
    return np.stack(columns, axis=1)


def _simplex(order: int, u: Array, v: Array) -> Array:
    """Lagrange bases on the unit triangle; nodes run along u, row by row of v."""

    def rising(k: int, s: Array) -> Array:
        out = np.ones_like(s)
        for q in range(k):
            out = out * (order * s - q) / (q + 1)
        return out

    w = 1.0 - u - v
    rows = [(i, j) for j in range(order + 1) for i in range(order + 1 - j)]
    return np.stack([rising(i, u) * rising(j, v) * rising(order - i - j, w) for i, j in rows], axis=1)


@lru_cache(maxsize=8)
def _element(kind: str, r: int) -> tuple[Array, NDArray[np.int32]]:
    """Bases (points, nodes) and triangles of one element cut into r parts along each edge."""
    p, q = _ORDERS[kind]
    if q:
        u, v = np.meshgrid(np.linspace(0, 1, r + 1), np.linspace(0, 1, r + 1))
        bu, bv = _lagrange(p, u.ravel()), _lagrange(q, v.ravel())
        bases = (bv[:, :, None] * bu[:, None, :]).reshape(len(bu), -1)
        a = (np.arange(r)[:, None] * (r + 1) + np.arange(r)).ravel()
        faces = np.concatenate([np.stack([a, a + 1, a + r + 2], axis=1), np.stack([a, a + r + 2, a + r + 1], axis=1)])
        return bases, faces.astype(np.int32)
    index = {ij: n for n, ij in enumerate((i, j) for j in range(r + 1) for i in range(r + 1 - j))}
    ij = np.array(list(index)) / r
    up = [[index[i, j], index[i + 1, j], index[i, j + 1]] for i, j in index if i + j < r]
    down = [[index[i + 1, j], index[i + 1, j + 1], index[i, j + 1]] for i, j in index if i + j < r - 1]
    return _simplex(p, ij[:, 0], ij[:, 1]), np.array(up + down, dtype=np.int32)


def _number_nodes(atlas: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """Global node of every (element, local node), counted by first appearance among shared nodes."""
    number: dict[tuple[int, int], int] = {}
    count = 0
    for element in range(len(atlas["elements"])):
        p, q = _ORDERS[atlas["elements"][str(element)].split()[1]]
        for node in range((p + 1) * (q + 1) if q else (p + 1) * (p + 2) // 2):
            if (element, node) in number:
                continue
            number[element, node] = count
            for shared in atlas["connectivity"].get(f"{element}_{node}", "").split():
                e, n = shared.split("_")
                number[int(e), int(n)] = count
            count += 1
    if count != atlas["number_of_points"]:
        raise InputError(f"shape model: atlas has {count} nodes, expected {atlas['number_of_points']}")
    return number


def _surface(atlas: Mapping[str, Any], mean: Array, r: int) -> tuple[csr_matrix, NDArray[np.int32]]:
    """Matrix from nodes to welded surface points, and faces, of all bodies of an atlas."""
    number = _number_nodes(atlas)
    rows, cols, values, faces, count = [], [], [], [], 0
    for element in range(len(atlas["elements"])):
        bases, local = _element(atlas["elements"][str(element)].split()[1], r)
        nodes = np.array([number[element, n] for n in range(bases.shape[1])])
        rows.append(np.repeat(np.arange(len(bases)) + count, len(nodes)))
        cols.append(np.tile(nodes, len(bases)))
        values.append(bases.ravel())
        faces.append(local + count)
        count += len(bases)
    matrix = csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))), (count, len(mean)))
    key = np.round(matrix @ mean, 3)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    welded = inverse.ravel()[np.concatenate(faces)].astype(np.int32)
    solid = (welded[:, 0] != welded[:, 1]) & (welded[:, 1] != welded[:, 2]) & (welded[:, 0] != welded[:, 2])
    return matrix[first], welded[solid]


def _bodies(matrix: csr_matrix, faces: NDArray[np.int32]) -> list[tuple[csr_matrix, NDArray[np.int32]]]:
    """The connected bodies of a surface."""
    n = matrix.shape[0]
    graph = csr_matrix((np.ones(len(faces) * 2), (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())), (n, n))
    count, label = connected_components(graph, directed=False)
    out = []
    for body in range(count):
        keep = np.flatnonzero(label == body)
        back = np.full(n, -1, dtype=np.int32)
        back[keep] = np.arange(len(keep))
        out.append((matrix[keep], back[faces[label[faces[:, 0]] == body]]))
    return out


@lru_cache(maxsize=2)
def load(coarser: int = 1) -> tuple[ShapeModel, dict[str, tuple[csr_matrix, NDArray[np.int32]]]]:
    """The shape model and, per bone, the matrix from all nodes to surface points with outward faces.

    Bones: hip_left, hip_right, sacrum, and of the left leg femur, patella, tibia and fibula. A right leg is the mirror
    image of a drawn left one, as in the model's own files. `coarser` divides the parts an element's edge is cut into.
    InputError when the package musculoskeletal-models is missing.
    """
    try:
        root = files("musculoskeletal.models")
    except ModuleNotFoundError as error:
        raise InputError("the lower-limb shape model is missing: pip install musculoskeletal-models") from error
    with (root / "shape_models" / "LLP26_rigid.pc").open("rb") as stream:
        model = ShapeModel(stream)
    atlas = {name: json.loads((root / "atlas_meshes" / f"{name}.mesh").read_text("utf-8")) for name in _ATLASES}
    bones: dict[str, tuple[csr_matrix, NDArray[np.int32]]] = {}
    for name, (nodes, cuts, names) in _ATLASES.items():
        bodies = _bodies(*_surface(atlas[name], model.mean[nodes], cuts // coarser))
        if len(bodies) != len(names):
            raise InputError(f"shape model: expected {len(names)} bodies in {name}, got {len(bodies)}")
        bodies.sort(key=lambda body: float((body[0] @ model.mean[nodes])[:, 0].mean()))
        bones |= {bone: _outward(*body, model.mean, nodes) for bone, body in zip(names, bodies)}
    return model, bones


def _outward(
    matrix: csr_matrix, faces: NDArray[np.int32], mean: Array, nodes: slice
) -> tuple[csr_matrix, NDArray[np.int32]]:
    """The same surface on the whole model's nodes, consistently facing outward."""
    import trimesh

    points = matrix @ mean[nodes]
    mesh = trimesh.Trimesh(points, faces, process=False)
    trimesh.repair.fix_winding(mesh)
    faces = np.asarray(mesh.faces, dtype=np.int32)
    if Mesh(points, faces).volume_mm3 < 0:
        faces = faces[:, ::-1]
    wide = csr_matrix((matrix.data, matrix.indices + nodes.start, matrix.indptr), (matrix.shape[0], len(mean)))
    return wide, faces
