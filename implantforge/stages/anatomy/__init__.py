"""Landmarks, axes and measures, one file per bone; which bone, side and way up it is comes from its shape alone."""

from __future__ import annotations

from implantforge.core import Anatomy, Mesh, Volume

__all__ = ["KNOWN", "examine"]

KNOWN = ("femur_left", "femur_right", "hip_left", "hip_right", "tibia_left", "tibia_right")
"""Bones that can be measured."""


def examine(name: str, mesh: Mesh, volume: Volume | None = None) -> Anatomy:
    """Anatomy of one bone by its TotalSegmentator name; with the CT also the marrow canal, which no surface shows.

    InputError when the mesh is hardly in mm; AnatomyError when the bone is not what its name says, or not one of KNOWN.
    """
    from implantforge.core import AnatomyError
    from implantforge.stages.anatomy import canal, femur, hip, tibia

    if name not in KNOWN:
        raise AnatomyError(f"{name}: cannot be measured yet (can: {', '.join(KNOWN)})")
    kind = {"femur": femur, "hip": hip, "tibia": tibia}[name.partition("_")[0]]
    found = kind.measure(mesh, "left" if name.endswith("left") else "right")
    if volume is None or "lesser_trochanter" not in found.landmarks:
        return found
    return canal.with_canal(found, canal.cavity(volume, mesh, found))
