"""Effective stiffness: exact laminates and patches, published values, bounds, the numpy twin."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from implantforge.core import GeometryError
from implantforge.kernels import homogenise
from implantforge.stages.porous import elastic, stiffness

LEVEL = {
    "gyroid": lambda x, y, z: np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x),
    "diamond": lambda x, y, z: (
        np.sin(x) * np.sin(y) * np.sin(z)
        + np.sin(x) * np.cos(y) * np.cos(z)
        + np.cos(x) * np.sin(y) * np.cos(z)
        + np.cos(x) * np.cos(y) * np.sin(z)
    ),
    "primitive": lambda x, y, z: np.cos(x) + np.cos(y) + np.cos(z),
    "iwp": lambda x, y, z: (
        2 * (np.cos(x) * np.cos(y) + np.cos(y) * np.cos(z) + np.cos(z) * np.cos(x))
        - (np.cos(2 * x) + np.cos(2 * y) + np.cos(2 * z))
    ),
}


def sheet(kind: str, n: int, density: float) -> np.ndarray:
    """Voxels of a sheet, 0 or 1, the share nearest to the surface in f."""
    axis = 2 * np.pi * (np.arange(n) + 0.5) / n
    f = np.abs(LEVEL[kind](*np.meshgrid(axis, axis, axis, indexing="ij", sparse=True))).round(9)
    return (f <= np.quantile(f, density)).astype(np.float32)


def octet(n: int, diameter: float) -> np.ndarray:
    """Solid shares of an octet truss of round struts, cells."""
    nodes = np.array([(i, j, k) for i in (0, 1, 2) for j in (0, 1, 2) for k in (0, 1, 2) if (i + j + k) % 2 == 0]) / 2
    pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[:i] if abs(((a - b) ** 2).sum() - 0.5) < 1e-9]

    def distance(p: np.ndarray) -> np.ndarray:
        nearest = np.full(len(p), np.inf)
        for a, b in pairs:
            part = np.clip((p - a) @ (b - a) / 0.5, 0, 1)
            np.minimum(nearest, ((p - a - part[:, None] * (b - a)) ** 2).sum(axis=1), out=nearest)
        return np.sqrt(nearest) - diameter / 2

    return stiffness.shares_of(distance, 0.0, 1.0, n, 1)


def test_forces_are_those_of_the_matrix():
    random = np.random.default_rng(0)
    u = random.normal(size=(3, 4, 6, 8)).astype(np.float32)
    share = random.uniform(size=(4, 6, 8)).astype(np.float32)
    strain = random.normal(size=(3, 3)).astype(np.float32)
    work, out = np.empty(4), np.empty_like(u)
    homogenise.stiffness(u, share, strain, *elastic.lame(0.3), work, out)
    forces, energy = reference.elastic_forces(u, share, strain, *elastic.lame(0.3))
    assert out == pytest.approx(forces, abs=2e-5 * np.abs(forces).max())
    assert work.sum() == pytest.approx(energy, rel=1e-5)


def test_steps_of_the_solver_are_those_of_their_twins():
    random = np.random.default_rng(2)
    a, b, u, r = (random.normal(size=(3, 4, 5, 6)).astype(np.float32) for _ in range(4))
    work = np.empty(4)
    homogenise.dots(a, b, work)
    assert work == pytest.approx(reference.plane_dots(a, b), abs=1e-4)
    more, less = reference.advanced(0.7, a, b, u, r)
    homogenise.advance(0.7, a, b, u, r)
    assert u == pytest.approx(more, abs=1e-6) and r == pytest.approx(less, abs=1e-6)
    along = reference.turned(0.3, a, b)
    homogenise.turn(0.3, a, b)
    assert b == pytest.approx(along, abs=1e-6)
    inverse = random.normal(size=(6, 4, 5, 6)).astype(np.float32)
    waves = (u + 1j * r).astype(np.complex64)
    twin = reference.green_forces(inverse, waves)
    homogenise.green(inverse, waves)
    assert waves == pytest.approx(twin, abs=1e-5)


def test_the_preconditioner_inverts_a_solid_grid():
    random = np.random.default_rng(1)
    grid = elastic._Grid(np.ones((6, 8, 10), np.float32), 0.3)
    u = random.normal(size=(3, 6, 8, 10)).astype(np.float32)
    u -= u.mean(axis=(1, 2, 3), keepdims=True)
    out = np.empty_like(u)
    grid.forces(u, np.zeros((3, 3)), out)
    assert grid.precondition(out) == pytest.approx(u, abs=2e-5)


def test_a_solid_is_itself():
    found = stiffness.effective(np.ones((16, 16, 16), np.float32), poisson=0.34)
    assert found.tensor == pytest.approx(elastic.isotropic(0.34), abs=1e-6)
    every = found.constants()
    assert every["E_x"] == pytest.approx(1, rel=1e-5) and every["nu_xy"] == pytest.approx(0.34, rel=1e-5)
    assert every["zener"] == pytest.approx(1, rel=1e-5) and every["E_max"] == pytest.approx(every["E_min"], rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_laminates_are_exact(axis):
    """Layers of modulus 1 and s: Backus 1962; s is a solid share, which scales the modulus."""
    share = np.ones((16, 16, 16), np.float32)
    np.moveaxis(share, axis, 0)[8:] = 0.25
    found = elastic.solve(share, 0.3, 1e-9)[0].tensor
    c = elastic.isotropic(0.3)
    mean, harmonic = 0.625, 1 / (0.5 + 0.5 / 0.25)
    inside = [n for n in range(3) if n != axis]
    assert found[axis, axis] == pytest.approx(c[0, 0] * harmonic, rel=1e-5)
    assert found[axis, inside[0]] == pytest.approx(c[0, 1] * harmonic, rel=1e-5)
    plane = mean * (c[0, 0] - c[0, 1] ** 2 / c[0, 0]) + harmonic * c[0, 1] ** 2 / c[0, 0]
    assert found[inside[0], inside[0]] == pytest.approx(plane, rel=1e-5)
    assert found[3 + axis, 3 + axis] == pytest.approx(mean * c[3, 3], rel=1e-5)
    assert found[3 + inside[0], 3 + inside[0]] == pytest.approx(harmonic * c[3, 3], rel=1e-5)


def test_two_load_cases_of_a_cyclic_cell_give_what_six_give(monkeypatch):
    share = sheet("gyroid", 16, 0.4)
    two = elastic.solve(share, 0.3, 1e-7)[0]
    monkeypatch.setattr(elastic, "_cyclic", lambda share: False)
    six = elastic.solve(share, 0.3, 1e-7)[0]
    assert (two.cases, six.cases) == (2, 6)
    assert two.tensor == pytest.approx(six.tensor, abs=1e-6)


def test_the_tensor_turns_with_the_cell():
    share = np.zeros((16, 16, 16), np.float32)
    share[:5], share[:, :6, :7], share[4:9, :, 8:11] = 1, 1, 1
    here = elastic.solve(share, 0.3, 1e-7)[0].tensor
    there = elastic.solve(share.transpose(1, 2, 0), 0.3, 1e-7)[0].tensor
    order = [1, 2, 0, 4, 5, 3]
    assert there == pytest.approx(here[np.ix_(order, order)], abs=2e-6)


TABLE = [
    ("gyroid", 0.3, 0.115), ("diamond", 0.3, 0.138), ("primitive", 0.3, 0.086), ("iwp", 0.3, 0.132),
    ("gyroid", 0.2, 0.069), ("diamond", 0.2, 0.086), ("primitive", 0.2, 0.043), ("iwp", 0.2, 0.071),
    ("gyroid", 0.4, 0.174), ("diamond", 0.4, 0.201), ("primitive", 0.4, 0.150), ("iwp", 0.4, 0.207),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "density", "modulus"), TABLE)
def test_whole_voxels_at_64_agree_with_independent_finite_elements(kind, density, modulus):
    tensor = elastic.solve(sheet(kind, 64, density), 0.3, 5e-4)[0].tensor
    assert 1 / np.linalg.inv(tensor)[0, 0] == pytest.approx(modulus, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("diameter", "density", "modulus"), [(0.1438, 0.218, 0.044), (0.1751, 0.305, 0.074), (0.2110, 0.411, 0.123)]
)
def test_octet_agrees_with_independent_finite_elements(diameter, density, modulus):
    found = stiffness.effective(octet(64, diameter), poisson=0.3)
    assert found.density == pytest.approx(density, abs=0.002)
    assert found.constants()["E_x"] == pytest.approx(modulus, rel=0.03)


def test_shares_of_a_finer_grid_confirm_the_error():
    def gyroid(n: int) -> np.ndarray:
        return stiffness.shares_of(lambda p: (np.abs(LEVEL["gyroid"](*(2 * np.pi * p).T)) - 0.465) / 9.5, 0, 1, n, 2)

    coarse, fine = stiffness.effective(gyroid(32), poisson=0.3), stiffness.effective(gyroid(64), poisson=0.3)
    a, b = coarse.constants()["E_x"], fine.constants()["E_x"]
    assert abs(a / b - 1) < coarse.error + fine.error and fine.error < 0.4 * coarse.error
    assert all(fine.within_bounds().values()) and fine.constants()["E_max"] / b < 1.25


def test_bounds_of_the_table():
    """E 114 GPa, Poisson 0.34, density 0.3: K 14.45, G 7.94 GPa."""
    k, g = stiffness.hashin_shtrikman(0.3, 0.34)
    assert (114 * k, 114 * g) == (pytest.approx(14.45, abs=0.01), pytest.approx(7.94, abs=0.01))


def test_what_does_not_bear_is_refused():
    share = np.zeros((16, 16, 16), np.float32)
    share[4:8, 4:8, 4:8] = 1
    with pytest.raises(GeometryError, match="does not bear"):
        stiffness.effective(share)
    with pytest.raises(GeometryError, match=r"0\.\.1"):
        stiffness.effective(share * 2)
    with pytest.raises(GeometryError, match="even"):
        stiffness.effective(np.ones((15, 16, 16), np.float32))
