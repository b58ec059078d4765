"""The whole way from CT to part, one straight line of calls. Read this file first.

Each call is remembered on disk by what it was made from (cache.py); a result is read only when something needs it. All
computing is done before the first file of the run is touched (outputs.py), and the manifest comes last (run.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from implantforge.core import InputError
from implantforge.implants import Member, System
from implantforge.pipeline import outputs, privacy, steps
from implantforge.pipeline.assembly import Metal
from implantforge.pipeline.cache import Cache, Result, Stage
from implantforge.pipeline.outputs import Made, ReportWriter
from implantforge.pipeline.recipe import Recipe
from implantforge.pipeline.run import Run
from implantforge.stages.anatomy import KNOWN as MEASURED

OnStage = Callable[[str, Stage | None], None]


def build(
    recipe: Recipe,
    out: Path,
    ct: Path | None = None,
    *,
    labels: Path | None = None,
    series: str | None = None,
    accept: str | None = None,
    landmarks: Path | None = None,
    upto: Literal["plan", "part"] = "part",
    report: ReportWriter | None = None,
    on_stage: OnStage = lambda name, stage: None,
) -> dict[str, Any]:
    """Builds a recipe into a Run folder and returns its manifest.

    ct is anything stages.dicom reads; without it the recipe's sample patient is used. labels is a label map to use in
    place of our own. series and accept choose a series and accept a refused one with a person's reason. landmarks is
    a Slicer point list whose points replace ours. report(folder, manifest) writes report.html from the files already
    there. Raises InputError, AnatomyError, FitError or GeometryError; a failed check is `status: check_failed`.
    """
    if upto == "plan" and (out / "part.stl").exists():
        raise InputError(f"plan: {out} holds a built part; a plan would replace it, so give another --out")
    recipe = replace(recipe, params=recipe.implant.resolve(recipe.params))
    source = steps.source(recipe, ct)
    with Run(out, on_stage) as run:
        made = plan(run.cache, recipe, source, labels, series, accept, landmarks)
        if upto == "part":
            part(run.cache, recipe, made)
        with run.stage("export"):
            manifest = outputs.write(run, recipe, made)
        if report is not None and recipe.build.report and upto == "part":
            with run.stage("report"):
                outputs.write_report(run, manifest, report)
        if run.changed:
            privacy.assert_clean(run.folder, made.source.tokens())
        return run.close(manifest)


def plan(
    cache: Cache, recipe: Recipe, source: steps.Source, given: Path | None, series: str | None, accept: str | None,
    landmarks: Path | None = None,
) -> Made:  # fmt: skip
    """CT to fit: which size, where."""
    scan = cache.call("load", steps.load, source.result, series=series, accept=accept)
    volume = scan["volume"]
    file = None if given is None else steps.label_file(given)
    if file is None:
        found = cache.call("segment", steps.bones, volume)
    else:
        found = cache.call("labels", steps.given_bones, file, volume)
    rough = found["labels"]
    side = steps.side(recipe, found["names"].value, scan["laterality"].value)
    names = (*recipe.implant.bones(side), *(n for n in recipe.implant.helpful(side) if n in found["names"].value))
    skins = {name: cache.call(f"surface {name}", steps.skin, volume, rough, name=name) for name in names}
    bones = {name: skin["mesh"] for name, skin in skins.items()}
    refined = cache.call("label", steps.relabel, rough, volume, *bones.values(), names=names)
    labels = refined["labels"]
    measured = [name for name in names if name in MEASURED]
    by_hand = {} if landmarks is None else steps.landmark_file(landmarks, measured)
    anatomy = {name: cache.call(f"anatomy {name}", steps.anatomy, bones[name], volume, name=name,
                                **({"corrections": by_hand[name]} if by_hand else {}))
               for name in measured}  # fmt: skip
    case = steps.CaseResults(side, volume, labels, bones, anatomy)
    fit = cache.call("plan", steps.plan, *case.results, implant=recipe.implant.name, case=case.names,
                     params=recipe.params.for_plan())  # fmt: skip
    return Made(source, scan, case, fit, skins, refined["artefacts"], file,
                landmarks=None if landmarks is None else steps.label_file(landmarks).key)  # fmt: skip


def part(cache: Cache, recipe: Recipe, made: Made) -> None:
    """Fit to checked parts: for each, fields, envelope, lattice, build direction and checks; then those of the whole."""
    for member in recipe.implant.members(recipe.params):
        made.metals.append(_metal(cache, recipe, made, member))
    if isinstance(recipe.implant, System):
        made.whole = cache.call("verify", steps.verify_whole, *made.case.results, made.fit, case=made.case.names,
                                implant=recipe.implant.name, params=recipe.params)  # fmt: skip


def _metal(cache: Cache, recipe: Recipe, made: Made, member: Member) -> Metal:
    """One part of a plan, made and checked."""
    choice = {"implant": member.implant.name, "params": member.params}
    lattice, machine, material = recipe.lattice_noun, recipe.build.machine, recipe.build.material
    fit = Result(f"{made.fit.key}/{member.name}", lambda _: member.of(made.fit.value)) if member.name else made.fit
    tail = f" {member.name}" if member.name else ""
    shape = cache.call(f"envelope{tail}", steps.envelope, fit, **choice)
    body = cache.call(f"lattice{tail}", steps.fill, fit, **choice, lattice=lattice, mesh=recipe.mesh)
    way = cache.call(f"orient{tail}", steps.orient, shape, fit, machine=machine)
    found = cache.call(
        f"verify{tail}", steps.verify, *made.case.results, fit, body, shape, way,
        **choice, case=made.case.names, machine=machine, material=material,
    )  # fmt: skip
    return Metal(member.name, fit, shape, body, way, found)
