"""The files of a Run folder and what its manifest says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from implantforge import __version__
from implantforge.core import Anatomy, Check, Fit, Mesh, Volume
from implantforge.geom import render
from implantforge.implants import Params, parameters
from implantforge.pipeline import assembly, cache, steps
from implantforge.pipeline.assembly import Metal
from implantforge.pipeline.cache import Result
from implantforge.pipeline.recipe import Recipe
from implantforge.pipeline.run import Run, json_text
from implantforge.stages import export, labels, meshfile, printability

FIXED_DATE = "1980-01-01"
CT_MARGIN_MM = 40.0
ReportWriter = Callable[[Path, Mapping[str, Any]], None]


@dataclass
class Made:
    """Everything a build has made, unread until a file needs it. given is the label map that replaced our own; metals are
    the parts (none after a plan), whole the checks of several together; landmarks is the sha256 of a person's landmarks."""

    source: steps.Source
    scan: Result
    case: steps.CaseResults
    fit: Result
    skins: dict[str, Result]
    artefacts: Result
    given: Result | None = None
    landmarks: str | None = None
    metals: list[Metal] = field(default_factory=list)
    whole: Result | None = None


def write(run: Run, recipe: Recipe, made: Made) -> dict[str, Any]:
    """Writes every file but the report and the manifest; returns the manifest's own part."""
    run.write_text("recipe.toml", recipe.toml())
    case, fit = made.case, made.fit.value
    run.write("labels.seg.nrrd", case.labels.key, lambda path: labels.write(case.labels.value, path))
    for name, bone in case.bones.items():
        run.write(f"bones/{name}.stl", bone.key, _stl_writer(bone))
        run.write(f"bones/{name}.ply", made.skins[name].key, _ply_writer(made.skins[name]))
    anatomy = {name: found.value for name, found in case.anatomy.items()}
    run.write_json("anatomy.json", {name: anatomy_json(found) for name, found in anatomy.items()})
    marks = {f"{name}.{key}": mark for name, found in anatomy.items() for key, mark in found.landmarks.items()}
    run.write("landmarks.mrk.json", cache.digest(*(found.key for found in case.anatomy.values())),
              lambda path: export.write_markups(path, marks))  # fmt: skip
    run.write_json("fit.json", fit_json(fit, case.side))
    manifest = _manifest(recipe, made, fit)
    if made.metals:
        _write_parts(run, recipe, made, manifest)
    return manifest


def _stl_writer(mesh: Result) -> Callable[[Path], None]:
    return lambda path: export.write_stl(path, mesh.value)


def _ply_writer(skin: Result) -> Callable[[Path], None]:
    return lambda path: meshfile.write_mesh(path, skin["mesh"].value, skin["sigma_mm"].value)


def _write_parts(run: Run, recipe: Recipe, made: Made, manifest: dict[str, Any]) -> None:
    metals, volume = made.metals, made.case.volume
    mesh, shape = assembly.joined(metals), assembly.joined(metals, "envelope")
    run.write("ct.nrrd", cache.digest(volume.key, shape.key), lambda path: _write_ct(path, volume.value, shape.value))
    run.write("part.stl", mesh.key, _stl_writer(mesh))
    for metal in metals if len(metals) > 1 else ():
        run.write(f"parts/{metal.name}.stl", metal.mesh.key, _stl_writer(metal.mesh))
    notes = metadata_3mf(recipe, made.case.side)
    extra = {"Machine": recipe.build.machine, "DesignHash": mesh.key[:64], "Side": made.case.side}
    extra["Datums"] = datums([row for metal in metals for row in metal.envelope["machined"].value])

    def write_3mf(path: Path) -> None:
        layers = [(mesh.value, (0.72, 0.73, 0.76), 1.0, None)]
        picture = export.png(render.render(layers, "iso", 256, side=made.case.side))
        export.write_bodies(path, assembly.on_plate(metals), notes, material=recipe.build.material,
                            thumbnail_png=picture, extra=extra)  # fmt: skip

    ways = [metal.orientation.key for metal in metals]
    run.write("part.3mf", cache.digest(mesh.key, *ways, notes, extra, recipe.build.material), write_3mf)
    pages = {metal.name: _part_json(metal, recipe) for metal in metals}
    first = pages[metals[0].name]
    manifest["part"], manifest["porous"] = first["part"], first["porous"]
    manifest["machined"] = [
        {**row, "part": name} if name else row for name, page in pages.items() for row in page["machined"]
    ]
    if len(metals) > 1:
        manifest["parts"] = pages


