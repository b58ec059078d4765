"""Struts as a 3MF beam lattice (beam lattice extension 1.2), which slicers that know it offset themselves.

Many viewers show no beams: write the mesh beside it. Equal input gives equal bytes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array

_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<model unit="millimeter" xml:lang="en-US" '
    'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02" '
    'xmlns:b="http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02" requiredextensions="b">\n'
    '<resources><object id="1" name="lattice" type="model"><mesh>\n'
)
_DAY = (1980, 1, 1, 0, 0, 0)
_ROWS = 50_000


def write_beams(path: Path, joints: Array, struts: NDArray[np.int64], radius_mm: Array) -> None:
    """joints (n,3) mm, struts (m,2), radius (n,) at each joint; written in pieces, so that memory stays small."""
    radii = np.maximum(radius_mm, 1e-4)
    order = np.lexsort(np.sort(struts, axis=1).T[::-1])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("[Content_Types].xml", _TYPES), ("_rels/.rels", _RELS)):
            archive.writestr(zipfile.ZipInfo(name, _DAY), text, zipfile.ZIP_DEFLATED)
        info = zipfile.ZipInfo("3D/3dmodel.model", _DAY)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as out:
            out.write(f"{_HEAD}<vertices>\n".encode())
            for a in range(0, len(joints), _ROWS):
                rows = joints[a : a + _ROWS].tolist()
                out.write("".join(f'<vertex x="{x:.5f}" y="{y:.5f}" z="{z:.5f}"/>\n' for x, y, z in rows).encode())
            least = float(radii.min())
            out.write(f'</vertices><triangles/>\n<b:beamlattice radius="{least:.5f}" minlength="0.0001" '
                      'cap="sphere"><b:beams>\n'.encode())  # fmt: skip
            for a in range(0, len(order), _ROWS):
                pairs = struts[order[a : a + _ROWS]]
                rows = zip(pairs.tolist(), radii[pairs].tolist())
                out.write("".join(f'<b:beam v1="{i}" v2="{j}" r1="{r:.5f}" r2="{s:.5f}"/>\n'
                                  for (i, j), (r, s) in rows).encode())  # fmt: skip
            out.write(
                b'</b:beams></b:beamlattice></mesh></object></resources>\n<build><item objectid="1"/></build></model>\n'
            )
