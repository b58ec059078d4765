"""list, show."""

from __future__ import annotations

import re
from typing import Any

import click

from implantforge.cli import OK, put_json

TAGS = (
    "Tags: R read in the source named; M a named standard or paper, to be checked against the document; P a judgement of "
    "this project."
)
KINDS = ("implants", "lattices", "checks", "machines", "materials", "recipes")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def list_(kind: str | None, as_json: bool) -> int:
    """What there is: implants, lattices, checks, machines, materials or recipes (default: all of them)."""
    found = {one: _rows(one) for one in KINDS if kind in (None, one)}
    if as_json:
        put_json(found)
        return OK
    for one, rows in found.items():
        click.echo(one)
        for name, text in rows.items():
            click.echo(f"  {name:<26} {text}")
    return OK


def _rows(kind: str) -> dict[str, str]:
    """Name and one line of text of everything of one kind."""
    from implantforge import implants
    from implantforge.pipeline import resources
    from implantforge.stages import lattice, printability

    if kind == "implants":
        return {name: implant.summary for name, implant in implants.registry().items()}
    if kind == "lattices":
        return lattice.describe()
    if kind == "machines":
        return {name: f"{row.process}, {' x '.join(f'{mm:g}' for mm in row.plate_mm)} x {row.height_mm:g} mm, layer "
                      f"{row.layer_um:g} um" for name, row in printability.MACHINES.items()}  # fmt: skip
    if kind == "materials":
        return {name: f"{row.density_g_cm3:g} g/cm3; {row.source}" for name, row in printability.MATERIALS.items()}
    if kind == "recipes":
        first = {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
                 for name, path in resources.recipes().items()}  # fmt: skip
        return {name: re.split(r"[.;]? (?:Values not|Other values)", line)[0] for name, line in first.items()}
    return {row.name: f"{row.sense} {row.limit:g} {row.unit}; {row.source}" for row in printability.example_checks()}


@click.command("show")
@click.argument("implant")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def show_(implant: str, as_json: bool) -> int:
    """Every parameter of IMPLANT and of the other sections of its recipe: default, range, unit, meaning, source."""
    from implantforge import implants
    from implantforge.geom import bonenames
    from implantforge.pipeline.recipe import SECTIONS

    found = implants.get(implant)
    models: dict[str, Any] = {"params": found.Params, **SECTIONS}
    rows = [{"key": f"{section}.{row.name}", **vars(row)} for section, model in models.items()
            for row in implants.parameters(model)]  # fmt: skip
    if as_json:
        put_json({"implant": found.name, "summary": found.summary, "region": found.region, "needs": found.needs,
                  "parameters": rows})  # fmt: skip
        return OK
    click.echo(
        f"{found.name}: {found.summary}\nneeds {bonenames.spoken(found.bones('left'))}, or the same of the right side\n"
    )
    for row in rows:
        span = f"{row['lo']:g}..{row['hi']:g}" if row["lo"] is not None else "|".join(map(str, row["choices"]))
        if len(span) > 60:
            span = f"see `implantforge list {row['name']}s`"
        default = "none" if row["default"] is None else row["default"] if row["default"] != "" else '""'
        click.echo(f"{row['key']:<30} {default} {row['unit']}".rstrip() + (f"  [{span}]" if span else ""))
        click.echo(f"    {row['doc']}" + (f" ({row['tag']}: {row['source']})" if row["source"] else f" ({row['tag']})"))
    click.echo(f"\n{TAGS}")
    return OK
