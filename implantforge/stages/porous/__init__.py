"""What a porous structure is, measured on it: stiffness, permeability, walls, pores, throats, openness."""
