"""lattice."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from implantforge.cli import CHECK_FAILED, OK, put_json
from implantforge.core.errors import InputError

_PATH = click.Path(path_type=Path)
_MM = click.FloatRange(0.0, min_open=True)


@click.command("lattice")
@click.argument("shape", type=_PATH)
@click.option("--out", type=_PATH, required=True, metavar="PART", help="file to write: .stl, .3mf or .ply")
@click.option("--kind", default="gyroid", show_default=True, help="unit cell (implantforge list lattices)")
@click.option("--form", type=click.Choice(("sheet", "network", "strut")), help="wall, skeleton or round struts  "
              "[default: sheet where there is one, else what there is]")  # fmt: skip
@click.option("--cell-mm", type=_MM, default=2.0, show_default=True, help="edge of the unit cell")
@click.option("--wall-mm", type=_MM, help="true wall or strut: median thickness of the metal")
@click.option("--porosity", type=click.FloatRange(0.0, 1.0, True, True), help="open share, e.g. 0.7  [default: 0.7]")
@click.option("--pore-mm", type=_MM, help="median pore (local thickness of the void)")
@click.option("--modulus-gpa", type=_MM, help="Young's modulus of the lattice, mean over all directions, Ti-6Al-4V")
@click.option("--depth-mm", type=_MM, help="fill the outer layer of this depth, the rest stays solid  [default: all]")
@click.option("--region", metavar="BOX|MESH", help="fill within x0,y0,z0,x1,y1,z1 (mm) or a second closed mesh alone")
@click.option("--placement", type=click.Choice(("cartesian", "cylindrical", "spherical", "conformal")),
              default="cartesian", show_default=True,
              help="what cells lie along; conformal: layers follow a surface that goes round the axis (a shaft, a ring), "
              "refused where it faces along it")  # fmt: skip
@click.option("--axis", metavar="X,Y,Z", help="axis of the placement  [default: 0,0,1]")
@click.option("--grade", "grades", multiple=True, metavar="WHAT=BY:AT:VALUE,AT:VALUE[@X,Y,Z[/I,J,K]]",
              help="WHAT wall_mm, porosity or cell_mm changes BY depth, point, axis, along or a --field, between knots "
              "(mm), e.g. wall_mm=depth:0:0.25,3:0.5; X,Y,Z is the point, I,J,K the axis")  # fmt: skip
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=VOLUME", help="a NIfTI or NRRD to grade by, e.g. hu=ct.nrrd"
)
@click.option("--skin-mm", type=click.FloatRange(0.0), default=0.0, help="solid skin  [default: 0]")
@click.option("--rim-mm", type=click.FloatRange(0.0), default=0.0, help="solid rim within --region  [default: 0]")
@click.option("--fillet-mm", type=click.FloatRange(0.0), default=0.0, help="fillet from lattice to solid  [default: 0]")
@click.option("--border", type=click.Choice(("cap", "trim", "cut")), default="cap", show_default=True,
              help="ends of struts and networks at the surface: joined by a net under it, left out (struts), or cut: "
              "open ends that bone grows between")  # fmt: skip
@click.option("--beams", type=_PATH, metavar="X.3mf", help="struts as a 3MF beam lattice as well")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="of stochastic kinds")
@click.option("--h-mm", type=click.FloatRange(0.01, 2.0), default=0.1, show_default=True, help="sampling step")
@click.option("--unit", type=click.Choice(("mm", "cm", "m", "inch", "um")), default="mm", show_default=True,
              help="of SHAPE's coordinates; a 3MF says its own")  # fmt: skip
@click.option(
    "--machine", metavar="NAME", help="refuse what is thinner than this printer makes (implantforge list machines)"
)
@click.option("--certificate", is_flag=True, help="stiffness, permeability and every size with its error as well")
@click.option("--stream", is_flag=True, help="hold no mesh: for parts larger than memory (STL, 3MF)  "
              "[default: from 20 M triangles on]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
@click.option("--quiet", "-q", is_flag=True, help="no progress")
def lattice_(shape: Path, out: Path, as_json: bool, quiet: bool, **given: Any) -> int:
    """Fill SHAPE, a closed STL, 3MF, PLY or OBJ, with a lattice and write PART.

    Give one of --wall-mm, --porosity, --pore-mm or --modulus-gpa. All of the shape is filled, or its outer
    --depth-mm, or --region. Lengths in mm. What was asked and what came out is measured and reported.
    """
    from implantforge.cli.progress import Progress
    from implantforge.core import Lattice
    from implantforge.pipeline import filling
    from implantforge.stages import lattice as lattices

    beams = given["beams"]
    filling.check_targets(out, beams)
    if beams is not None and beams.suffix.lower() != ".3mf":
        raise InputError(f"lattice: {beams.name}: beams are written as .3mf")
    for path in (out, beams):
        if path is not None and path.exists() and shape.exists() and path.samefile(shape):
            raise InputError(f"lattice: {path.name} is the shape itself; give another name")
    axis = _triple(given["axis"] or "0,0,1", "--axis")
    grades = tuple(lattices.parse_grade(text, axis) for text in given["grades"])
    asked = {name: given[name] for name in ("wall_mm", "porosity", "pore_mm") if given[name] is not None}
    if len(asked) > 1:
        raise InputError(f"lattice: give one of --wall-mm, --porosity, --pore-mm, --modulus-gpa, not {len(asked)}")
    if asked and given["modulus_gpa"] is not None:
        raise InputError(f"lattice: give --modulus-gpa or --{next(iter(asked)).replace('_', '-')}, not both")
    if given["stream"] and out.suffix.lower() == ".ply":
        raise InputError("lattice: PLY counts its points at the top and cannot be streamed; write .stl or .3mf")
    if given["modulus_gpa"] is None and not asked and not any(grade.what != "cell_mm" for grade in grades):
        asked = {"porosity": 0.7}
    there = lattices.forms(given["kind"])
    form: Any = given["form"] or next((f for f in ("sheet", "strut", "network") if f in there), "network")
    noun = Lattice(given["kind"], form, given["cell_mm"], seed=given["seed"], placement=given["placement"],
                   axis=axis, grades=grades, **asked)  # fmt: skip
    options = filling.Options(**{name: given[name] for name in filling.Options.__dataclass_fields__ if name in given})
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
        )  # what is half written is taken away
    with Progress(quiet) as progress:
        made = filling.fill(shape, noun, options, region=given["region"], volumes=_fields(given["fields"]),
                            beams=beams is not None, suffix=out.suffix.lower(), on_stage=progress)  # fmt: skip
        with filling.timed("write", progress):
            filling.write(out, made, beams)
    page = {"part": str(out), **({"beams": str(beams)} if beams else {}), **made.page}
    if as_json:
        put_json(page)
    else:
        _summary(page)
    return CHECK_FAILED if page["failed"] else OK


def _triple(text: str, what: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"lattice: {what} {text!r} is not three numbers X,Y,Z") from None
    return x, y, z


def _fields(texts: tuple[str, ...]) -> dict[str, Path]:
    rows = [text.partition("=") for text in texts]
    for name, _, path in rows:
        if not (name and path):
            raise InputError(f"lattice: --field {name} must look like hu=ct.nrrd")
    return {name: Path(path) for name, _, path in rows}


def _bodies(count: int) -> str:
    return "1 body" if count == 1 else f"{count} bodies"


def _summary(page: dict[str, Any]) -> None:
    made, got, planned = page["lattice"], page["got"], page["designed"]
    asked = [f"{name} {value:g}" for name, value in page["asked"].items()]
    asked += [f"{row['what']} by {row['by']}: " + ", ".join(f"{v:g} at {at:g}" for at, v in row["knots"])
              for row in made["grades"]]  # fmt: skip
    if "modulus_mean_gpa" in planned:
        asked.append(f"designed {planned['modulus_mean_gpa']:.3g} GPa")
    click.echo(f"{made['kind']} {made['form']}, cell {made['cell_mm']:g} mm: {', '.join(asked)}")
    if "refused" in got:
        click.echo(
            f"  porosity {got['porosity_region_pct']:.1f} %   wall designed {planned['wall_mm']:.3f} mm; {got['refused']}"
        )
    else:
        click.echo(f"  porosity {got['porosity_pct']:.1f} % (of the file, borders and all, "
                   f"{got['porosity_region_pct']:.1f})   wall {got['wall_mm']:.3f} mm (designed "
                   f"{planned['wall_mm']:.3f})   pores {got['pore_median_mm']:.2f}, largest "
                   f"{got['pore_largest_mm']:.2f} mm   throat {got['throat_mm']:.2f} mm")  # fmt: skip
    found = page.get("certificate", {}).get("values")
    if found:
        click.echo(f"  modulus {found['modulus_min_gpa']:.2f}..{found['modulus_max_gpa']:.2f} GPa by direction   "
                   f"permeability {found['permeability_1e9_m2']:.2f}e-9 m2")  # fmt: skip
    click.echo(f"  {page['part_volume_mm3'] / 1000:.3f} cm3   {page['part_mass_g']:.2f} g   {page['triangles']} triangles   "
               + (_bodies(page["components"]) if "components" in page else "streamed"))  # fmt: skip
    for row in page["failed"]:
        click.echo(f"  FAILED: {row}")
    for remark in page["remarks"]:
        click.echo(f"  look: {remark}")
    click.echo(page["part"] + (f"  {page['beams']}" if "beams" in page else ""))
