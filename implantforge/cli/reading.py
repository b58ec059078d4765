"""inspect, view, sample; and mesh files for other verbs."""

from __future__ import annotations

import datetime
import importlib
from pathlib import Path
from typing import Any

import click

from implantforge.cli import OK, REFUSED, put_json
from implantforge.core.errors import InputError


@click.command("inspect")
@click.argument("ct", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def inspect_(ct: Path, as_json: bool) -> int:
    """Series found in CT: size, spacing (mm), orientation, tilt (degrees), transfer syntax, kernel, verdict and why.

    All slices of the proposed series are looked at, of the others a few. Exit 2 when no series can be used.
    """
    from implantforge.stages import dicom

    if not ct.exists():
        raise InputError(f"CT: {ct} does not exist")
    rows = [report.as_dict() for report in dicom.survey(ct, datetime.date.today())]
    usable = any(row["verdict"] != "refused" for row in rows)
    if as_json:
        put_json({"series": rows})
        return OK if usable else REFUSED
    for row in rows:
        size, step = "x".join(map(str, row["shape"])), "x".join(f"{mm:.3g}" for mm in row["spacing_mm"])
        star = " (proposed)" if row.get("proposed") else ""
        good = {"implant": ", for implants", "planning": ", for planning only", "none": ""}[row["use"]]
        click.echo(
            f"{row['index']:3d}  {row['verdict']}{good}: {row['modality']} {size} at {step} mm, {row['orientation']}, tilt "
            f"{row['tilt_deg']:.1f} deg, {row['transfer_syntax']}, kernel {row['kernel'] or 'unknown'}{star}"
        )
        for line in [*row["reasons"], *row["notes"]]:
            click.echo(f"     {line}")
    return OK if usable else REFUSED


def read_mesh(path: Path) -> Any:
    """A Mesh in LPS mm from STL, PLY or OBJ with equal vertices joined; InputError when it is no mesh or hardly in mm.

    A file that says SPACE=RAS, as Slicer writes it, is turned; one that says nothing is taken as LPS.
    """
    import numpy as np
    import trimesh

    from implantforge.core import Mesh

    if path.suffix.lower() not in (".stl", ".ply", ".obj"):
        raise InputError(f"mesh: {path.name} is not .stl, .ply or .obj")
    if not path.is_file():
        raise InputError(f"mesh: {path} does not exist")
    try:
        loaded: Any = trimesh.load(path, force="mesh", process=False)
        loaded.merge_vertices(merge_tex=True, merge_norm=True)
        turn = np.array([-1.0, -1.0, 1.0]) if b"SPACE=RAS" in path.open("rb").read(2000) else np.ones(3)
        mesh = Mesh(np.asarray(loaded.vertices) * turn, np.asarray(loaded.faces))
    except Exception as error:
        raise InputError(f"mesh: {path.name} cannot be read ({type(error).__name__})") from error
    if not len(mesh.faces):
        raise InputError(f"mesh: {path.name} holds no triangle")
    size = float(np.linalg.norm(mesh.bounds[1] - mesh.bounds[0]))
    if not 10.0 <= size <= 3000.0:
        raise InputError(f"mesh: {path.name} measures {size:.3g} from corner to corner; coordinates must be mm")
    return mesh


@click.command("view")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--screenshot", type=click.Path(path_type=Path), metavar="X.png", help="write a picture, open no window")
def view_(run: Path, screenshot: Path | None) -> int:
    """Look at RUN in 3D: bones, part, landmarks and CT slices. Needs no display with --screenshot."""
    if not run.is_dir():
        raise InputError(f"view: {run} is not a run folder")
    viewer = importlib.import_module("implantforge.viewer")
    viewer.show(run, screenshot)
    return OK


@click.command("sample")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="new or empty folder")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="which patient")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def sample_(name: str, out: Path, seed: int, as_json: bool) -> int:
    """Write the synthetic patient NAME (hip, knee or leg) to DIR: CT as DICOM, truth.json, truth_labels.nii.gz."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"sample: {out} is not an empty folder")
    from implantforge.pipeline import steps
    from implantforge.stages import phantoms

    phantoms.write(steps.phantom(name, seed), out)
    files = sorted(path.name for path in out.iterdir())
    if as_json:
        put_json({"sample": name, "seed": seed, "folder": str(out), "files": files})
    else:
        click.echo(f"{out}: {', '.join(files)}")
    return OK
