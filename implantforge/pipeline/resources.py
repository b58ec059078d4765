"""Where recipes and sample patients lie: beside the package in a source checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """The folder of "pipelines" or "sample_data" (it may not exist)."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


def recipes() -> dict[str, Path]:
    """Shipped recipes: bare name to file."""
    return {path.stem: path for path in sorted(folder("pipelines").glob("*.toml"))}


def sample(name: str) -> Path | None:
    """The stored CT of a sample patient (a zip or a folder), or None when it has to be generated."""
    root = folder("sample_data")
    found = (
        path
        for path in (root / f"{name}.zip", root / name / "ct.zip", root / name / "ct", root / name)
        if path.exists()
    )
    return next(found, None)
