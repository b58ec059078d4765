"""What build.py calls: each function takes and returns plain values and nouns, so that the cache can hold them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from implantforge import implants
from implantforge.core import (
    Anatomy,
    Array,
    Check,
    Design,
    Fit,
    InputError,
    Labels,
    Lattice,
    Mesh,
    Side,
    Volume,
    check,
)
from implantforge.geom import bonenames, meshing
from implantforge.implants import Case
from implantforge.pipeline import cache, certify, doubts, imaging, resources
from implantforge.pipeline.cache import Result
from implantforge.pipeline.recipe import MeshParams, Recipe
from implantforge.stages import anatomy as bone_anatomy
from implantforge.stages import dicom, phantoms, porous, printability, segment, surface
from implantforge.stages import orient as orienting

ENVELOPE_H_MM = 0.6
Index = tuple[int, int, int]
_SIDES: tuple[Side, Side] = ("left", "right")


class Source(NamedTuple):
    """Where the CT comes from: result gives the path (or the sample's name and seed) and is keyed by content alone."""

    name: str
    sha256: str
    result: Result
    tokens: Callable[[], tuple[str, ...]]


def source(recipe: Recipe, ct: Path | None) -> Source:
    """The CT given, or the recipe's sample patient; InputError when it does not exist. File names are not kept."""
    path = ct if ct is not None else resources.sample(recipe.sample.name, recipe.sample.seed)
    if path is None:
        made = recipe.sample.model_dump()
        key = cache.digest(made)
        return Source(f"sample:{made['name']}:{made['seed']}", key, Result(key, lambda _: made), tuple)
    if not path.exists():
        raise InputError(f"CT: {path} does not exist")
    key = content_sha256(path)
    name = _neutral(path) if ct is not None else f"sample:{recipe.sample.name}:{recipe.sample.seed}"
    return Source(name, key, Result(key, lambda _: str(path)), lambda: dicom.identity(path))


def _neutral(path: Path) -> str:
    """A name for the input that cannot hold the patient's: its kind alone."""
    known = (".zip", ".nii.gz", ".nii", ".nrrd", ".dcm")
    return "ct/" if path.is_dir() else "ct" + next((end for end in known if path.name.lower().endswith(end)), "")


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the sorted digests of all files below a folder: names and order do not matter."""
    if path.is_file():
        return cache.file_sha256(path)
    sums = sorted(cache.file_sha256(item) for item in path.rglob("*") if item.is_file())
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def load(given: str | dict[str, Any], *, series: str | None, accept: str | None) -> dict[str, Any]:
    """volume, report (plain dict) and laterality of the CT, or of the generated sample patient."""
    if isinstance(given, str):
        scan = dicom.load(given, series=series, accept=accept)
    else:
        with tempfile.TemporaryDirectory() as folder:
            phantoms.write(phantom(given["name"], given["seed"]), Path(folder))
            scan = dicom.load(Path(folder) / "ct")
    return {"volume": scan.volume, "report": scan.report.as_dict(), "laterality": scan.volume.patient.laterality}


def phantom(name: str, seed: int) -> Any:
    """The synthetic patient of that name; InputError when there is none."""
    makers = {key: getattr(phantoms, key) for key in ("hip", "knee", "leg") if hasattr(phantoms, key)}
    if name not in makers:
        raise InputError(f"sample: none is called {name} (known: {', '.join(makers)})")
    return makers[name](seed)


def bones(volume: Volume) -> dict[str, Any]:
    """labels, and the names of the bones in them."""
    found = segment.bones(volume)
    return {"labels": found, "names": sorted(found.names)}


def label_file(path: Path) -> Result:
    """A label map made elsewhere, keyed by content; InputError when it does not exist."""
    if not path.exists():
        raise InputError(f"labels: {path} does not exist")
    return Result(content_sha256(path), lambda _: str(path))


def given_bones(path: str, volume: Volume) -> dict[str, Any]:
    """As `bones`, from a label map made elsewhere."""
    found = imaging.read_labels(Path(path), volume.grid)
    return {"labels": found, "names": sorted(found.names)}


def skin(volume: Volume, labels: Labels, *, name: str) -> dict[str, Any]:
    """The bone's surface as mesh (full, not simplified), its sigma_mm per vertex, and about: plain numbers."""
    found = surface.one(volume, labels, name, simplify_mm=0.0)
    doubts.held_against_scan({name: 1.0 - float(found.seen.mean())})
    return {"mesh": found.mesh, "sigma_mm": found.sigma_mm, "about": found.describe()}


def relabel(labels: Labels, volume: Volume, *meshes: Mesh, names: list[str]) -> dict[str, Any]:
    """labels that agree with the surfaces, and what metal does to each bone as artefacts."""
    found = surface.relabel(labels, dict(zip(names, meshes)))
    spoilt = segment.artefacts(volume, found)
    return {"labels": found, "artefacts": {name: asdict(row) for name, row in spoilt.items()}}


def side(recipe: Recipe, found: list[str], laterality: str) -> Side:
    """The side to treat; InputError when the scan does not show it, or when only a person can choose."""
    implant, wanted = recipe.implant, recipe.case.side
    possible = [one for one in _SIDES if set(implant.bones(one)) <= set(found)]
    if wanted == "auto" and laterality in possible:
        wanted = laterality
    if wanted == "auto" and len(possible) == 2:
        raise InputError("case.side: both sides can be treated; say --side left or --side right")
    for one in possible:
        if wanted in (one, "auto"):
            return one
    asked: Side = "right" if wanted == "right" else "left"
    needs, shows = (bonenames.spoken(names) for names in (implant.bones(asked), found))
    lacking = bonenames.spoken([name for name in implant.bones(asked) if name not in found])
    other = f"say --side {possible[0]}, or " if possible else ""
    either = " (or the same of the right side)" if wanted == "auto" else ""
    raise InputError(
        f"{implant.name}: needs {needs}{either}; this scan shows {shows or 'no bone'}: {other}give one that also shows "
        f"{lacking}"
    )


def landmark_file(path: Path, bones: list[str]) -> dict[str, dict[str, list[float]]]:
    """A person's landmarks of each bone, label -> LPS mm; InputError when the file is none or names another bone."""
    if not path.exists():
        raise InputError(f"landmarks: {path} does not exist")
    out: dict[str, dict[str, list[float]]] = {bone: {} for bone in bones}
    for label, at in bone_anatomy.read_markups(path).items():
        bone, dot, name = label.rpartition(".")
        bone = bones[0] if not dot and len(bones) == 1 else bone
        if bone not in out:
            raise InputError(f"landmarks: {label}: no such bone is measured here; there are {', '.join(bones)}")
        out[bone][f"{bone}.{name}"] = at.tolist()
    return out


def anatomy(mesh: Mesh, volume: Volume, *, name: str, corrections: Mapping[str, list[float]] | None = None) -> Anatomy:
    """Landmarks, frames, measures and curves of one bone; `corrections` (label -> LPS mm) replace ours."""
    given = {label: np.array(at, float) for label, at in (corrections or {}).items()}
    return bone_anatomy.examine(name, mesh, volume, given)


class CaseResults(NamedTuple):
    """A Case whose parts are not read yet."""

    side: Side
    volume: Result
    labels: Result
    bones: dict[str, Result]
    anatomy: dict[str, Result]

    @property
    def results(self) -> tuple[Result, ...]:
        """Every part, in the order `_case` expects."""
        return (self.volume, self.labels, *self.bones.values(), *self.anatomy.values())

    @property
    def names(self) -> dict[str, Any]:
        """What the parts are called."""
        return {"side": self.side, "bones": list(self.bones), "anatomy": list(self.anatomy)}


def _case(names: Mapping[str, Any], volume: Volume, labels: Labels, *parts: Any) -> tuple[Case, tuple[Any, ...]]:
    """The Case, and the arguments that came after its parts."""
    first, last = len(names["bones"]), len(names["bones"]) + len(names["anatomy"])
    bones, found = dict(zip(names["bones"], parts[:first])), dict(zip(names["anatomy"], parts[first:last]))
    return Case(names["side"], volume, labels, bones, found), parts[last:]


def plan(*results: Any, implant: str, case: Mapping[str, Any], params: Any) -> Fit:
    """The implant's own plan on this case."""
    return implants.get(implant).plan(_case(case, *results)[0], params)


def envelope(fit: Fit, *, implant: str, params: Any) -> dict[str, Any]:
    """The outer shape without pores: mesh (patient LPS), its volume, the size of its box in the implant's axes, which
    faces take no support, and the machined surfaces."""
    design = implants.one(implant).design(fit, params)
    mesh = meshing.polygonise(design.envelope, ENVELOPE_H_MM)
    centres = mesh.vertices[mesh.faces].mean(axis=1)
    return {
        "mesh": mesh.moved(fit.pose),
        "volume_mm3": mesh.volume_mm3,
        "box_mm": np.ptp(mesh.vertices, axis=0).tolist(),
        "keep_clear": design.porous(centres) < ENVELOPE_H_MM,
        "machined": [dict(row) for row in design.machined],
    }


def fill(fit: Fit, *, implant: str, params: Any, lattice: Lattice, mesh: MeshParams) -> dict[str, Any]:
    """The part in patient LPS as `mesh`, and what was measured on its lattice as `certificate`."""
    design: Design = replace(implants.one(implant).design(fit, params), lattice=lattice)
    body, certificate = certify.metal(design, h_mm=mesh.h_mm, simplify_mm=mesh.simplify_mm)
    return {"mesh": body.moved(fit.pose), "certificate": certificate}


def orient(shape: dict[str, Any], fit: Fit, *, machine: str) -> dict[str, Any]:
    """The build direction in patient LPS and its numbers."""
    rules = printability.machine(machine).rules
    direction, numbers = orienting.choose(
        shape["mesh"], keep_clear=shape["keep_clear"], axes=fit.pose.rotation.T, angle_deg=rules.self_supporting_deg
    )
    return {"direction": direction, "numbers": numbers}


def verify(
    *results: Any, implant: str, params: Any, case: Mapping[str, Any], machine: str, material: str
) -> dict[str, Any]:
    """Every check and every metric of the part."""
    person, (fit, body, shape, way) = _case(case, *results)
    design = implants.one(implant).design(fit, params)
    mesh, certificate = body["mesh"], body["certificate"]
    printer, metal = printability.machine(machine), printability.material(material)
    found = printability.Measured(
        min_wall_mm=certificate.get("min_wall_mm"),
        trapped_powder_mm3=certificate.get("trapped_powder_mm3"),
        support_on_porous_mm2=way["numbers"]["support_on_clear_mm2"],
        overhang_area_mm2=way["numbers"]["overhang_area_mm2"],
        throat_um=certificate.get("lattice_throat_um"),
        samples_per_wall=certificate.get("lattice_samples_per_wall"),
        porous_mm3=certificate.get("porous_volume_mm3"),
    )
    standing = shape["mesh"].moved(orienting.build_pose(shape["mesh"], way["direction"]))
    checks: tuple[Check, ...] = (
        *implants.one(implant).checks(person, fit, design, mesh, params),
        *printability.checks(mesh, standing, printer, found),
        *metal_near(person.labels, shape["mesh"]),
        *porous.checks(certificate.get("porous", {}).get("values", {})),
    )
    metrics = {
        **printability.waste(
            mesh.volume_mm3, shape["volume_mm3"], metal,
            stock_mm3=float(sum(row.get("stock_mm3", 0.0) for row in design.machined)),
            support_mm3=way["numbers"]["support_volume_mm3"], box_mm=tuple(shape["box_mm"]),
        ),
        **_numbers(certificate),
        "triangles": len(mesh.faces),
        "build_time_h": printability.build_hours(
            way["numbers"]["height_mm"], mesh.volume_mm3 + way["numbers"]["support_volume_mm3"], printer
        ),
        **{row.name: row.value for row in checks if row.name == "bone_overlap_mm3"},
        **_numbers(fit.metrics),
    }  # fmt: skip
    return {"checks": checks, "metrics": metrics}


def verify_whole(*results: Any, implant: str, params: Any, case: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks of several parts together."""
    person, (fit,) = _case(case, *results)
    system = implants.get(implant)
    assert isinstance(system, implants.System)
    rows = system.members(params)
    designs = {row.name: row.implant.design(row.of(fit), row.params) for row in rows}
    return system.checks(person, fit, designs, params)


METAL_FREE_MM = 20.0
METAL_SOURCE = "metal artefact changed the planned bone in 8 of 8 re-scans: doi 10.1186/s41205-020-00074-5"


def metal_near(labels: Labels, part: Mesh) -> tuple[Check, ...]:
    """One check, where the scan shows metal: how near it lies to the part. No check without metal."""
    if "metal" not in labels.names:
        return ()
    at = labels.grid.to_patient(np.argwhere(labels.mask("metal")).astype(np.float64))
    away, nearest = cKDTree(at).query(part.vertices[:: max(1, len(part.vertices) // 50_000)])
    first = int(np.argmin(away))
    return (
        check(
            "metal_distance_mm", away[first], "mm", ">=", METAL_FREE_MM, METAL_SOURCE, at_mm=tuple(at[nearest[first]])
        ),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain numbers and short texts of a mapping; arrays have their own files."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in values.items()
        if isinstance(value, (int, float, str, np.generic))
    }


def index_box(volume: Volume, points: Array, margin_mm: float) -> tuple[Index, Index]:
    """Start and stop indices of the box around points (n,3) mm, margin_mm wider, within the volume."""
    low, high = points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm
    corners = np.array(np.meshgrid(*np.array([low, high]).T)).reshape(3, -1).T
    index = volume.grid.to_index(corners)
    start = np.clip(np.floor(index.min(axis=0)), 0, np.array(volume.grid.shape) - 1).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0)) + 1, start + 1, volume.grid.shape).astype(int)
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))
