"""template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from implantforge.cli import OK, put_json


@click.command("template")
@click.argument("what", metavar="RECIPE|RUN")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="X.step", help="file to write")
@click.option("--size", metavar="N", help="size of the family  [default: its middle one]")
@click.option("--side", type=click.Choice(("left", "right")), default="left", show_default=True, help="of a size")
@click.option(
    "--set", "settings", multiple=True, metavar="params.KEY=VALUE", help="change a parameter; may be repeated"
)
@click.option("--part", default="", metavar="NAME", help="of a run of several parts: which one")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def template_(
    what: str, out: Path, size: str | None, side: Any, settings: tuple[str, ...], part: str, as_json: bool
) -> int:
    """The solid outer shape as STEP, mm: a size of RECIPE's implant in its own axes, or a planned RUN's part in patient LPS.

    Bores, tapers and joint faces with their machining stock, as printed; no lattice. Needs the optional extra cad.
    """
    from implantforge.pipeline import drawing

    run = (Path(what) / "fit.json").is_file()
    named = [*settings, *([f"params.size={size}"] if size else [])]
    drawn = drawing.of_run(Path(what), out, part) if run else drawing.of_size(what, out, settings=named, side=side)
    page = {**vars(drawn), "path": str(drawn.path)}
    if as_json:
        put_json(page)
        return OK
    click.echo(f"{drawn.implant} size {drawn.size} {drawn.side}: {drawn.faces} faces, {drawn.frame}: {drawn.path}")
    return OK
