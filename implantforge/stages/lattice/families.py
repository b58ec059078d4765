"""The families of lattices: one entry each. A new strut cell is a row of struts.STRUTS and a row here."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from implantforge.stages.lattice import spinodoid, struts, surfaces


@dataclass(frozen=True)
class Family:
    """Relative densities that hold together, stay open and can be sampled; the module that knows its sizes."""

    density: tuple[float, float]
    maker: ModuleType
    note: str


# Networks: below, necks come near pinch-off (1.5 times the density where the solid falls apart); above, throats fall under
# 0.05 cell and powder stays inside. Struts: thinner than 3 of the nodes they are sampled on, or throats under 0.05 cell.
FAMILIES: dict[tuple[str, str], Family] = {
    ("gyroid", "network"): Family((0.05, 0.90), surfaces, "no mirror planes, even stiffness"),
    ("gyroid", "sheet"): Family((0.05, 0.60), surfaces, "two labyrinths, no flat walls"),
    ("diamond", "network"): Family((0.12, 0.85), surfaces, "thin necks between four-way joints"),
    ("diamond", "sheet"): Family((0.05, 0.60), surfaces, "two labyrinths, stiff in shear"),
    ("primitive", "network"): Family((0.25, 0.70), surfaces, "balls on short necks; falls apart under 0.21"),
    ("primitive", "sheet"): Family((0.05, 0.60), surfaces, "wide pores, narrow throats"),
    ("iwp", "network"): Family((0.15, 0.70), surfaces, "stiff along the cell's edges, soft in shear"),
    ("iwp", "sheet"): Family((0.05, 0.60), surfaces, "two unlike labyrinths"),
    ("neovius", "network"): Family((0.40, 0.62), surfaces, "necks of 0 at 0.30"),
    ("neovius", "sheet"): Family((0.05, 0.30), surfaces, "pores close from 0.40 on"),
    ("frd", "network"): Family((0.30, 0.60), surfaces, "necks of 0 at 0.21"),
    ("frd", "sheet"): Family((0.08, 0.50), surfaces, "throats of 0.05-0.12 cell"),
    ("lidinoid", "network"): Family((0.35, 0.80), surfaces, "necks of 0 at 0.26"),
    ("lidinoid", "sheet"): Family((0.08, 0.25), surfaces, "thin walls for its cell"),
    ("splitp", "network"): Family((0.20, 0.80), surfaces, "necks of 0 at 0.13"),
    ("splitp", "sheet"): Family((0.08, 0.60), surfaces, "thin walls for its cell"),
    ("cubic", "strut"): Family((0.03, 0.85), struts, "simple cubic: stiff along its edges, soft in shear"),
    ("bcc", "strut"): Family((0.03, 0.85), struts, "body-centred cubic, bends"),
    ("fcc", "strut"): Family((0.03, 0.80), struts, "face diagonals"),
    ("octet", "strut"): Family((0.05, 0.75), struts, "twelve struts a joint, stretches rather than bends"),
    ("diamond", "strut"): Family((0.03, 0.85), struts, "four struts a joint, bends"),
    ("rhombic", "strut"): Family((0.05, 0.70), struts, "rhombic dodecahedron"),
    ("kelvin", "strut"): Family((0.03, 0.80), struts, "truncated octahedron"),
    ("voronoi", "strut"): Family((0.08, 0.80), struts, "stochastic by seed; cell is the cube root of a seed's share"),
    ("spinodoid", "network"): Family((0.28, 0.70), spinodoid, "stochastic by seed; cell is the wave's length"),
    ("spinodoid", "sheet"): Family((0.08, 0.40), spinodoid, "stochastic by seed; cell is the wave's length"),
}
KINDS = tuple(dict.fromkeys(kind for kind, _ in FAMILIES))
FORMS = ("network", "sheet", "strut")
STOCHASTIC = ("voronoi", "spinodoid")  # kinds drawn by seed
DENSITY = {key: family.density for key, family in FAMILIES.items()}


def forms(kind: str) -> tuple[str, ...]:
    """Forms there are of a kind."""
    return tuple(form for name, form in FAMILIES if name == kind)


def describe() -> dict[str, str]:
    """One line a kind: its forms with the porosities they can have, and what to know."""
    rows = {}
    for kind in KINDS:
        spans = [f"{form} {100 * (1 - DENSITY[kind, form][1]):.0f}-{100 * (1 - DENSITY[kind, form][0]):.0f} % porous "
                 f"({FAMILIES[kind, form].note})" for form in forms(kind)]  # fmt: skip
        rows[kind] = "; ".join(spans)
    return rows
