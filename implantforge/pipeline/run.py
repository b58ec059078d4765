"""A Run folder being written: whole files only, the manifest last, one build at a time."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from implantforge.core import ImplantForgeError, InputError
from implantforge.pipeline import cache
from implantforge.pipeline.cache import Cache, Stage

TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# ImplantForge stage results. May be deleted at any time.\n"


class Run:
    """One build's folder. `with Run(path) as run:` makes nothing on disk before the first result is stored, removes
    what it made when the input is refused, and leaves an older finished run alone until its first file changes."""

    def __init__(self, folder: Path, on_stage: Callable[[str, Stage | None], None] = lambda name, stage: None) -> None:
        self.folder = folder.absolute()
        self.cache = Cache(self.folder / "cache", on_stage, prepare=self._begin)
        self.changed: list[str] = []
        self._files: dict[str, dict[str, Any]] = {}
        self._lock: Any = None
        self._created = False

    def __enter__(self) -> Run:
        """InputError when the path is a file, holds someone else's files, or another build is at work in it."""
        _refuse_foreign(self.folder)
        if (self.folder / "cache").is_dir():
            self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._lock is not None:
            shutil.rmtree(self.folder / "cache" / "tmp", ignore_errors=True)
            self._lock.close()
        if isinstance(error, ImplantForgeError) and self._created:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        """Makes and locks the folder; later calls do nothing."""
        if self._lock is not None:
            return
        self._created = not self.folder.exists()
        try:
            (self.folder / "cache").mkdir(parents=True, exist_ok=True)
            (self.folder / "cache" / TAG).write_text(_TAG_TEXT)
            self._lock = (self.folder / "cache" / "lock").open("w")
        except OSError as error:
            raise InputError(f"run folder {self.folder.name}: cannot be written ({error.strerror})") from error
        if not _locked(self._lock):
            self._lock.close()
            self._lock, self._created = None, False
            raise InputError(f"run folder {self.folder.name}: another build is at work in it")

    def write(self, name: str, key: str, writer: Callable[[Path], None]) -> None:
        """Puts one file of the run in place, unless the file there was written for the same key and is still whole.

        writer gets a temporary path; the file appears under its own name in one step. The first file that changes takes
        the old manifest away.
        """
        self._begin()
        path, known = self.folder / name, self._remembered().get(name)
        key = cache.digest(key, cache.sources())
        if known and known["key"] == key and path.is_file() and cache.file_sha256(path) == known["sha256"]:
            self._files[name] = known
            return
        fresh = self.folder / "cache" / "tmp" / name
        fresh.parent.mkdir(parents=True, exist_ok=True)
        writer(fresh)
        row = {"key": key, "sha256": cache.file_sha256(fresh), "bytes": fresh.stat().st_size}
        if not (path.is_file() and cache.file_sha256(path) == row["sha256"]):
            self.unfinish()
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, path)
            self.changed.append(name)
        self._files[name] = row

    def write_in_place(self, name: str, key: str, writer: Callable[[], None]) -> None:
        """As `write`, for a writer that puts the whole file under its own name itself."""
        path, known = self.folder / name, self._remembered().get(name)
        key = cache.digest(key, cache.sources())
        if known and known["key"] == key and path.is_file() and cache.file_sha256(path) == known["sha256"]:
            self._files[name] = known
            return
        self.unfinish()
        writer()
        self.changed.append(name)
        self._files[name] = {"key": key, "sha256": cache.file_sha256(path), "bytes": path.stat().st_size}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage that writes files: it counts as cached when no file changed."""
        self.cache.on_stage(name, None)
        before, began = len(self.changed), time.perf_counter()
        yield
        row = Stage(name, time.perf_counter() - began, len(self.changed) == before)
        self.cache.stages.append(row)
        self.cache.on_stage(name, row)

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file of the run, numbers rounded to nine significant digits."""
        page = json_text(value)
        self.write(name, page, lambda path: _put(path, page))

    def write_text(self, name: str, page: str) -> None:
        """A text file of the run."""
        self.write(name, page, lambda path: _put(path, page))

    def unfinish(self) -> None:
        """Takes the manifest away: from here on the folder is not a finished run."""
        (self.folder / "manifest.json").unlink(missing_ok=True)

    @property
    def files(self) -> list[dict[str, Any]]:
        """path, sha256 and bytes of every file written or kept, by name."""
        return [
            {"path": name, "sha256": row["sha256"], "bytes": row["bytes"]} for name, row in sorted(self._files.items())
        ]

    def close(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Removes the files of an earlier run that this one does not have, prunes the cache, writes manifest.json last.

        Returns the manifest as written: stages, files and peak memory are filled in here.
        """
        for name in sorted(set(self._remembered()) - set(self._files)):
            if (self.folder / name).is_file():
                self.unfinish()
                (self.folder / name).unlink()
        self.cache.prune()
        stages = [
            {"name": row.name, "seconds": round(row.seconds, 3), "cached": row.cached} for row in self.cache.stages
        ]
        page = {**manifest, "stages": stages, "peak_memory_mb": peak_memory_mb(), "files": self.files}
        self._replace(self.folder / "cache" / "files.json", json_text(self._files))
        text = json_text(page)
        self._replace(self.folder / "manifest.json", text)
        manifest_as_read: dict[str, Any] = json.loads(text)
        return manifest_as_read

    def _replace(self, path: Path, page: str) -> None:
        fresh = self.folder / "cache" / "tmp" / path.name
        fresh.parent.mkdir(parents=True, exist_ok=True)
        _put(fresh, page)
        os.replace(fresh, path)

    def _remembered(self) -> dict[str, dict[str, Any]]:
        try:
            rows = json.loads((self.folder / "cache" / "files.json").read_text(encoding="utf-8"))
            return {name: row for name, row in rows.items() if {"key", "sha256", "bytes"} <= set(row)}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


def is_run(folder: Path) -> bool:
    """Whether the folder was made by a build, finished or not."""
    if (folder / "cache" / TAG).is_file():
        return True
    try:
        return "implantforge" in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def json_text(value: Any) -> str:
    """JSON with nine significant digits, NaN and infinity as null, arrays and tuples as lists; ends with a newline."""
    return json.dumps(_rounded(value), indent=1, ensure_ascii=False) + "\n"


def peak_memory_mb() -> float:
    """Largest resident size of this process so far; 0 where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0 if math.isfinite(value) else None
    return value


def _put(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8", newline="\n")


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out {folder.name} is a file; give a folder")
    first = next(iter(sorted(path.name for path in folder.iterdir())), None)
    if first is not None and not is_run(folder):
        raise InputError(f"--out {folder.name} holds other files ({first}); give a new or empty folder")


def _locked(handle: Any) -> bool:
    """Takes the lock that ends with the process; True where the platform has none."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
