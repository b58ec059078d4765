"""What can be made. One file of this folder is one implant type; the folder is the registry.

A file holds `IMPLANT = Implant(...)`, or `IMPLANT = System(...)` for several planned together; its `Params` fields, made
with `mm`, `deg`, `number`, `count`, `flag`, `choice` and `text`, drive recipe validation, `implantforge show`, the viewer
panel and the report's list of assumptions.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from implantforge.core import Anatomy, Check, Design, Fit, InputError, Labels, Mesh, Side, Volume

__all__ = [
    "Case", "Implant", "Member", "Parameter", "Params", "System", "choice", "count", "deg", "flag", "get", "inner", "mm",
    "number", "one", "parameters", "registry", "text",
]  # fmt: skip


class Params(BaseModel):
    """Base of every implant's parameters: frozen, no unknown names, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="after")
    def _within_choices(self) -> Params:
        for row in parameters(type(self)):
            value = row.of_model(self)
            if row.choices and value is not None and value not in row.choices:
                raise ValueError(f"{row.name} = {value!r} is none of {', '.join(map(str, row.choices))}")
        return self

    def for_plan(self) -> Params:
        """These parameters as `plan` sees them: fields of="design" at their default, so editing one keeps the fit."""
        kept = {
            row.name: getattr(self, row.name) for row in parameters(type(self)) if row.of == "plan" and not row.inner
        }
        return type(self)(**kept, **{name: getattr(self, name).for_plan() for name in inner(type(self))})


@dataclass(frozen=True)
class Parameter:
    """One parameter as shown to people, `part.name` for one of a system's parts. tag: M, R or P, see `mm`."""

    name: str
    default: Any
    lo: float | None
    hi: float | None
    unit: str
    doc: str
    tag: str
    source: str
    choices: tuple[Any, ...]
    of: str

    @property
    def inner(self) -> bool:
        """It belongs to a part's own parameters."""
        return "." in self.name

    def of_model(self, model: BaseModel) -> Any:
        """Its value in a Params of the kind it was listed from."""
        return attrgetter(self.name)(model)


@dataclass(frozen=True, eq=False)
class Case:
    """What an implant may look at: treated side, HU, label map, bone surfaces and anatomy by class name, LPS mm."""

    side: Side
    volume: Volume
    labels: Labels
    bones: Mapping[str, Mesh]
    anatomy: Mapping[str, Anatomy]


class _OnBones:
    """What names its bones by TotalSegmentator's classes, with {side} and {other} in them."""

    needs: tuple[str, ...]
    also: tuple[str, ...]

    def bones(self, side: str) -> tuple[str, ...]:
        """Class names of the bones needed on one side."""
        return _named(self.needs, side)

    def helpful(self, side: str) -> tuple[str, ...]:
        """Class names of the bones used on one side when they are there."""
        return _named(self.also, side)


@dataclass(frozen=True)
class Implant(_OnBones):
    """One implant type.

    needs names bones as TotalSegmentator does, with {side} where the treated side goes: ("femur_{side}",); also those it
    uses when the scan shows them, where {other} is the other side.
    plan(case, params) -> Fit; design(fit, params) -> Design; checks(case, fit, design, part_mesh, params) -> Checks;
    phantom(seed) -> a synthetic patient with the truth beside it; resolve(params) -> the parameters completed from files
    that they name (InputError when a file is not as it should be).
    blank(side, params) -> Fit of the size that the parameters name, without a patient, for its drawing; spine(fit, params)
    -> how a body with blends is seen as one skin in CAD (stages/cad). None where there is no such thing.
    """

    name: str
    summary: str
    region: str
    needs: tuple[str, ...]
    Params: type[Params]
    plan: Callable[[Case, Any], Fit]
    design: Callable[[Fit, Any], Design]
    checks: Callable[[Case, Fit, Design, Mesh, Any], tuple[Check, ...]]
    phantom: Callable[..., Any]
    also: tuple[str, ...] = ()
    resolve: Callable[[Any], Any] = lambda params: params
    blank: Callable[[Side, Any], Fit] | None = None
    spine: Callable[[Fit, Any], Any] | None = None

    def members(self, params: Any) -> tuple[Member, ...]:
        """What is made: this one."""
        return (Member("", self, params),)


@dataclass(frozen=True)
class System(_OnBones):
    """Several implants planned together, each then designed, filled and checked as its own Implant does.

    parts: name -> Implant; Params has a field of each part's name with that part's Params; plan(case, params) -> Fit whose
    `parts` holds a Fit for each, and whose metrics are those of the whole; checks(case, fit, designs, params) -> Checks of
    the whole, designs by part name. The rest as in Implant.
    """

    name: str
    summary: str
    region: str
    needs: tuple[str, ...]
    Params: type[Params]
    parts: Mapping[str, Implant]
    plan: Callable[[Case, Any], Fit]
    checks: Callable[[Case, Fit, Mapping[str, Design], Any], tuple[Check, ...]]
    phantom: Callable[..., Any]
    also: tuple[str, ...] = ()

    def resolve(self, params: Any) -> Any:
        """The parameters with each part's completed from the files they name."""
        return params.model_copy(update={name: one.resolve(getattr(params, name)) for name, one in self.parts.items()})

    def members(self, params: Any) -> tuple[Member, ...]:
        """What is made, in order of `parts`."""
        return tuple(Member(name, one, getattr(params, name)) for name, one in self.parts.items())