def _part_json(metal: Metal, recipe: Recipe) -> dict[str, Any]:
    return {
        "part": {
            "build_direction": metal.orientation["direction"].value,
            "frame": "LPS mm",
            "orientation": metal.orientation["numbers"].value,
            "design_hash": metal.mesh.key[:64],
            "material": recipe.build.material,
            "machine": recipe.build.machine,
        },
        "machined": metal.envelope["machined"].value,
        "porous": metal.part["certificate"].value.get("porous", {}),
    }


def datums(rows: Sequence[Mapping[str, Any]]) -> str:
    """The machined faces and cut planes as the 3MF carries them: the rows of manifest.json's `machined`, as one line of
    JSON, in the coordinates of the 3MF's own mesh (patient LPS mm, before its build item turns it)."""
    return " ".join(json_text(list(rows)).split())


def write_report(run: Run, manifest: Mapping[str, Any], report: ReportWriter) -> None:
    """report.html, written again only when one of the files it reads has changed."""
    page = {**manifest, "stages": [], "files": run.files}
    text = json_text(page)
    run.write_in_place("report.html", text, lambda: report(run.folder, json.loads(text)))


def _manifest(recipe: Recipe, made: Made, fit: Fit) -> dict[str, Any]:
    checks = assembly.checks(made.metals, made.whole.value if made.whole else ())
    metrics = assembly.metrics(made.metals, fit.metrics) if made.metals else dict(fit.metrics)
    failed = [row.name for row in checks if not row.passed and row.severity == "fail"]
    report = made.scan["report"].value
    return {
        "implantforge": __version__,
        "implant": recipe.implant.name,
        "side": made.case.side,
        "status": "planned" if not made.metals else "check_failed" if failed else "ok",
        "ct": {
            "series_uid_hash": report.get("uid_hash", ""),
            **{name: report.get(name) for name in ("shape", "spacing_mm", "verdict", "reasons", "accepted_because")},
        },
        "metrics": {name: value for name, value in metrics.items() if isinstance(value, (int, float, str))},
        "checks": [check_json(row) for row in checks],
        "bones": {name: skin["about"].value for name, skin in made.skins.items()},
        "artefacts": made.artefacts.value,
        "inputs": [
            {"path": made.source.name, "sha256": made.source.sha256},
            *([{"path": "labels", "sha256": made.given.key}] if made.given else []),
            *([{"path": "landmarks", "sha256": made.landmarks}] if made.landmarks else []),
        ],
        "assumptions": assumptions(recipe),
        **({"landmarks_by_hand": _by_hand(made)} if made.landmarks else {}),
    }


def _by_hand(made: Made) -> list[str]:
    """Landmarks that a person gave, as `bone.landmark`."""
    return [f"{name}.{mark.name}" for name, found in made.case.anatomy.items()
            for mark in found.value.landmarks.values() if mark.method == "corrected by hand"]  # fmt: skip


def check_json(row: Check) -> dict[str, Any]:
    """A check as the manifest holds it."""
    page: dict[str, Any] = {
        "name": row.name, "value": row.value, "unit": row.unit, "limit": row.limit, "sense": row.sense,
        "passed": row.passed, "severity": row.severity, "source": row.source,
    }  # fmt: skip
    if row.at_mm is not None:
        page["at_mm"] = row.at_mm
    if row.assumptions:
        page["assumptions"] = row.assumptions
    return page


