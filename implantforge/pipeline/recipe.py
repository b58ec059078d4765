"""A recipe: what to build, in one TOML file. Every value is checked before anything is computed or written."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from implantforge import implants
from implantforge.core import InputError, Lattice
from implantforge.implants import Implant, Params, System, choice, count, flag, inner, mm, number, parameters, text
from implantforge.pipeline import resources
from implantforge.stages import lattice, printability

SIZES = ("wall_mm", "porosity", "pore_mm", "modulus_gpa")
HEADER = "# ImplantForge recipe, every value written out.\n"
KINDS = lattice.KINDS


class CaseParams(Params):
    """[case]"""

    side: str = choice("auto", ("auto", "left", "right"), "treated side; auto takes the only side that can be treated")
    date: str = text("", "date written into part.3mf, YYYY-MM-DD; empty: SOURCE_DATE_EPOCH or 1980-01-01")


class SampleParams(Params):
    """[sample]"""

    name: str = text("hip", "synthetic patient taken when no CT is given")
    seed: int = count(0, 0, 2**31 - 1, "which synthetic patient")


class LatticeParams(Params):
    """[lattice]"""

    kind: str = choice("gyroid", KINDS, "unit cell")
    form: str = choice("network", lattice.FORMS, "skeleton on one side of the surface, a wall on both, or round struts")
    cell_mm: float = mm(1.4, 0.5, 10.0, "edge of the unit cell", source="pores 0.3-0.8 mm at 70 % porosity")
    wall_mm: float | None = mm(None, 0.1, 3.0, "true wall or neck thickness (give this or porosity)")
    porosity: float | None = number(None, 0.3, 0.9, "open share of the volume (give this or wall_mm)",
                                    source="21 CFR 888.3358: 30-70 %; printed cups 63-77 %")  # fmt: skip
    pore_mm: float | None = mm(None, 0.1, 3.0, "median pore, the largest ball about each point (give one of the four)")
    modulus_gpa: float | None = number(None, 0.1, 60.0, "Young's modulus, mean over all directions", unit="GPa",
                                       source="bone: cancellous 0.05-3 GPa, cortical 15-20 GPa")  # fmt: skip
    seed: int = count(0, 0, 2**31 - 1, "which of the stochastic lattices")
    placement: str = choice("cartesian", ("cartesian", "cylindrical", "conformal"), "what cells lie along; about z")
    grade: str = text("", "what changes with what, e.g. wall_mm=depth:0:0.3,3:0.5; empty: nothing")


class MeshParams(Params):
    """[mesh]"""

    h_mm: float = mm(0.15, 0.03, 2.0, "sampling step of the part's surface")
    simplify_mm: float = mm(0.02, 0.0, 0.2, "how far triangles may leave the sampled surface when merged; 0 keeps all")


class BuildParams(Params):
    """[build]"""

    machine: str = choice("EOS M 290", tuple(printability.MACHINES), "printer (implantforge list machines)")
    material: str = choice("Ti-6Al-4V ELI", tuple(printability.MATERIALS), "powder")
    report: bool = flag(True, "write report.html")


SECTIONS: dict[str, type[Params]] = {
    "case": CaseParams, "sample": SampleParams, "lattice": LatticeParams, "mesh": MeshParams, "build": BuildParams,
}  # fmt: skip
ORDER = ("implant", "case", "sample", "params", "lattice", "mesh", "build")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. name is the bare name of its file."""

    name: str
    implant: Implant | System
    case: CaseParams
    sample: SampleParams
    params: Any
    lattice: LatticeParams
    mesh: MeshParams
    build: BuildParams

    @property
    def lattice_noun(self) -> Lattice:
        """The lattice asked for, as the stages take it."""
        asked = self.lattice.model_dump()
        grade, modulus_gpa = asked.pop("grade"), asked.pop("modulus_gpa")
        noun = Lattice(**asked, grades=(lattice.parse_grade(grade),) if grade else ())
        if modulus_gpa is None:
            return noun
        from implantforge.pipeline import moduli

        return moduli.of_modulus(noun, modulus_gpa)

    def toml(self) -> str:
        """The recipe with every default written out, units beside the values; it reads back as the same recipe."""
        text = [HEADER, f'\n[implant]\nname = "{self.implant.name}"\n']
        for section in ORDER[1:]:
            model = getattr(self, section)
            text += _table(section, model)
        return "".join(text)