class Member(NamedTuple):
    """One part to make: its name (empty for an implant of one part), implant and parameters."""

    name: str
    implant: Implant
    params: Any

    def of(self, fit: Fit) -> Fit:
        """This part's share of a plan."""
        return fit.parts[self.name] if self.name else fit


def odds(metrics: Mapping[str, Any]) -> str:
    """How sure a size is, in words to follow it."""
    if "size_probability_pct" not in metrics:
        return " (as asked)"
    own, less, more = (metrics[f"size_{name}probability_pct"] for name in ("", "smaller_", "larger_"))
    return f" (odds {own:.0f} %; smaller {less:.0f}, larger {more:.0f})"


def _named(patterns: Sequence[str], side: str) -> tuple[str, ...]:
    other = "right" if side == "left" else "left"
    return tuple(name.format(side=side, other=other) for name in patterns)


def _field(default: Any, doc: str, unit: str, note: dict[str, str], choices: Sequence[Any] = (), **limits: Any) -> Any:
    extra: dict[str, Any] = {"tag": "P", "source": "", "of": "plan", **note, "unit": unit, "choices": list(choices)}
    if extra["tag"] not in ("M", "R", "P") or extra["of"] not in ("plan", "design") or len(extra) != 5:
        raise ValueError(f"parameter note {note}: tag is M, R or P; source is text; of is plan or design")
    return Field(default, description=doc, json_schema_extra=extra, **limits)


def mm(default: float | None, lo: float, hi: float, doc: str, **note: str) -> Any:
    """A length in mm within lo..hi.

    Every helper takes tag= (M measured or from a standard, R read in a source, P project default), source= (where the
    number stands) and of= ("plan", or "design" when the fit does not depend on it: editing it then keeps the fit).
    """
    return _field(default, doc, "mm", note, ge=lo, le=hi)


def deg(default: float | None, lo: float, hi: float, doc: str, **note: str) -> Any:
    """An angle in degrees within lo..hi."""
    return _field(default, doc, "deg", note, ge=lo, le=hi)


def number(default: float | None, lo: float, hi: float, doc: str, unit: str = "", **note: str) -> Any:
    """Any other number within lo..hi, with its unit (a ratio has none)."""
    return _field(default, doc, unit, note, ge=lo, le=hi)


def count(default: int | None, lo: int, hi: int, doc: str, **note: str) -> Any:
    """A whole number within lo..hi."""
    return _field(default, doc, "", note, ge=lo, le=hi)


def flag(default: bool, doc: str, **note: str) -> Any:
    """True or false."""
    return _field(default, doc, "", note)


def choice(default: Any, options: Sequence[Any], doc: str, unit: str = "", **note: str) -> Any:
    """One of the options, which may be sizes with a unit; annotate the field with their common type."""
    return _field(default, doc, unit, note, choices=options)


def text(default: str, doc: str, **note: str) -> Any:
    """Any text."""
    return _field(default, doc, "", note)


def inner(model: type[BaseModel]) -> dict[str, type[Params]]:
    """Fields of a model that are a part's own Params, by name."""
    fields = {name: info.annotation for name, info in model.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, Params)}


def parameters(model: type[BaseModel]) -> tuple[Parameter, ...]:
    """The fields of a Params model (or any model made with these helpers), in order of declaration, then those of its
    parts as `part.name`."""
    rows, parts = [], inner(model)
    for name, info in model.model_fields.items():
        if name in parts:
            continue
        extra: dict[str, Any] = dict(info.json_schema_extra) if isinstance(info.json_schema_extra, dict) else {}
        lo = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
        hi = next((m.le for m in info.metadata if hasattr(m, "le")), None)
        text = {key: str(extra.get(key, "")) for key in ("unit", "tag", "source")}
        rows.append(
            Parameter(name, info.default, lo, hi, text["unit"], info.description or "", text["tag"], text["source"],
                      tuple(extra.get("choices", ())), str(extra.get("of", "plan")))
        )  # fmt: skip
    for part, kind in parts.items():
        own = model.model_fields[part].default
        rows += [replace(row, name=f"{part}.{row.name}", default=row.of_model(own)) for row in parameters(kind)]
    return tuple(rows)


def registry() -> dict[str, Implant | System]:
    """Every implant of this folder by name, in alphabetical order."""
    files = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules = (importlib.import_module(f"{__name__}.{name}") for name in files)
    return {module.IMPLANT.name: module.IMPLANT for module in modules}


def get(name: str) -> Implant | System:
    """The implant of that name; InputError names the nearest one."""
    known = registry()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1, 0.0)
    hint = f", nearest is {near[0]}" if near else ""
    raise InputError(f"implant: none is called {name}{hint} (known: {', '.join(known) or 'none'})")


def one(name: str) -> Implant:
    """The implant of that name that is made in one part; InputError when it is a system of several."""
    found = get(name)
    if isinstance(found, System):
        raise InputError(f"implant: {name} is made of {', '.join(found.parts)}; name one of them")
    return found