def assumptions(recipe: Recipe) -> list[dict[str, Any]]:
    """Every value of the recipe and of the tables behind it that was not measured on the patient."""
    rows = []
    for section in ("params", "lattice", "mesh", "build"):
        model: Params = getattr(recipe, section)
        for row in parameters(type(model)):
            value = row.of_model(model)
            if value is not None and row.name != "report":
                rows.append({"name": f"{section}.{row.name}", "value": value, "unit": row.unit, "tag": row.tag,
                             "source": row.source or row.doc})  # fmt: skip
    metal, rules = printability.material(recipe.build.material), printability.machine(recipe.build.machine).rules
    for name, value, unit, tag, source in (
        ("density", metal.density_g_cm3, "g/cm3", "R", metal.source),
        ("powder_loss", metal.powder_loss, "", "P", "share of melted metal lost as spatter and condensate, 0.01-0.05"),
        ("min_wall", rules.min_wall_mm, "mm", "R", rules.source),
        ("self_supporting_angle", rules.self_supporting_deg, "deg", "R", rules.source),
    ):
        rows.append({"name": name, "value": value, "unit": unit, "tag": tag, "source": source})
    return rows


def metadata_3mf(recipe: Recipe, side: str) -> dict[str, str]:
    """The nine standard names. The date is the recipe's, or SOURCE_DATE_EPOCH's, or 1980-01-01: never the clock's."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    stamp = str(np.datetime64(int(epoch), "s").astype("datetime64[D]")) if epoch.isdigit() else FIXED_DATE
    day = recipe.case.date or stamp
    return {
        "Title": f"{recipe.implant.name} {side}",
        "Designer": "ImplantForge",
        "Description": f"{recipe.implant.summary.rstrip('.')}. Patient LPS mm; the build item stands it on the plate.",
        "Copyright": "property of the ordering clinic",
        "LicenseTerms": "for this patient only",
        "Rating": "not rated",
        "CreationDate": day,
        "ModificationDate": day,
        "Application": f"ImplantForge {__version__}",
    }


def fit_json(fit: Fit, side: str) -> dict[str, Any]:
    """fit.json: scalars under metrics, everything else that the plan measured (gap_samples) beside them."""
    numbers = {name: value for name, value in fit.metrics.items() if isinstance(value, (int, float, str, np.generic))}
    samples = assembly.gap_samples([fit.params, *(one.params for one in fit.parts.values())])
    return {
        "implant": fit.implant,
        "side": side,
        "params": {name: value for name, value in fit.params.items() if name != "gap_samples"},
        "pose": {"rotation": fit.pose.rotation, "origin_mm": fit.pose.origin_mm},
        "metrics": numbers,
        "alternatives": fit.alternatives,
        "reason": fit.reason,
        **{name: value for name, value in fit.metrics.items() if name not in numbers},
        **({"gap_samples": samples} if samples else {}),
        **({"parts": {name: fit_json(one, side) for name, one in fit.parts.items()}} if fit.parts else {}),
    }


def anatomy_json(found: Anatomy) -> dict[str, Any]:
    """One bone of anatomy.json and of `landmarks --json`."""
    return {
        "landmarks": {
            name: {"at_mm": mark.at_mm, "sigma_mm": mark.sigma_mm, "method": mark.method}
            for name, mark in found.landmarks.items()
        },
        "frames": {
            name: {"origin_mm": pose.origin_mm, "rotation": pose.rotation} for name, pose in found.frames.items()
        },
        "measures": dict(found.measures),
        "curves": dict(found.curves),
        "refused": dict(found.refused),
    }


def _write_ct(path: Path, volume: Volume, around: Mesh) -> None:
    start, stop = steps.index_box(volume, around.vertices, CT_MARGIN_MM)
    labels.write_volume(volume.crop(start, stop), path)
