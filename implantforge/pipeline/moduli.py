"""A lattice asked by its stiffness: the porosity at which the homogenised cell has the modulus."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from implantforge.core import GeometryError, Lattice
from implantforge.pipeline import porosity
from implantforge.stages import lattice, porous
from implantforge.stages.porous.stiffness import SOLID_GPA, sphere

STOCHASTIC_SAMPLES = 64  # along the repeating cube
USUAL_SAMPLES = 40
WITHIN = 0.01
MOST_LOOKS = 8


def of_modulus(asked: Lattice, modulus_gpa: float, solid_gpa: float = SOLID_GPA) -> Lattice:
    """The lattice with the porosity at which Young's modulus, the mean over all directions, is modulus_gpa for a metal of
    solid_gpa. GeometryError when a wall, porosity, pore or grade is given too, or with the range that can be had."""
    given = [name for name in ("wall_mm", "porosity", "pore_mm") if getattr(asked, name) is not None]
    if given or any(grade.what != "cell_mm" for grade in asked.grades):
        raise GeometryError(
            f"lattice: give modulus_gpa alone, not with {', '.join(given) or 'a graded wall or porosity'}"
        )
    if not 0 < modulus_gpa < np.inf:
        raise GeometryError(f"lattice: modulus_gpa must be positive, got {modulus_gpa}")
    return replace(asked, porosity=_porosity(asked.kind, lattice.form_of(asked), asked.seed, modulus_gpa / solid_gpa,
                                             solid_gpa))  # fmt: skip


def modulus_gpa(asked: Lattice, solid_gpa: float = SOLID_GPA) -> float:
    """Young's modulus of the lattice's repeating cell, the mean over all directions."""
    solved = lattice.solve(asked)
    return solid_gpa * _mean(solved.kind, solved.form, solved.seed, round(1 - solved.porosity, 5))


@lru_cache(maxsize=32)
def _porosity(kind: str, form: str, seed: int, share: float, solid_gpa: float) -> float:
    low, high = lattice.DENSITY[kind, form]
    low, high = round(low + 1e-4, 5), round(high - 1e-4, 5)
    seen = [_mean(kind, form, seed, d) for d in (low, high)]
    if not seen[0] <= share <= seen[1]:
        raise GeometryError(
            f"lattice: {kind} {form} has no modulus of {share * solid_gpa:.3g} GPa; mean over directions it can have "
            f"{seen[0] * solid_gpa:.2g}..{seen[1] * solid_gpa:.2g} GPa (porosity {1 - low:.2f}..{1 - high:.2f})"
        )
    # moduli go nearly by a power of the density: straight lines in logarithms
    x, y, goal = np.log([low, high]), np.log(np.maximum(seen, 1e-9)), np.log(share)
    found = low
    for look in range(MOST_LOOKS):
        part = float(np.clip((goal - y[0]) / max(y[1] - y[0], 1e-9), 0.02, 0.98)) if look % 3 < 2 else 0.5
        found = round(float(np.exp(x[0] + part * (x[1] - x[0]))), 5)
        value = np.log(max(_mean(kind, form, seed, found), 1e-9))
        if abs(value - goal) < WITHIN:
            break
        side = 0 if value < goal else 1
        x[side], y[side] = np.log(found), value
    return 1.0 - found


@lru_cache(maxsize=64)
def _mean(kind: str, form: str, seed: int, density: float) -> float:
    """Mean over directions, by the solid's modulus; 0 for a cell too thin to bear on its samples."""
    solved = lattice.solve(Lattice(kind, form, 1.0, porosity=1 - density, seed=seed))  # type: ignore[arg-type]
    samples = STOCHASTIC_SAMPLES if kind in lattice.STOCHASTIC else USUAL_SAMPLES
    try:
        found = porous.effective(porosity.cell(solved, samples).share)
    except GeometryError:
        return 0.0
    return float(found.along(sphere(1000)).mean())
