"""Lattices in the user's terms: a wall in mm, a porosity or a pore becomes a field and a porous coat bonded to its core.

`families` lists what there is, `solving` works out the numbers, `filling` makes the metal, `placing` bends and grades it.
"""

from implantforge.stages.lattice.bonding import fill
from implantforge.stages.lattice.coating import Coat, coat
from implantforge.stages.lattice.families import DENSITY, FAMILIES, FORMS, KINDS, STOCHASTIC, describe, forms
from implantforge.stages.lattice.filling import field, trim
from implantforge.stages.lattice.nets import dangling
from implantforge.stages.lattice.placing import parse_grade
from implantforge.stages.lattice.solving import SolvedLattice, form_of, solve
from implantforge.stages.lattice.surfaces import SURFACES

__all__ = [
    "DENSITY", "FAMILIES", "FORMS", "KINDS", "STOCHASTIC", "SURFACES", "Coat",
    "SolvedLattice", "coat", "dangling", "describe", "field",
    "fill", "form_of", "forms", "parse_grade", "solve", "trim",
]  # fmt: skip
