"""A knee prepared for a prosthesis: frames of the bones, sizes as data, cut planes, gaps, cover of a cut face."""
