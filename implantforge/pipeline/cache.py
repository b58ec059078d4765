"""Results remembered on disk by what they were made from. A damaged or foreign entry is computed again, never trusted.

The key of a result is SHA-256 over the function, every source file of the package, the versions of the libraries, the
keys of the inputs and the slice of the recipe. An entry is a folder: value.json, and one .npy per array (large ones are
memory-mapped when read). It is written under a temporary name and renamed, so a half-written entry has no name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge import core

NOUNS = {
    name: getattr(core, name)
    for name in (
        "Anatomy",
        "Check",
        "Fit",
        "Grid",
        "Labels",
        "Landmark",
        "Lattice",
        "Mesh",
        "Patient",
        "Pose",
        "Volume",
    )
}
_LIBRARIES = (
    "numpy", "scipy", "numba", "scikit-image", "trimesh", "manifold3d", "fast-simplification", "lib3mf", "pydicom",
    "connected-components-3d", "edt",
)  # fmt: skip
_MAPPED_BYTES = 1 << 24


@dataclass
class Stage:
    """One row of the manifest's stages."""

    name: str
    seconds: float
    cached: bool


class Result:
    """A stage's result, not read from disk before `value` is asked for; result["x"] is one entry of a dict result,
    read without the others."""

    def __init__(self, key: str, read: Callable[[str | None], Any]) -> None:
        self.key = key
        self._read = read

    @property
    def value(self) -> Any:
        """The result itself; read, or computed again if its entry is damaged, on first use."""
        if not hasattr(self, "_value"):
            self._value = self._read(None)
        return self._value

    def __getitem__(self, name: str) -> Result:
        def part(_: str | None) -> Any:
            return self._value[name] if hasattr(self, "_value") else self._read(name)

        return Result(f"{self.key}/{name}", part)


@dataclass
class Cache:
    """Results in one folder. on_stage hears (name, None) when a stage starts and (name, Stage) when it is done;
    prepare is called before anything is stored."""

    folder: Path
    on_stage: Callable[[str, Stage | None], None] = lambda name, stage: None
    prepare: Callable[[], None] = lambda: None
    stages: list[Stage] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def call(self, name: str, function: Callable[..., Any], /, *inputs: Any, **recipe: Any) -> Result:
        """function(*inputs, **recipe) under a stage name. Inputs are Results or plain JSON values; only Results that a
        computation really needs are read."""
        key = _key(function, inputs, recipe)
        entry = self.folder / f"{name.replace(' ', '_')}-{key[:24]}"
        self.used.add(entry.name)

        def compute() -> Any:
            values = [item.value if isinstance(item, Result) else item for item in inputs]
            value = function(*values, **recipe)
            self.prepare()
            save(entry, key, value)
            return value

        stage = Stage(name, 0.0, (entry / "value.json").is_file())
        self.stages.append(stage)

        def read(part: str | None) -> Any:
            if stage.cached:
                found, value = load(entry, key, part)
                if found:
                    return value
                stage.cached = False
            self.on_stage(name, None)
            began = time.perf_counter()
            result._value = compute()
            stage.seconds = time.perf_counter() - began
            self.on_stage(name, stage)
            return result._value if part is None else result._value[part]

        result = Result(key, read)
        if stage.cached:
            self.on_stage(name, stage)
        else:
            read(None)
        return result

    def prune(self) -> None:
        """Deletes what the last run did not use."""
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if entry.is_dir() and entry.name not in self.used:
                shutil.rmtree(entry, ignore_errors=True)


def digest(*parts: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {row.name: getattr(value, row.name) for row in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cache: {type(value).__name__} cannot be part of a key")


def _key(function: Callable[..., Any], inputs: tuple[Any, ...], recipe: Mapping[str, Any]) -> str:
    made_from = [item.key if isinstance(item, Result) else ["value", item] for item in inputs]
    return digest(f"{function.__module__}.{function.__qualname__}", sources(), made_from, recipe)


@cache
def sources() -> str:
    """Digest of every .py file of the package and the versions of the libraries that compute."""
    root = Path(core.__file__).parent.parent
    files = sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)
    rows = [[path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    return digest(rows, [[name, _version(name)] for name in _LIBRARIES])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def save(entry: Path, key: str, value: Any) -> None:
    """Writes an entry under a temporary name, then renames it."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        arrays: list[NDArray] = []
        tree = encode(value, arrays)
        sums = []
        for number, array in enumerate(arrays):
            path = fresh / f"{number}.npy"
            np.save(path, array, allow_pickle=False)
            sums.append(file_sha256(path))
        page = {"key": key, "value": tree, "arrays": sums}
        page["sha256"] = digest(page)
        (fresh / "value.json").write_text(json.dumps(page), encoding="utf-8")
        if entry.exists():
            shutil.rmtree(entry)
        fresh.rename(entry)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(entry: Path, key: str, part: str | None = None) -> tuple[bool, Any]:
    """(True, value) when the entry is whole and was made for this key, otherwise (False, None). With part, only that
    item of a dict is read."""
    try:
        page = json.loads((entry / "value.json").read_text(encoding="utf-8"))
        sealed = page.pop("sha256")
        if sealed != digest(page) or page["key"] != key:
            return False, None
        tree = page["value"] if part is None else page["value"]["items"][part]
        return True, decode(tree, lambda number: _array(entry / f"{number}.npy", page["arrays"][number]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, core.ImplantForgeError):
        return False, None


def _array(path: Path, expected: str) -> NDArray:
    if file_sha256(path) != expected:
        raise ValueError(f"cache: {path.name} is damaged")
    return np.asarray(np.load(path, mmap_mode="r" if path.stat().st_size > _MAPPED_BYTES else None, allow_pickle=False))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def encode(value: Any, arrays: list[NDArray]) -> Any:
    """Plain JSON for a tree of numbers, texts, lists, dicts, arrays and nouns; arrays go to the list beside it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("cache: arrays of objects are not stored")
        arrays.append(value)
        return {"!": "array", "n": len(arrays) - 1}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {"!": kind, "items": [encode(item, arrays) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {"!": "dict", "items": {name: encode(item, arrays) for name, item in value.items()}}
    if type(value) in NOUNS.values():
        items = {row.name: encode(getattr(value, row.name), arrays) for row in fields(value)}
        return {"!": type(value).__name__, "items": items}
    raise TypeError(f"cache: cannot store a {type(value).__name__}")


def decode(tree: Any, array: Callable[[int], NDArray]) -> Any:
    """The value that `encode` was given (mappings come back as dicts); array(n) gives the n-th array."""
    if not isinstance(tree, dict):
        return tree
    kind = tree["!"]
    if kind == "array":
        return array(tree["n"])
    if kind in ("list", "tuple"):
        items = [decode(item, array) for item in tree["items"]]
        return tuple(items) if kind == "tuple" else items
    found = {name: decode(item, array) for name, item in tree["items"].items()}
    return found if kind == "dict" else NOUNS[kind](**found)
