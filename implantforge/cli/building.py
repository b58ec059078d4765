"""build, plan, demo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from implantforge.cli import CHECK_FAILED, OK, put_json


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    rows = (
        click.option("--ct", type=click.Path(path_type=Path), metavar="CT",
                     help="DICOM folder or zip, enhanced DICOM, NIfTI or NRRD  [default: the recipe's sample]"),
        click.option("--out", type=click.Path(path_type=Path), metavar="RUN", help="run folder  [default: run_RECIPE]"),
        click.option("--side", metavar="SIDE", help="treated side: left, right or auto  [default: the recipe's]"),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
                     help="change a value of the recipe, e.g. lattice.cell_mm=1.2 (mm); may be repeated"),
        click.option("--labels", type=click.Path(path_type=Path), metavar="LABELS",
                     help="label map in place of our own: NIfTI, NRRD, 3D Slicer or DICOM SEG"),
        click.option("--landmarks", type=click.Path(path_type=Path), metavar="X.mrk.json",
                     help="corrected landmarks (mm): they replace our own, marked as corrected by hand"),
        click.option("--series", metavar="INDEX|HASH", help="series of the CT, as inspect names it  [default: best]"),
        click.option("--accept", metavar="REASON", help="use a refused series all the same, for this reason"),
        click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout: the manifest"),
        click.option("--quiet", "-q", is_flag=True, help="no progress"),
    )  # fmt: skip
    for row in reversed(rows):
        function = row(function)
    return function


@click.command("build")
@click.argument("recipe")
@_options
def build_(recipe: str, as_json: bool, **options: Any) -> int:
    """Build RECIPE, a TOML file or the bare name of one in pipelines/, into a run folder.

    Writes part.stl, part.3mf, bones, fit, checks and report.html. Lengths in mm, patient LPS. Exit 3: a check failed.
    """
    manifest, folder = _build(recipe, "part", **options)
    if as_json:
        put_json({"run": str(folder), **manifest})
    else:
        _summary(manifest, folder)
    return CHECK_FAILED if manifest["status"] == "check_failed" else OK


@click.command("plan")
@click.argument("recipe")
@_options
def plan_(recipe: str, as_json: bool, **options: Any) -> int:
    """Build RECIPE up to the fit: size, pose and ranked alternatives, in fit.json. Lengths in mm, patient LPS."""
    import json

    from implantforge.implants import odds

    manifest, folder = _build(recipe, "plan", **options)
    fit = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    if as_json:
        put_json({"run": str(folder), **manifest, "fit": {k: v for k, v in fit.items() if k != "gap_samples"}})
        return OK
    click.echo(f"{manifest['implant']} {manifest['side']}: {fit['reason']}")
    sized = [f"Size {fit['params']['size']}{odds(fit['metrics'])}."] if "size" in fit["params"] else []
    for line in fit["params"].get("told") or sized:
        click.echo(f"  {line}")
    for reason in manifest["ct"]["reasons"] if manifest["ct"]["verdict"] != "accepted" else ():
        click.echo(f"  CT {manifest['ct']['verdict']}: {reason}")
    click.echo("Alternatives, the best first (checks are made by build):")
    for number, row in enumerate(fit["alternatives"], 1):
        click.echo(
            f"{number:3d}. " + "  ".join(f"{key} {_short(value)}" for key, value in row.items() if key != "rank")
        )
    click.echo(f"{folder}/fit.json")
    return OK


@click.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("implantforge_demo"), show_default=True, metavar="RUN"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout: the manifest")
@click.option("--quiet", "-q", is_flag=True, help="no progress")
def demo_(out: Path, as_json: bool, quiet: bool) -> int:
    """Build the hip stem on the sample patient and say where to look."""
    manifest, folder = _build("hip_stem", "part", None, out, None, (), None, None, None, None, quiet)
    if as_json:
        put_json({"run": str(folder), **manifest})
    else:
        _summary(manifest, folder)
        click.echo(f"Look at {folder}/report.html, or run: implantforge view {folder}")
    return CHECK_FAILED if manifest["status"] == "check_failed" else OK


def _build(
    name: str,
    upto: Literal["plan", "part"],
    ct: Path | None,
    out: Path | None,
    side: str | None,
    settings: tuple[str, ...],
    labels: Path | None,
    landmarks: Path | None,
    series: str | None,
    accept: str | None,
    quiet: bool,
) -> tuple[dict[str, Any], Path]:
    from implantforge.pipeline import recipe as recipes

    wanted = recipes.load(name, settings, side)
    folder = out if out is not None else Path(f"{'plan' if upto == 'plan' else 'run'}_{wanted.name}")
    from implantforge.cli.progress import Progress
    from implantforge.pipeline.build import build

    with Progress(quiet) as progress:
        manifest = build(wanted, folder, ct, labels=labels, landmarks=landmarks, series=series, accept=accept, upto=upto,
                         report=_report, on_stage=progress)  # fmt: skip
    return manifest, folder


def _report(folder: Path, manifest: Mapping[str, Any]) -> None:
    from implantforge import report

    report.write(folder, dict(manifest))


def _summary(manifest: Mapping[str, Any], folder: Path) -> None:
    """A few lines for a person."""
    metrics = manifest["metrics"]
    click.echo(f"{manifest['implant']} {manifest['side']}: {manifest['status'].replace('_', ' ')}")
    for name in ("size", "part_mass_g", "mass_saving_pct", "lattice_porosity_pct", "lattice_pore_size_um",
                 "fit_gap_mean_mm", "contact_pct", "build_time_h"):  # fmt: skip
        if name in metrics:
            click.echo(f"  {name:<22} {_short(metrics[name])}")
    wrong = [row for row in manifest["checks"] if not row["passed"]]
    click.echo(f"  {len(manifest['checks'])} checks, {len(wrong)} to look at")
    for row in wrong:
        kind = "FAILED" if row["severity"] == "fail" else "flag"
        click.echo(f"  {kind}: {row['name']} {_short(row['value'])} {row['unit']}, "
                   f"limit {row['sense']} {_short(row['limit'])}: {row['source']}")  # fmt: skip
    click.echo(f"{folder}/part.3mf  {folder}/part.stl  {folder}/report.html")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
