"""Names as people read them: units out of names, English with Ukrainian beside it."""

from __future__ import annotations

import math
import re
from typing import Any

UNITS = {
    "mm3": "mm³", "mm2": "mm²", "mm": "mm", "um": "µm", "deg": "°", "pct": "%", "g": "g", "hu": "HU", "mpa": "MPa",
    "gpa": "GPa", "n": "N", "mb": "MB", "m2": "m²", "s": "s", "h": "h",
}  # fmt: skip

UK = {
    "hip_stem": "ніжка ендопротеза кульшового суглоба", "hip_cup": "чашка ендопротеза кульшового суглоба",
    "own_stem": "ніжка ендопротеза кульшового суглоба, модель виробника",
    "own_cup": "чашка ендопротеза кульшового суглоба, модель виробника",
    "own_tray": "великогомілковий компонент ендопротеза коліна, модель виробника",
    "left": "лівий бік", "right": "правий бік",
    "femur": "стегнова кістка", "hip": "кульшова кістка", "tibia": "великогомілкова кістка", "skull": "череп",
    "sacrum": "крижі", "patella": "надколінок", "fibula": "малогомілкова кістка",
    "head_center": "центр голівки", "neck_center": "центр шийки", "greater_trochanter": "великий вертлюг",
    "lesser_trochanter": "малий вертлюг", "medial_epicondyle": "медіальний надвиросток",
    "lateral_epicondyle": "латеральний надвиросток", "posterior_medial_condyle": "задній медіальний виросток",
    "posterior_lateral_condyle": "задній латеральний виросток", "intercondylar_notch": "міжвиросткова ямка",
    "knee_center": "центр коліна", "canal_isthmus": "перешийок каналу", "asis": "передня верхня клубова ость",
    "psis": "задня верхня клубова ость", "pubic_tubercle": "лобковий горбок", "ischial_spine": "сіднича ость",
    "acetabulum_center": "центр вертлюжної западини", "head_radius": "радіус голівки",
    "neck_shaft_angle": "шийково-діафізарний кут", "anteversion": "антеверсія", "offset": "офсет",
    "length": "довжина", "canal_flare_index": "індекс розширення каналу", "isthmus_diameter": "діаметр перешийка",
    "size": "розмір", "score": "оцінка", "part_mass": "маса виробу", "part_volume": "об’єм виробу",
    "solid_equivalent_mass": "маса такого ж суцільного", "mass_saving": "економія маси", "triangles": "трикутники",
    "lattice_porosity": "пористість", "lattice_pore_size": "розмір пор", "lattice_wall": "товщина перемичок",
    "bone_overlap": "перекриття з кісткою", "fit_gap_mean": "середній зазор", "fit_gap_p95": "зазор, 95 % поверхні",
    "knee_total": "ендопротез колінного суглоба", "knee_femoral": "стегновий компонент ендопротеза коліна",
    "knee_tibial": "великогомілковий компонент ендопротеза коліна", "femur_distal": "дистальний розпил стегнової кістки",
    "femur_posterior": "задній розпил стегнової кістки", "gap_in_extension": "проміжок у розгинанні",
    "gap_in_flexion": "проміжок у згинанні",
    "contact": "частка контакту", "buy_to_fly": "метал на вході / у виробі",
}  # fmt: skip

NAMES = {
    "lattice_wall": "Lattice wall, held to the machine's least", "lattice_wall_median": "Lattice metal, median thickness",
    "lattice_wall_p01": "Lattice metal, thinnest 1 %", "lattice_wall_designed": "Lattice wall, designed",
    "lattice_samples_per_wall": "Mesh samples across the lattice wall", "h": "Sampling step",
}  # fmt: skip
"""Where a name alone would not tell which of several is meant."""
_SPECIAL = {
    "am": "AM",
    "rom": "motion",
    "um": "µm",
    "p10": "10th percentile",
    "gpa": "GPa",
    "p95": "95th percentile",
    "p99": "99th percentile",
    "p05": "5th percentile",
    "ct": "CT",
    "hu": "HU",
}


PARTS = {"stem": "ніжка", "cup": "чашка", "femoral": "стегновий компонент", "tibial": "великогомілковий компонент"}


def split_unit(name: str) -> tuple[str, str]:
    """('lattice_pore_size', 'µm') from 'lattice_pore_size_um'; the unit is '' when the name carries none."""
    stem, _, last = name.rpartition("_")
    return (stem, UNITS[last]) if stem and last in UNITS else (name, "")


def label(name: str) -> str:
    """'Lattice pore size' from 'lattice_pore_size_um'."""
    stem, _, end = str(name).rpartition("_")
    bound = {"least": ", at the least", "most": ", at the most"}.get(end, "") if stem else ""
    stem = split_unit(stem if bound else str(name))[0]
    text = NAMES.get(stem) or " ".join(_SPECIAL.get(w, w) for w in stem.split("_") if w) + bound
    return text[:1].upper() + text[1:]


def ukrainian(name: str) -> str:
    """The Ukrainian for a name of the interface, '' when there is none; bones carry their side."""
    stem = split_unit(str(name))[0]
    if stem in UK:
        return UK[stem]
    bone = re.fullmatch(r"(\w+)_(left|right)", stem)
    if bone and bone[1] in UK:
        return f"{UK[bone[1]]}, {UK[bone[2]]}"
    part, _, rest = stem.partition("_")
    if part in PARTS and rest in UK:
        return f"{PARTS[part]}: {UK[rest]}"
    return ""


def number(value: Any, unit: str = "") -> str:
    """Three to four figures that matter, a true minus sign, thin spaces in thousands; '—' for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "—"
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not measured"
    value = 0.0 if isinstance(value, float) and abs(value) < 1e-6 else value
    size = abs(value)
    if isinstance(value, int) or (value == round(value) and size >= 100) or size >= 1000:
        text = f"{round(value):,}".replace(",", "\u202f")
    elif size >= 100:
        text = f"{value:.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 0.095 or size == 0:
        text = f"{value:.2f}".rstrip("0").rstrip(".") if unit in ("", "1") else f"{value:.2f}"
    else:
        text = f"{value:.2g}"
    text = text.replace("-", "−")
    return f"{text}{'' if unit == '°' else ' '}{unit}" if unit and unit != "1" else text


def unit_of(text: str) -> str:
    """'µm' from 'um': units as they stand in checks and assumptions, made readable."""
    return UNITS.get(str(text), str(text).replace("mm3", "mm³").replace("mm2", "mm²").replace("cm3", "cm³"))
