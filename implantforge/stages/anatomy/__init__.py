"""Landmarks, axes and measures, one file per bone."""

from __future__ import annotations

from implantforge.core import Anatomy, Mesh, Volume

__all__ = ["KNOWN", "examine"]

KNOWN = ("femur_left", "femur_right")
"""Bones that can be measured."""


def examine(name: str, mesh: Mesh, volume: Volume | None = None) -> Anatomy:
    """Anatomy of one bone by its TotalSegmentator name; with the CT also the marrow canal, which no surface shows.

    Raises AnatomyError when the bone is not what its name says, or is not one of KNOWN.
    """
    from implantforge.core import AnatomyError
    from implantforge.stages.anatomy import canal, femur

    if name not in KNOWN:
        raise AnatomyError(f"{name}: cannot be measured yet (can: {', '.join(KNOWN)})")
    found = femur.measure(mesh, "left" if name.endswith("left") else "right")
    if volume is None or "lesser_trochanter" not in found.landmarks:
        return found
    return canal.with_canal(found, canal.cavity(volume, mesh, found))
