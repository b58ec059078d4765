"""A Run folder opened for reading: whatever is there, and in words what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from implantforge.core import GeometryError, InputError, Mesh, Volume
from implantforge.geom.viewing import GapMap, gap_map

_T = TypeVar("_T")


class RunFolder:
    """Reads the files of a run once, when first asked. A missing or damaged file gives None (or {}) and a line in
    `missing`; nothing is raised. InputError when the folder itself does not exist."""

    def __init__(self, path: Path, manifest: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such run folder")
        self.missing: dict[str, str] = {}
        self._manifest = manifest

    def _read(self, name: str, reader: Callable[[Path], _T]) -> _T | None:
        file = self.path / name
        if not file.is_file():
            self.missing[name] = f"{name} is not in this run"
            return None
        try:
            return reader(file)
        except Exception as error:  # a report must say what is broken, not break
            self.missing[name] = f"{name} cannot be read ({type(error).__name__}: {error})"
            return None

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest given, or manifest.json, or {}."""
        return self._manifest if self._manifest is not None else self._read("manifest.json", _json) or {}

    @cached_property
    def fit(self) -> dict[str, Any]:
        """fit.json or {}."""
        return self._read("fit.json", _json) or {}

    @cached_property
    def anatomy(self) -> dict[str, Any]:
        """anatomy.json or {}."""
        return self._read("anatomy.json", _json) or {}

    @cached_property
    def part(self) -> Mesh | None:
        """part.stl, patient LPS mm."""
        return self._read("part.stl", read_stl)

    @cached_property
    def ct(self) -> Volume | None:
        """ct.nrrd as a Volume on an LPS grid."""
        from implantforge.stages.labels import read_volume

        return self._read("ct.nrrd", read_volume)

    @cached_property
    def gaps(self) -> GapMap | None:
        """The gaps of fit.json, readable anywhere near the implant; None when there are none."""
        samples = self.fit.get("gap_samples")
        try:
            return gap_map(samples["points_mm"], samples["gap_mm"]) if isinstance(samples, dict) else None
        except (KeyError, TypeError, ValueError, GeometryError) as error:
            self.missing["gap_samples"] = f"gap samples of fit.json cannot be read ({type(error).__name__}: {error})"
            return None

    @cached_property
    def bones(self) -> dict[str, Mesh]:
        """bones/NAME.stl by name, in order of name."""
        names = sorted(p.name for p in (self.path / "bones").glob("*.stl"))
        if not names:
            self.missing["bones"] = "bones/*.stl are not in this run"
        found = {name[:-4]: self._read(f"bones/{name}", read_stl) for name in names}
        return {name: mesh for name, mesh in found.items() if mesh is not None and len(mesh.faces)}

    @cached_property
    def uncertain(self) -> dict[str, tuple[Mesh, NDArray[np.float64]]]:
        """Bones with one standard deviation (mm) per vertex, from bones/NAME.ply, in order of name."""
        from implantforge.stages.meshfile import read_ply

        names = sorted(p.name for p in (self.path / "bones").glob("*.ply"))
        found = {name[:-4]: self._read(f"bones/{name}", read_ply) for name in names}
        return {name: (row[0], row[1]) for name, row in found.items() if row is not None and row[1] is not None}


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise InputError("not a JSON object")
    return value


def read_stl(path: Path) -> Mesh:
    """A binary (or ASCII) STL with equal corners joined; InputError when it is neither."""
    record = np.dtype([("normal", "<f4", 3), ("corner", "<f4", (3, 3)), ("attribute", "<u2")])
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(84)
        count = int.from_bytes(head[80:84], "little") if len(head) == 84 else -1
        if size != 84 + 50 * count:
            return _ascii_stl(path)
        corners = np.fromfile(file, record, count)["corner"].reshape(-1, 3)
    corners = corners + np.float32(0)  # -0.0 becomes 0.0
    bits = corners.view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        key = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(29))) + bits[:, 1] * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(31))) * np.uint64(0x94D049BB133111EB) + bits[:, 2]
    first, inverse = _distinct(key)
    if not np.array_equal(corners[first][inverse], corners):  # two corners, one key: practically never
        _, first, inverse = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    return Mesh(corners[first], inverse.reshape(-1, 3).astype(np.int32))


def _distinct(key: NDArray[np.uint64]) -> tuple[NDArray, NDArray]:
    """Index of one of each distinct key in rising order, and for every entry its number: np.unique in half the time."""
    order = np.argsort(key)
    run = key[order]
    new = np.empty(len(run), bool)
    new[:1] = True
    np.not_equal(run[1:], run[:-1], out=new[1:])
    inverse = np.empty(len(run), np.int32)
    inverse[order] = np.cumsum(new, dtype=np.int32) - 1
    return order[new], inverse


def _ascii_stl(path: Path) -> Mesh:
    words = [
        line.split()[1:4]
        for line in path.read_text("ascii", "strict").splitlines()
        if line.strip().startswith("vertex")
    ]
    if not words or len(words) % 3:
        raise InputError("neither a binary nor an ASCII STL")
    corners, inverse = np.unique(np.array(words, float), axis=0, return_inverse=True)
    return Mesh(corners, inverse.reshape(-1, 3).astype(np.int32))
