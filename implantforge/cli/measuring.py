"""landmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from implantforge.cli import OK, put_json
from implantforge.cli.reading import read_mesh
from implantforge.core.errors import InputError

LEGEND = """\
+-: one sigma. Of a landmark: of finding it; definition: what raters disagree on besides. Of a measure: both, carried
into it. A frame: its origin in mm, then its axes x, y and z, in LPS; x of a shaft points medially, so that its y points
forward on a left bone, backward on a right one. hka above 180: valgus; pelvic tilt above 0: spines behind the tubercles;
epicondylar to condylar above 0: turned outward. Inclination and anteversion without a word: radiographic (Murray 1993)."""


@click.command("landmarks")
@click.argument("meshes", nargs=-1, required=True, metavar="NAME=MESH...")
@click.option("--out", type=click.Path(path_type=Path), metavar="X.mrk.json", help="Slicer markups, or plain .json")
@click.option("--landmarks", "given", type=click.Path(path_type=Path), metavar="X.mrk.json",
              help="corrected markups: they replace the program's, marked as corrected by hand")  # fmt: skip
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="X.png", help="bones with landmarks, axes and angles"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def landmarks_(
    meshes: tuple[str, ...], out: Path | None, given: Path | None, picture: Path | None, as_json: bool
) -> int:
    """Landmarks (mm), frames and measures (mm, deg) of bone meshes, e.g. femur_left=f.stl hip_left=h.stl.

    STL, PLY or OBJ in mm, LPS unless the file itself says SPACE=RAS; any pose. NAME: femur, hip or tibia with _left or
    _right, pelvis (both hips in one mesh), or skull. Bone, side and way up are read from the shape: what contradicts
    NAME is refused, and so is what the bones do not show. Each landmark has its sigma_mm and definition_mm (raters'
    scatter), each measure its sigma; flags say what is odd about a mesh: size, pieces left out, inside out, holes.
    A skull's Frankfort plane needs skull.porion_left, skull.porion_right and skull.orbitale_left in --landmarks.
    """
    from implantforge.pipeline import outputs
    from implantforge.pipeline.run import json_text
    from implantforge.stages import anatomy, export
    from implantforge.stages.anatomy import corrected, lines, scatter

    _targets(out, picture)
    bones = _meshes(meshes, anatomy.KNOWN)
    by_hand = corrected.read_markups(given) if given is not None else {}
    found = anatomy.examine_all(bones, by_hand)
    if given is not None:
        _say_corrected(given, len(by_hand), corrected.of(found))
    legs, sigmas = lines.legs(found), scatter.of_measures(found)
    pages = {name: outputs.anatomy_json(page) | {"flags": anatomy.flags(page)} for name, page in found.items()}
    for name, page in found.items():
        for key, mark in page.landmarks.items():
            pages[name]["landmarks"][key]["definition_mm"] = scatter.definition_mm(mark)
    for name, measures in legs.items():
        pages[name] = {"landmarks": {}, "frames": {}, "measures": measures, "refused": {}}
    for name, page_ in pages.items():
        page_["sigmas"] = {
            key: sigmas.get(name, {}).get(key) for key in page_["measures"] if key in sigmas.get(name, {})
        }
    if out is not None and out.name.endswith(".mrk.json"):
        export.write_markups(out, {f"{name}.{key}": mark for name, page in found.items()
                                   for key, mark in page.landmarks.items()})  # fmt: skip
    elif out is not None:
        out.write_text(json_text(pages), encoding="utf-8")
    if picture is not None:
        picture.write_bytes(_picture(bones, found, legs, sigmas))
    if as_json:
        put_json(pages)
        return OK
    for name, page_ in pages.items():
        _tell(name, page_)
    click.echo(LEGEND)
    return OK


def _picture(bones: dict[str, Any], found: dict[str, Any], legs: dict[str, Any], sigmas: dict[str, Any],
             height: int = 1100) -> bytes:  # fmt: skip
    """The bones as in a standing body, whichever way they lie in their files."""
    import numpy as np

    from implantforge.core import Pose
    from implantforge.report import bones as pictures
    from implantforge.stages import anatomy
    from implantforge.stages.anatomy import stance

    turn, angle = stance.upright(found)
    said = [f"{name}: {text}" for name, page in found.items() for text in anatomy.flags(page)]
    if angle:
        said.insert(0, f"Drawn upright: turned by {angle:.0f} deg from how the file has it.")
    elif set(found) == {"skull"}:
        said.insert(0, "Drawn as it lies in the file: front and up are not told from a skull.")
    else:
        said.insert(0, "Drawn as it lies in the file.")
    upright = Pose(turn, np.zeros(3))
    meshes = {name: mesh.moved(upright) if angle else mesh for name, mesh in bones.items()}
    pages = {name: stance.turned(page, turn) if angle else page for name, page in found.items()}
    return pictures.measured(meshes, pages, height, legs, sigmas, tuple(said))


def _say_corrected(path: Path, many: int, hand: list[str]) -> None:
    """Which landmarks a person's file replaced, or that it replaced none."""
    if hand:
        click.echo(f"corrected by hand: {', '.join(hand)} ({len(hand)} of {many} in {path.name})", err=True)
    else:
        click.echo(f"0 of {many} landmarks in {path.name} differ from ours: nothing is corrected", err=True)


def _targets(out: Path | None, picture: Path | None) -> None:
    """InputError for what could not be written in the end."""
    for path, kinds in ((out, (".mrk.json", ".json")), (picture, (".png",))):
        if path is not None and not path.name.lower().endswith(kinds):
            raise InputError(f"landmarks: {path.name}: give a file name ending in {' or '.join(kinds)}")
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"landmarks: the folder {path.parent} does not exist; make it first")


def _meshes(words: tuple[str, ...], known: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals:
            raise InputError(f"landmarks: {word} must look like femur_left=f.stl")
        if name not in known:
            raise InputError(f"landmarks: {name} cannot be measured (can: {', '.join(known)})")
        if name in out:
            raise InputError(f"landmarks: {name} is given twice")
        out[name] = read_mesh(Path(file))
    return out


def _tell(name: str, page: dict[str, Any]) -> None:
    click.echo(name)
    for text in page.get("flags", ()):
        click.echo(f"  flag: {text}")
    for key, mark in page["landmarks"].items():
        x, y, z = mark["at_mm"]
        more = f", definition +-{mark['definition_mm']:.1f}" if mark["definition_mm"] else ""
        hand = "  corrected by hand" if "by hand" in mark["method"] else ""
        hand += "  guessed, not seen" if "guess" in mark["method"] else ""
        click.echo(f"  {key:<28} {x:9.2f} {y:9.2f} {z:9.2f} mm  +-{mark['sigma_mm']:.2f}{more}{hand}")
    for key, value in page["measures"].items():
        sure = f"  +-{page['sigmas'][key]:.2f}" if key in page["sigmas"] else ""
        click.echo(f"  {key:<36} {value:9.2f}{sure}")
    for key, frame in page["frames"].items():
        at = " ".join(f"{value:9.2f}" for value in frame["origin_mm"])
        axes = "  ".join(
            f"{word} " + " ".join(f"{row[k]:6.3f}" for row in frame["rotation"]) for k, word in enumerate("xyz")
        )
        click.echo(f"  {key:<28} {at} mm  {axes}")
    for key, reason in page["refused"].items():
        click.echo(f"  {key:<28} refused: {reason}")
