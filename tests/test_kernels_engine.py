"""Kernels against their plain twins."""

import edt
import numpy as np
import pytest
import reference

from implantforge.geom import measure
from implantforge.kernels.mc_table import case_table, edge_corners
from implantforge.kernels.tpms import tpms_distance, tpms_level
from implantforge.kernels.trilinear import trilinear

KINDS = ("gyroid", "diamond", "primitive", "iwp")


@pytest.mark.parametrize("kind", KINDS)
def test_tpms_twin(kind: str) -> None:
    points = np.random.default_rng(1).uniform(-30, 30, (4000, 3))
    got = np.empty(len(points))
    tpms_level(KINDS.index(kind), 1.7, points, got)
    assert np.allclose(got, reference.tpms_level(kind, 1.7, points), atol=1e-9)
    tpms_distance(KINDS.index(kind), 1.7, 0.2, 0.3, 3, points, got)
    want = reference.tpms_distance(kind, 1.7, 0.2, 3, points)
    near = np.abs(reference.tpms_level(kind, 1.7, points) - 0.2) < 0.5
    assert near.sum() > 500
    assert np.percentile(np.abs(got[near] - want[near]), 98) < 3e-4


def test_trilinear_twin() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(5, 6, 7)).astype(np.float32)
    at = rng.uniform(0, [4, 5, 6], (500, 3))
    spacing = np.array([0.5, 0.7, 0.9])
    got = np.empty(500)
    trilinear(values, np.eye(3), np.array([1.0, 2.0, 3.0]), spacing, at * spacing + [1, 2, 3], got)
    assert np.allclose(got, reference.trilinear(values.astype(float), at), atol=1e-5)


def test_case_table_closes_every_case() -> None:
    """Within a cell, the open edges of each case are exactly cube-face segments, and a case and its triangles agree."""
    count, table = case_table()
    assert count[0] == count[255] == 0
    crossed = edge_corners().astype(int)
    for case in range(256):
        used = set(table[case, : count[case]].ravel().tolist())
        assert used == {e for e, (a, b) in enumerate(crossed) if (case >> a & 1) != (case >> b & 1)}


def test_local_thickness_twin() -> None:
    rng = np.random.default_rng(3)
    mask = np.pad(rng.random((12, 12, 12)) < 0.93, 1)
    radius = edt.edt(mask)
    want = reference.local_thickness(mask, radius)
    got = measure.local_thickness(mask, 1.0)
    assert np.allclose(got[mask], 2 * want[mask] - 0.5, atol=0.6)
    assert np.mean(np.abs(got[mask] - (2 * want[mask] - 0.5)) < 1e-4) > 0.95
