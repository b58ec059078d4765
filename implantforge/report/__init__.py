"""The report of a run: one HTML file that needs no network, no script and no OpenGL to read."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import GeometryError, Mesh
from implantforge.pipeline.runfolder import RunFolder

__all__ = ["thumbnail", "write"]

ON_FACE = 0.8 / 3
"""A gap map reaches three steps; on cut faces, less than one."""


def write(run: Path, manifest: dict[str, Any] | None = None) -> Path:
    """Write RUN/report.html and return its path; the same run gives the same bytes.

    Reads the Run folder only. manifest replaces RUN/manifest.json (a report is written before the manifest closes a
    run). What is missing is said in its section; InputError only when the folder does not exist.
    """
    import jinja2

    folder = RunFolder(Path(run), manifest)
    here = package_files("implantforge.report")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.Undefined)
    template = page.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    text = template.render(css=(here / "style.css").read_text(encoding="utf-8"), **_content(folder))
    target = folder.path / "report.html"
    draft = target.with_suffix(".html.part")
    draft.write_text(text, encoding="utf-8", newline="\n")
    os.replace(draft, target)
    return target


def thumbnail(mesh: Mesh, size: int = 384) -> bytes:
    """PNG bytes (size x size, RGB) of a part on white, for the 3MF package."""
    from PIL import Image

    from implantforge.geom.render import camera, render
    from implantforge.report import canvas, pictures

    if not len(mesh.faces):
        raise GeometryError("thumbnail: the mesh has no face")
    small = pictures.for_pictures(mesh, float(np.ptp(mesh.vertices, axis=0).max()) / size / 1.5)
    image = render([(small, pictures.TITANIUM, 1.0, None)], camera([small], "iso", size), occlusion_mm=8)
    return canvas.png(Image.fromarray(image), None)


def _content(run: RunFolder) -> dict[str, Any]:
    """Everything the page prints, by name."""
    from implantforge.report import cuts, tables, words

    side = str(run.manifest.get("side") or run.fit.get("side") or "")
    implant = str(run.manifest.get("implant") or run.fit.get("implant") or "implant")
    rows = tables.checks(run)
    pictures = _pictures(run, side or None)
    heads, alternatives = tables.alternatives(run)
    ct = run.manifest.get("ct") or {}
    name = f"{words.label(implant)}{', ' + side if side else ''}"
    return {
        "title": name,
        "title_uk": ", ".join(filter(None, (words.ukrainian(implant), words.ukrainian(side)))),
        "verdict": tables.verdict(run, rows),
        "summary": tables.summary(run),
        "reason": str(run.fit.get("reason") or ""),
        "pictures": pictures,
        "cuts": cuts.table(run.fit),
        "checks": rows,
        "alt_heads": heads,
        "alternatives": alternatives,
        "metrics": tables.metric_rows(run),
        "waste": tables.waste(run),
        "anatomy": tables.anatomy(run),
        "ct": {
            "verdict": ct.get("verdict"),
            "reasons": list(ct.get("reasons") or ()),
            "shape": " × ".join(map(str, ct.get("shape") or ())),
            "spacing": " × ".join(f"{s:g}" for s in ct.get("spacing_mm") or ()),
            "hash": ct.get("series_uid_hash"),
            "because": ct.get("accepted_because"),
        },
        "surfaces": tables.surfaces(run),
        "assumptions": tables.assumptions(run),
        "machined": tables.machined(run),
        "walls": tables.walls(run),
        "files": tables.files(run),
        "inputs": tables.inputs(run),
        "versions": tables.versions(run),
        "porous": _porous(run),
        "missing": dict(run.missing),
        "build": [(name, (page.get("part") or {}).get("build_direction")) for name, page in _parts(run)],
        "number": words.number,
    }


def _parts(run: RunFolder) -> list[tuple[str, dict[str, Any]]]:
    """Each part's name ('' when there is one) and its page of the manifest."""
    return list((run.manifest.get("parts") or {"": run.manifest}).items())


def _porous(run: RunFolder) -> list[dict[str, Any]]:
    """The certificate of each part's porous structure."""
    from implantforge.report import porous, words

    return [{"title": words.label(name), **porous.content(page.get("porous"))} for name, page in _parts(run)]


def _pictures(run: RunFolder, side: str | None) -> dict[str, Any]:
    """Lists of pictures by section; an empty list where the pieces are missing, the reason under 'why'."""
    from implantforge.report import charts, cuts, pictures, slices, tables

    part, bones, gaps = run.part, run.bones, run.gaps
    frame = cuts.axes(run.fit) if cuts.planned(run.fit) else None
    rotation, views = None if frame is None else frame[0], None
    if rotation is not None:
        views = (lambda by: (by["front"], by["outer"]))(cuts.views(rotation, side))
        # samples stand on flat faces: what lies deeper under one is not its gap
        gaps = replace(gaps, reach_mm=ON_FACE * gaps.reach_mm) if gaps is not None else None
    out: dict[str, Any] = {
        "cuts": [],
        "in_bone": [],
        "alone": [],
        "heat": [],
        "planes": [],
        "axial": [],
        "sigma": [],
        "histogram": "",
        "why": {},
    }
    why = out["why"]
    if part is not None and not len(part.faces):
        run.missing["part.stl"], part = "part.stl holds no triangle", None
    if part is None:
        why["part"] = run.missing.get("part.stl", "part.stl is not in this run")
    try:
        if part is not None:
            px_mm = float(np.ptp(part.vertices, axis=0).max()) / 620
            light = pictures.for_pictures(part, px_mm)
            out["in_bone"] = pictures.in_bone(light, bones, side, views) if bones else []
            out["alone"] = pictures.alone(light, side, views)
            close = pictures.close_up(part, side)
            out["alone"] += [close] if close else []
            if gaps is not None:
                out["heat"] = [pictures.heat_map(light, gaps, side, tables.gap_limit(run), rotation)]
        elif bones:
            out["in_bone"] = pictures.bones_only(bones, None, side)
        if run.uncertain:
            out["sigma"] = pictures.uncertainty(run.uncertain, side)
    except GeometryError as error:
        why["render"] = str(error)
    if gaps is not None:
        out["histogram"] = charts.gap_histogram(gaps.gap_mm, tables.gap_limit(run))
    else:
        why["gap"] = run.missing.get("fit.json", "fit.json holds no gap samples")
    ct = run.ct
    if part is not None and ct is not None:
        levels = slices.levels(part)
        out["planes"] = slices.planes(ct, part, light, bones, levels)
        out["axial"] = slices.axial(ct, part, bones, levels)
        out["cuts"] = cuts.pictures(run.fit, ct, part, bones, side)
    elif ct is None:
        why["ct"] = run.missing.get("ct.nrrd", "ct.nrrd is not in this run")
    return out
