"""Landmarks, axes and measures, one file per bone; which bone, side and way up it is comes from its shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from implantforge.core import Anatomy, Array, InputError, Mesh, Volume

__all__ = ["KNOWN", "examine", "examine_all", "flags", "read_markups"]

KNOWN = ("femur_left", "femur_right", "hip_left", "hip_right", "tibia_left", "tibia_right", "skull", "pelvis")
"""Bones that can be measured; a `pelvis` in one surface is measured as its two hip bones."""

OWED = {
    "femur": ("length_mm", "neck_shaft_angle_deg", "offset_mm", "anteversion_deg", "version_lee_deg", "mldfa_deg",
              "mechanical_to_shaft_deg", "epicondylar_width_mm", "epicondylar_to_condylar_deg"),
    "tibia": ("length_mm", "mmpta_deg", "posterior_slope_deg", "akagi_to_posterior_tibia_deg", "tibial_torsion_deg"),
}  # fmt: skip
"""Measures of a bone that are read, or refused by name."""


def examine(
    name: str, mesh: Mesh, volume: Volume | None = None, corrections: Mapping[str, Array] | None = None
) -> Anatomy:
    """Anatomy of one bone by its TotalSegmentator name; with the CT also the marrow canal, which no surface shows.

    corrections: landmarks (label -> LPS mm) that replace ours before the canal is measured; labels of other bones are
    left alone. Of a skull they are all there are: porions and orbitales. All that rests on them is measured anew, what
    does not keeps every bit. InputError when the mesh is hardly in mm, or for a correction that cannot be one;
    AnatomyError when the bone is not what its name says, or not one of KNOWN.
    """
    from implantforge.core import AnatomyError
    from implantforge.stages.anatomy import canal, corrected, femur, hip, identify, skull, tibia

    if name not in KNOWN:
        raise AnatomyError(f"{name}: cannot be measured yet (can: {', '.join(KNOWN)})")
    mine = {label: at for label, at in (corrections or {}).items() if label.startswith(f"{name}.")}
    if name == "skull":
        return skull.measure(mesh, {label.partition(".")[2]: at for label, at in mine.items()})
    if name == "pelvis":
        raise AnatomyError("pelvis: two bones in one surface: examine_all measures them as hip_left and hip_right")
    kind = {"femur": femur, "hip": hip, "tibia": tibia}[name.partition("_")[0]]
    seen = identify.one(mesh, name)
    found = kind.of(seen)
    if mine:
        marks = corrected.chosen(found, corrected.by_bone(mine, [name])[name], seen)
        found = kind.of(seen.anew(marks)) if marks else found
    found = _nothing_silent(found)
    if volume is None or "lesser_trochanter" not in found.landmarks:
        return found
    return canal.with_canal(found, canal.cavity(volume, mesh, found))


def _nothing_silent(found: Anatomy) -> Anatomy:
    """The anatomy with every measure that is owed and was not read refused by name."""
    gone = [name for name in OWED.get(found.bone.partition("_")[0], ())
            if name not in found.measures and name not in found.refused]  # fmt: skip
    lacks = [name for name in found.refused if not name.endswith(("_deg", "_mm"))][:3]
    why = f"needs landmarks that are not on this surface (missing: {', '.join(lacks) or 'the other end of the bone'})"
    return replace(found, refused={**found.refused, **dict.fromkeys(gone, why)}) if gone else found


def read_markups(path: Path) -> dict[str, Array]:
    """Label -> point in LPS mm of a 3D Slicer point list; InputError as in `corrected.read_markups`."""
    from implantforge.stages.anatomy import corrected

    return corrected.read_markups(path)


def examine_all(meshes: Mapping[str, Mesh], corrections: Mapping[str, Array] | None = None) -> dict[str, Anatomy]:
    """Anatomy of several bones of one patient in one frame: hip bones share their anterior pelvic plane, femur and tibia
    their hka_deg; a `pelvis` gives `hip_left` and `hip_right`. corrections as Slicer labels `bone.landmark` (of one bone
    alone also `landmark`) in LPS mm."""
    from concurrent.futures import ThreadPoolExecutor

    from implantforge.stages.anatomy import corrected, lines, marks

    turned, halves = False, {}
    if "pelvis" in meshes:
        from implantforge.stages.anatomy import body, pelvis

        twice = [name for name in ("hip_left", "hip_right") if name in meshes]
        if twice:
            raise InputError(f"pelvis: {twice[0]} is given as well: one of them is enough")
        turned = body.volume_mm3(meshes["pelvis"]) < 0.0
        halves = pelvis.split(meshes["pelvis"])
        meshes = {name: mesh for name, mesh in meshes.items() if name != "pelvis"} | halves
    # what all threads share is made before they start
    for kind in {name.partition("_")[0] for name in meshes} & {"femur", "hip", "tibia"}:
        marks.bone(kind)
    sorted_ = corrected.by_bone(corrections or {}, list(meshes))

    def one(name: str) -> Anatomy:
        if name not in sorted_:
            return examine(name, meshes[name])
        return examine(name, meshes[name], None, {f"{name}.{key}": at for key, at in sorted_[name].items()})

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(meshes, pool.map(one, meshes)))
    if turned:
        found |= {
            name: replace(found[name], measures={**found[name].measures, "surface_turned": 1.0}) for name in halves
        }
    return lines.paired(found)


def flags(page: Anatomy) -> list[str]:
    """What a person should know of the surface that was measured, one sentence each; nothing for a sound one."""
    from implantforge.stages.anatomy import body, edges

    out, measures = [], page.measures
    if body.TURNED in measures:
        out.append("the mesh was inside out (its signed volume is negative): its triangles were turned")
    if body.LEFT_OUT in measures:
        count = int(measures[body.LEFT_OUT])
        out.append(
            f"the largest piece of the mesh was used; {count} more piece{'s' if count > 1 else ''} left out "
            f"({measures[body.LEFT_OUT_PCT]:.1f} % of its area, the largest {measures[body.LEFT_OUT_MM]:.0f} mm)"
        )
    if edges.COUNT in measures:
        count = int(measures[edges.COUNT])
        beside = ", ".join(name for name, mark in page.landmarks.items() if edges.BESIDE in mark.method)
        lost = sum("cut off" in why for why in page.refused.values())
        out.append(
            f"the surface is open in {count} place{'s' if count > 1 else ''} (cuts or holes, the widest "
            f"{measures[edges.LARGEST_MM]:.0f} mm); "
            + (f"beside one, and less sure: {beside}" if beside else "no landmark that was found lies beside one")
            + (f"; {lost} that may lie in one {'is' if lost == 1 else 'are'} refused below" if lost else "")
        )
    if "size_to_grown" in measures:
        size = measures["size_to_grown"]
        why = "a child's bone, or a slip of units" if size < 1.0 else "a very tall person's bone, or a slip of units"
        out.append(f"{size:.2f} times the size of a grown one (0.80-1.20 is usual): {why}")
    return out
