"""A CT to labelled bones and their surfaces, without an implant: what `segment` and `mesh` do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Grid, InputError, Labels, Volume
from implantforge.pipeline import doubts
from implantforge.pipeline.cache import Stage
from implantforge.pipeline.run import json_text
from implantforge.stages import dicom, labels, meshfile, segment, surface

OnStage = Callable[[str, Stage | None], None]
NO_SURFACE = ("metal", "bone")
"""Labels that are no bone of their own: what spoils the picture, and bones that coarse voxels do not part."""


@dataclass(frozen=True, eq=False)
class Imaged:
    """A scan with its bones: labels agree with the surfaces; artefacts are empty where there is no metal; remarks are
    what a person should look at."""

    volume: Volume
    report: dict[str, Any]
    labels: Labels
    surfaces: dict[str, surface.Surface]
    artefacts: dict[str, segment.Artefact]
    remarks: tuple[str, ...] = ()

    def page(self) -> dict[str, Any]:
        """What --json prints and mesh.json holds: one row a label, and the verdict on the series."""
        rows = {}
        voxel_mm3 = float(np.prod(self.volume.grid.spacing_mm))
        counts = np.bincount(self.labels.values.ravel(), minlength=256)
        for name, value in sorted(self.labels.names.items()):
            row: dict[str, Any] = {"value": value, "labelled_mm3": round(float(counts[value]) * voxel_mm3, 1)}
            if name in self.surfaces:
                row |= self.surfaces[name].describe()
            if name in self.artefacts:
                row["artefact"] = {key: round(number, 2) for key, number in asdict(self.artefacts[name]).items()}
            rows[name] = row
        series = {name: self.report.get(name) for name in ("uid_hash", "verdict", "reasons", "use", "accepted_because")}
        return {"bones": rows, **series, "remarks": list(self.remarks)}


def bones(
    ct: Path,
    *,
    region: Any = "auto",
    series: str | None = None,
    accept: str | None = None,
    given: Path | None = None,
    simplify_mm: float = surface.SIMPLIFY_MM,
    on_stage: OnStage = lambda name, stage: None,
) -> Imaged:
    """Bones of a CT, found by this program or taken from the label map `given`, with a surface each.

    Voxel labels are made anew from the surfaces, so both say the same. InputError for what cannot be read or used.
    """
    if not ct.exists():
        raise InputError(f"CT: {ct} does not exist")
    with _timed("load", on_stage):
        scan = dicom.load(ct, series=series, accept=accept)
    with _timed("segment", on_stage):
        found = segment.bones(scan.volume, region) if given is None else read_labels(given, scan.volume.grid)
    with _timed("surfaces", on_stage):
        surfaces = surface.bones(scan.volume, found, set(found.names) - set(NO_SURFACE), simplify_mm=simplify_mm)
    remarks = doubts.held_against_scan({name: 1.0 - float(one.seen.mean()) for name, one in surfaces.items()})
    if given is not None:
        remarks += doubts.pieces_left_out(found) + doubts.cut_short(found, scan.volume)
        doubts.swapped_sides({name: one.mesh for name, one in surfaces.items()})
    with _timed("label", on_stage):
        found = surface.relabel(found, {name: one.mesh for name, one in surfaces.items()})
        artefacts = segment.artefacts(scan.volume, found)
    return Imaged(scan.volume, scan.report.as_dict(), found, surfaces, artefacts, tuple(remarks))


@contextmanager
def _timed(name: str, on_stage: OnStage) -> Iterator[None]:
    on_stage(name, None)
    began = time.perf_counter()
    yield
    on_stage(name, Stage(name, time.perf_counter() - began, False))


def read_labels(path: Path, grid: Grid) -> Labels:
    """A label map made elsewhere on the CT's grid: NIfTI, NRRD, a 3D Slicer segmentation, a folder of NIfTI masks or a
    DICOM SEG. InputError when it cannot be read, is empty, or lies beside the scan."""
    if not path.exists():
        raise InputError(f"labels: {path} does not exist")
    if path.suffix.lower() in (".dcm", ".dicom", "") and (path.is_file() or not any(path.glob("*.nii*"))):
        return dicom.read_segmentation(path, grid)
    return labels.read(path, grid)


def write_labels(found: Labels, path: Path) -> None:
    """By suffix: .nii.gz, .nrrd, .seg.nrrd or .dcm (DICOM SEG). InputError for another suffix."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        dicom.write_segmentation(found, path)
    else:
        labels.write(found, path)


def replaced(path: Path, writer: Callable[[Path], None]) -> None:
    """A file that appears whole or not at all: writer gets a temporary name with the same suffixes beside it."""
    fresh = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        writer(fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def put_bytes(path: Path, data: bytes) -> None:
    """A file of these bytes."""
    path.write_bytes(data)


def write_meshes(found: Imaged, folder: Path, kind: str) -> dict[str, Any]:
    """NAME.kind (stl, ply or obj) for every bone in patient LPS mm, and mesh.json last; returns what mesh.json holds."""
    page = found.page()
    rows = {name: (one.mesh, one.sigma_mm, page["bones"][name]) for name, one in found.surfaces.items()}
    path = meshfile.write_meshes(folder, rows, f".{kind}")
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rest = {key: value for key, value in written.items() if key != "meshes"}
    whole = {**page, **rest, "bones": {**page["bones"], **written["meshes"]}}
    series = {key: value for key, value in page.items() if key != "bones"}
    text = json_text({**series, **written})
    replaced(path, lambda fresh: put_bytes(fresh, text.encode()))
    return whole
