"""segment, mesh."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from implantforge.cli import OK, put_json
from implantforge.core.errors import InputError

_SERIES = click.option("--series", metavar="INDEX|HASH", help="series of the CT, as inspect names it  [default: best]")
_ACCEPT = click.option("--accept", metavar="REASON", help="use a refused series all the same, for this reason")
_JSON = click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
_QUIET = click.option("--quiet", "-q", is_flag=True, help="no progress")
_REGIONS = ("auto", "hip", "knee", "skull")


@click.command("segment")
@click.argument("ct", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="LABELS",
              help="label map: .nii.gz, .nrrd, .seg.nrrd (3D Slicer) or .dcm (DICOM SEG)")  # fmt: skip
@click.option("--region", type=click.Choice(_REGIONS), default="auto", show_default=True, help="what to look for")
@click.option("--picture", type=click.Path(path_type=Path), metavar="X.png", help="draw the bones and their outlines")
@_SERIES
@_ACCEPT
@_JSON
@_QUIET
def segment_(ct: Path, out: Path, region: str, picture: Path | None, series: str | None, accept: str | None,
             as_json: bool, quiet: bool) -> int:  # fmt: skip
    """Label the bones of CT, each with TotalSegmentator's name, left and right apart; write them to LABELS.

    NIfTI holds TotalSegmentator's values (task total: 75 femur_left, 77 hip_left, 25 sacrum, ...; bones it does not know
    from 200), .nrrd is a 3D Slicer segmentation with names, .dcm a DICOM SEG that lies in the patient by its coordinates
    and is not linked to the CT's study. Voxels follow the bone's sub-voxel surface. Volumes in mm3, uncertainty (one
    sigma) in mm, artefact index in HU.
    """
    if out.is_dir() or not out.name.lower().endswith((".nii.gz", ".nrrd", ".dcm")):
        raise InputError(f"segment: {out}: give a file name ending in .nii.gz, .nrrd, .seg.nrrd or .dcm")
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"segment: {picture.name}: a picture must end in .png")
    _writable(out, picture)
    found = _look(ct, quiet, region=region, series=series, accept=accept)
    from implantforge.pipeline import imaging

    imaging.replaced(out, lambda path: imaging.write_labels(found.labels, path))
    if picture is not None:
        _picture(found, picture)
    page = {"labels": str(out), **found.page()}
    if as_json:
        put_json(page)
    else:
        _summary(page)
        click.echo(f"{out}" + (f"  {picture}" if picture else ""))
    return OK


@click.command("mesh")
@click.argument("ct", type=click.Path(path_type=Path))
@click.option("--labels", "given", type=click.Path(path_type=Path), metavar="LABELS",
              help="label map made here or elsewhere (NIfTI, NRRD, SEG)  [default: found as segment does]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="folder for the surfaces")
@click.option("--format", "kind", type=click.Choice(("stl", "ply", "obj")), default="stl", show_default=True,
              help="ply keeps each vertex's sigma_mm")  # fmt: skip
@click.option("--simplify-mm", type=click.FloatRange(0.0, 0.5), default=0.03, show_default=True,
              help="largest two-sided distance between the simplified and the full surface; 0 keeps all")  # fmt: skip
@click.option("--picture", type=click.Path(path_type=Path), metavar="X.png", help="draw the bones and their outlines")
@_SERIES
@_ACCEPT
@_JSON
@_QUIET
def mesh_(ct: Path, given: Path | None, out: Path, kind: str, simplify_mm: float, picture: Path | None,
          series: str | None, accept: str | None, as_json: bool, quiet: bool) -> int:  # fmt: skip
    """One closed sub-voxel surface per bone of CT in DIR (patient LPS mm), described in mesh.json.

    --labels takes a NIfTI with TotalSegmentator's values, a folder of its masks (femur_left.nii.gz, ...), a 3D Slicer
    segmentation or a DICOM SEG; bones are known by their names there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"mesh: {out} is a file; give a folder")
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"mesh: {picture.name}: a picture must end in .png")
    _writable(picture, out if out.exists() else None)
    found = _look(ct, quiet, given=given, series=series, accept=accept, simplify_mm=simplify_mm)
    if not found.surfaces:
        raise InputError(f"mesh: no bone to mesh among the labels ({', '.join(sorted(found.labels.names)) or 'none'})")
    from implantforge.pipeline import imaging

    page = imaging.write_meshes(found, out, kind)
    if picture is not None:
        _picture(found, picture)
    if as_json:
        put_json(page)
    else:
        _summary(page)
        click.echo(f"{out}/mesh.json" + (f"  {picture}" if picture else ""))
    return OK


def _look(ct: Path, quiet: bool, **wanted: Any) -> Any:
    from implantforge.cli.progress import Progress
    from implantforge.pipeline import imaging

    with Progress(quiet) as progress:
        return imaging.bones(ct, on_stage=progress, **wanted)


def _writable(*files: Path | None) -> None:
    """Refuses before the work what could not be written after it."""
    for file in files:
        if file is None:
            continue
        if not file.parent.is_dir():
            raise InputError(f"{file}: the folder {file.parent} does not exist; make it first")
        if not os.access(file.parent, os.W_OK):
            raise InputError(f"{file}: the folder {file.parent} cannot be written")


def _picture(found: Any, path: Path) -> None:
    from implantforge.pipeline import imaging
    from implantforge.report import labelled

    meshes = {name: one.mesh for name, one in found.surfaces.items()}
    sigma = {name: one.sigma_mm for name, one in found.surfaces.items()}
    data = labelled.picture(found.volume, meshes, found.labels, sigma)
    imaging.replaced(path, lambda part: imaging.put_bytes(part, data))


def _summary(page: dict[str, Any]) -> None:
    use = {"planning": ", for planning only", "implant": ", fit for implants"}.get(str(page.get("use")), "")
    click.echo(f"series {str(page['uid_hash'])[:12]} {page['verdict']}{use}")
    for reason in page["reasons"] or ():
        click.echo(f"  {reason}")
    for remark in page["remarks"]:
        click.echo(f"  look: {remark}")
    for name, row in page["bones"].items():
        text = f"{name:<16} {row['labelled_mm3'] / 1000:8.1f} cm3"
        if "triangles" in row:
            text += f"  {row['triangles']:7d} triangles  +-{row['sigma_median_mm']:.3f} mm (1 sigma, median)"
            text += "  cut by the scan's border" if row["cut_by_scan"] else ""
        if "artefact" in row:
            text += (
                f"  metal {row['artefact']['nearest_mm']:.0f} mm away, artefact {row['artefact']['index_hu']:.0f} HU"
            )
        click.echo(text)