def load(name_or_path: str, settings: Iterable[str] = (), side: str | None = None) -> Recipe:
    """The recipe of a file or of a bare name in pipelines/, changed by `section.key=value` settings.

    InputError, one line, when there is no such recipe, it is not TOML, a key is unknown, a value has the wrong type or
    lies outside its range.
    """
    path = find(name_or_path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe: {path.name} is not TOML: {error}") from error
    except OSError as error:
        raise InputError(f"recipe: {path.name} cannot be read: {error.strerror}") from error
    settings = list(settings)
    named = [setting.partition("=")[0].strip() for setting in settings]
    sizes = [f"lattice.{name}" for name in SIZES if f"lattice.{name}" in named]
    if len(sizes) > 1:
        raise InputError(f"recipe: --set gives both {' and '.join(sizes)}; give exactly one")
    for setting in settings:
        _apply(tree, setting)
    if side is not None:
        tree.setdefault("case", {})["side"] = side
    return parse(tree, path.stem)


def find(name_or_path: str) -> Path:
    """The file of a recipe given by path or bare name; InputError lists the bare names there are."""
    known = resources.recipes()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    near = difflib.get_close_matches(path.stem, known, 1)
    hint = f", nearest is {near[0]}" if near else ""
    raise InputError(f"recipe: no file or recipe {name_or_path}{hint} (known: {', '.join(known) or 'none'})")


def parse(tree: Mapping[str, Any], name: str) -> Recipe:
    """A recipe from the tables of its file."""
    for section, table in tree.items():
        if section not in ORDER:
            raise InputError(_unknown(section, ORDER))
        if not isinstance(table, Mapping):
            raise InputError(f"recipe: {section} must be a table, written [{section}]")
    named = dict(tree.get("implant", {}))
    wanted = named.pop("name", None)
    if named:
        raise InputError(_unknown(f"implant.{next(iter(named))}", ["implant.name"]))
    if not isinstance(wanted, str):
        raise InputError(f"recipe: implant.name is missing (known implants: {', '.join(implants.registry())})")
    implant = implants.get(wanted)
    models = {**SECTIONS, "params": implant.Params}
    every = [f"{section}.{row.name}" for section, model in models.items() for row in parameters(model)]
    made = {section: _model(section, model, tree.get(section, {}), every) for section, model in models.items()}
    recipe = Recipe(name, implant, **made)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Rules between values."""
    given = {name: getattr(recipe.lattice, name) for name in SIZES}
    grade = recipe.lattice.grade
    graded = bool(grade) and lattice.parse_grade(grade).what != "cell_mm"
    if not graded and sum(value is not None for value in given.values()) != 1:
        raise InputError(f"recipe: give lattice.{' or lattice.'.join(SIZES)}, exactly one (got {given})")
    if recipe.case.date:
        try:
            date.fromisoformat(recipe.case.date)
        except ValueError as error:
            raise InputError(f"recipe: case.date = {recipe.case.date!r} is not a date YYYY-MM-DD") from error


def _model(section: str, model: type[Params], table: Mapping[str, Any], every: list[str]) -> Any:
    parts = {}
    for name, kind in inner(model).items():
        if not isinstance(given := table.get(name, {}), Mapping):
            raise InputError(f"recipe: {section}.{name} must be a table, written [{section}.{name}]")
        own = model.model_fields[name].default.model_dump()
        parts[name] = _model(f"{section}.{name}", kind, {**own, **given}, every)
    try:
        return model(**{**table, **parts})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([section, *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            raise InputError(_unknown(key, every)) from error
        raise InputError(_refusal(section, key, first, model)) from error


def _refusal(section: str, key: str, first: Any, model: type[Params]) -> str:
    """One line for one wrong value: the value, its unit, and what is allowed."""
    if not first["loc"]:
        return f"recipe: {section}.{str(first['msg']).removeprefix('Value error, ')}"
    row = next(row for row in parameters(model) if row.name == first["loc"][0])
    if first["type"] == "missing":
        return f"recipe: {key} is missing: {row.doc} ({row.unit})"
    value = json.dumps(first["input"], default=str)
    allowed = f"{row.lo:g}..{row.hi:g} {row.unit}".rstrip() if row.lo is not None and row.hi is not None else ""
    if first["type"] in ("less_than_equal", "greater_than_equal", "finite_number"):
        return f"recipe: {key} = {value} {row.unit}".rstrip() + f" is out of range, allowed is {allowed}"
    kind = "a number" if allowed else "true or false" if isinstance(row.default, bool) else "a text in quotes"
    if first["type"].startswith("int"):
        kind = "a whole number"
    return f"recipe: {key} = {value} has the wrong type, needs {kind} {allowed and f'({allowed})'}".rstrip()


def _unknown(key: str, known: Iterable[str]) -> str:
    known = list(known)
    section = key.partition(".")[0]
    alike = [name for name in known if name.partition(".")[0] == section] or known
    near = difflib.get_close_matches(key, alike, 1, 0.6) or difflib.get_close_matches(key, known, 1, 0.0)
    return f"recipe: unknown key {key}, nearest is {near[0]}"


def _apply(tree: dict[str, Any], setting: str) -> None:
    """Puts one section.key=value into the tables; the value is TOML, or a bare word taken as text."""
    key, found, text = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not (found and name and sections and all(sections)):
        raise InputError(f"recipe: --set {setting} must look like section.key=value")
    try:
        value = tomllib.loads(f"x = {text.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tree
    for depth, section in enumerate(sections, start=1):
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            at = ".".join(sections[:depth])
            raise InputError(f"recipe: {at} must be a table, written [{at}]")
    if sections == ["lattice"] and name in SIZES:
        for other in SIZES:
            table.pop(other, None)
    table[name] = value


def _table(section: str, model: Params) -> list[str]:
    """A section's lines with every value, then those of its parts as tables of their own."""
    own = [row for row in parameters(type(model)) if not row.inner]
    lines = [f"\n[{section}]\n", *(_line(row, row.of_model(model)) for row in own)]
    for name in inner(type(model)):
        lines += _table(f"{section}.{name}", getattr(model, name))
    return lines


def _line(row: implants.Parameter, value: Any) -> str:
    note = " ".join(filter(None, [row.unit, f"{row.lo:g}..{row.hi:g}" if row.lo is not None else "", row.doc]))
    if value is None:
        return f"# {row.name} is not set: {note}\n"
    return f"{row.name} = {json.dumps(value, ensure_ascii=False)}  # {note}\n"
