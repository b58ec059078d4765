"""Where recipes and sample patients lie: beside the package in a source checkout, inside it in a wheel."""

from __future__ import annotations

import json
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """The folder of "pipelines" or "sample_data" (it may not exist)."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


def recipes() -> dict[str, Path]:
    """Shipped recipes: bare name to file."""
    return {path.stem: path for path in sorted(folder("pipelines").glob("*.toml"))}


def sample(name: str, seed: int) -> Path | None:
    """The stored CT of a sample patient (a zip or a folder), or None when that patient has to be generated."""
    root = folder("sample_data") / name
    try:
        stored = json.loads((root / "truth.json").read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = (root / one for one in ("ct.zip", "ct") if (root / one).exists())
    return next(found, None) if stored == seed else None
