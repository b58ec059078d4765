"""Shapes as distance fields, mm. Every function returns a Field; exact ones are Euclidean inside and outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import edt
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from implantforge.core import Array, Field, GeometryError, Grid, Mesh, Pose
from implantforge.core.field import Form, made
from implantforge.kernels import nearest, scan
from implantforge.kernels.loft import loft_distance
from implantforge.kernels.trilinear import trilinear, trilinear_few

LOFT_LIPSCHITZ = 1.15  # deep inside the foot found may not be the nearest: |f| may pass the distance by 8 %
MOST_SAMPLES = 400_000_000
SLAB = 8  # sample planes that one thread converts
FAR_MM = 1e4  # half-spaces are bounded by a box this large, so that a box always exists
BESIDE = 1.8  # samples from the mesh within which all triangles are asked; farther out those of the neighbours are
FEW = 20_000  # points below which one thread reads faster than two

Profile = Callable[[Array, Array], Array]


def _positive(shape: str, **sizes: float) -> None:
    for name, size in sizes.items():
        if not size > 0:
            raise GeometryError(f"{shape}: {name} must be positive, got {size}")


def _unit(shape: str, vector: ArrayLike) -> Array:
    v = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(v))
    if not length > 0:
        raise GeometryError(f"{shape}: axis has no length, got {v.tolist()}")
    return v / length


def _around(centre: Array, reach: float | Array) -> Array:
    return np.array([centre - reach, centre + reach])


def _growth(mm: float) -> Array:
    """What to add to bounds (2,3) so that they reach mm farther."""
    return np.array([[-mm], [mm]])


def _along(p: Array, start: Array, axis: Array) -> Array:
    """(p - start) . axis by columns: eight times faster than a matrix product of this shape."""
    return p[:, 0] * axis[0] + p[:, 1] * axis[1] + p[:, 2] * axis[2] - float(start @ axis)


def _square(p: Array, start: Array) -> Array:
    """Squared distance from start, by columns."""
    return (p[:, 0] - start[0]) ** 2 + (p[:, 1] - start[1]) ** 2 + (p[:, 2] - start[2]) ** 2


def _leaf(step: str, *numbers: Array | float) -> Form:
    """Form of a shape given by these numbers."""
    return Form(step, tuple(np.concatenate([np.ravel(n) for n in numbers]).astype(np.float64).tolist()))


def sphere(centre_mm: ArrayLike, radius_mm: float) -> Field:
    """Ball."""
    _positive("sphere", radius_mm=radius_mm)
    c = np.asarray(centre_mm, np.float64)
    form = _leaf("sphere", c, radius_mm)
    return Field(lambda p: np.sqrt(_square(p, c)) - radius_mm, _around(c, radius_mm), exact=True, form=form)


def box(centre_mm: ArrayLike, size_mm: ArrayLike) -> Field:
    """Axis-parallel box of full side lengths size_mm (3,)."""
    c, half = np.asarray(centre_mm, np.float64), np.asarray(size_mm, np.float64) / 2
    _positive("box", smallest_side_mm=float(half.min()))

    def evaluate(p: Array) -> Array:
        d = np.abs(p - c) - half
        return np.sqrt((np.maximum(d, 0) ** 2).sum(axis=1)) + np.minimum(d.max(axis=1), 0)

    return Field(evaluate, _around(c, half), exact=True, form=_leaf("box", c, half))


def half_space(point_mm: ArrayLike, normal: ArrayLike) -> Field:
    """Everything on the side of point_mm that the normal points away from; bounds are a box of FAR_MM."""
    c, n = np.asarray(point_mm, np.float64), _unit("half_space", normal)
    form = _leaf("plane", n, float(c @ n))
    return Field(lambda p: _along(p, c, n), _around(np.zeros(3), FAR_MM), exact=True, form=form)


def capsule(start_mm: ArrayLike, end_mm: ArrayLike, radius_mm: float) -> Field:
    """Cylinder with hemispherical ends centred on start and end."""
    _positive("capsule", radius_mm=radius_mm)
    a, b = np.asarray(start_mm, np.float64), np.asarray(end_mm, np.float64)
    along = b - a
    square = max(float(along @ along), 1e-30)

    def evaluate(p: Array) -> Array:
        t = np.clip((p - a) @ along / square, 0, 1)
        return np.sqrt(((p - a - t[:, None] * along) ** 2).sum(axis=1)) - radius_mm

    length = float(np.sqrt(square))
    form = _leaf("capsule", a, along / length, length, radius_mm, radius_mm)
    bounds = np.array([np.minimum(a, b) - radius_mm, np.maximum(a, b) + radius_mm])
    return Field(evaluate, bounds, exact=True, form=form)


def _revolved(start: Array, axis: Array, profile: Profile, bounds: Array, form: Form) -> Field:
    """Solid of revolution: profile(radius, height) about the axis through start."""

    def evaluate(p: Array) -> Array:
        t = _along(p, start, axis)
        return profile(np.sqrt(np.maximum(_square(p, start) - t * t, 0)), t)

    return Field(evaluate, bounds, exact=True, form=form)


def _discs(a: Array, b: Array, axis: Array, ra: float, rb: float) -> Array:
    """Box around two discs normal to axis."""
    side = np.sqrt(np.maximum(1 - axis**2, 0))
    return np.array([np.minimum(a - ra * side, b - rb * side), np.maximum(a + ra * side, b + rb * side)])


def cylinder(start_mm: ArrayLike, end_mm: ArrayLike, radius_mm: float) -> Field:
    """Cylinder with flat ends at start and end."""
    return frustum(start_mm, end_mm, radius_mm, radius_mm)


def frustum(start_mm: ArrayLike, end_mm: ArrayLike, start_radius_mm: float, end_radius_mm: float) -> Field:
    """Cone frustum with flat ends; one radius may be zero."""
    _positive("frustum", largest_radius_mm=max(start_radius_mm, end_radius_mm))
    a, b = np.asarray(start_mm, np.float64), np.asarray(end_mm, np.float64)
    axis, length = _unit("frustum", b - a), float(np.linalg.norm(b - a))
    ra, rb = float(start_radius_mm), float(end_radius_mm)
    slope = np.array([rb - ra, length])

    def profile(r: Array, t: Array) -> Array:
        cap = np.maximum(r - np.where(t < length / 2, ra, rb), 0) ** 2 + np.minimum(np.abs(t), np.abs(t - length)) ** 2
        u = np.clip(((r - ra) * slope[0] + t * slope[1]) / (slope @ slope), 0, 1)
        side = (r - ra - u * slope[0]) ** 2 + (t - u * slope[1]) ** 2
        inside = (t > 0) & (t < length) & ((r - ra) * length < t * slope[0])
        return np.where(inside, -1, 1) * np.sqrt(np.minimum(cap, side))

    return _revolved(a, axis, profile, _discs(a, b, axis, ra, rb), _leaf("cone", a, axis, length, ra, rb))


def round_cone(start_mm: ArrayLike, end_mm: ArrayLike, start_radius_mm: float, end_radius_mm: float) -> Field:
    """Convex hull of two balls."""
    _positive("round_cone", start_radius_mm=start_radius_mm, end_radius_mm=end_radius_mm)
    a, b = np.asarray(start_mm, np.float64), np.asarray(end_mm, np.float64)
    ra, rb, length = float(start_radius_mm), float(end_radius_mm), float(np.linalg.norm(b - a))
    if length <= abs(ra - rb):
        return sphere(a, ra) if ra >= rb else sphere(b, rb)
    sine = (ra - rb) / length
    cosine = float(np.sqrt(1 - sine * sine))

    def profile(r: Array, t: Array) -> Array:
        k = t * cosine - r * sine
        side = r * cosine + t * sine - ra
        return np.where(k < 0, np.hypot(r, t) - ra, np.where(k > cosine * length, np.hypot(r, t - length) - rb, side))

    bounds = np.array([np.minimum(a - ra, b - rb), np.maximum(a + ra, b + rb)])
    axis = _unit("round_cone", b - a)
    return _revolved(a, axis, profile, bounds, _leaf("round_cone", a, axis, length, ra, rb))


def torus(centre_mm: ArrayLike, axis: ArrayLike, ring_radius_mm: float, tube_radius_mm: float) -> Field:
    """Ring about the axis."""
    _positive("torus", ring_radius_mm=ring_radius_mm, tube_radius_mm=tube_radius_mm)
    c, n = np.asarray(centre_mm, np.float64), _unit("torus", axis)
    bounds = _discs(c, c, n, ring_radius_mm, ring_radius_mm) + _growth(tube_radius_mm)
    form = _leaf("torus", c, n, 1.0, ring_radius_mm, tube_radius_mm)
    return _revolved(c, n, lambda r, t: np.hypot(r - ring_radius_mm, t) - tube_radius_mm, bounds, form)


def smooth_union(a: Field, b: Field, radius_mm: float) -> Field:
    """Union with a fillet that begins where the two distances differ by radius_mm; adds at most radius_mm / 4."""
    _positive("smooth_union", radius_mm=radius_mm)

    def evaluate(p: Array) -> NDArray:
        fa, fb = a.evaluate(p), b.evaluate(p)
        blend = np.maximum(radius_mm - np.abs(fa - fb), 0)
        return np.minimum(fa, fb) - blend * blend / (4 * radius_mm)

    both = (a | b).bounds + _growth(radius_mm / 4)
    form = made("smooth_min", a, b, numbers=(float(radius_mm),))
    return Field(evaluate, both, max(a.lipschitz, b.lipschitz), form=form)


def smooth_intersection(a: Field, b: Field, radius_mm: float) -> Field:
    """Intersection whose edges are rounded where the two distances differ by less than radius_mm; removes at most a
    quarter."""
    _positive("smooth_intersection", radius_mm=radius_mm)

    def evaluate(p: Array) -> NDArray:
        fa, fb = a.evaluate(p), b.evaluate(p)
        blend = np.maximum(radius_mm - np.abs(fa - fb), 0)
        return np.maximum(fa, fb) + blend * blend / (4 * radius_mm)

    form = made("smooth_max", a, b, numbers=(float(radius_mm),))
    return Field(evaluate, (a & b).bounds, max(a.lipschitz, b.lipschitz), form=form)


def from_samples(grid: Grid, values: NDArray, of: Form | None = None) -> Field:
    """Trilinear field of distances (i,j,k) sampled on the grid; beyond it, the border value plus the distance to the
    grid.

    lipschitz is the steepest slope between neighbouring samples times sqrt(3) at most, never below 1. `of` names what was
    sampled, for those who draw it: `prism`, the points (n,2) of an outline that goes along z.
    """
    samples = np.ascontiguousarray(values, np.float32)
    if samples.shape != grid.shape or min(samples.shape) < 2:
        raise GeometryError(f"from_samples: {samples.shape} samples on a grid of {grid.shape}, 2 or more an axis")
    slopes = [float(np.abs(np.diff(samples, axis=a)).max()) / grid.spacing_mm[a] for a in range(3)]
    pose, spacing = grid.pose, np.array(grid.spacing_mm)
    rotation, origin = np.array(pose.rotation), np.array(pose.origin_mm)

    def evaluate(p: Array) -> Array:
        out = np.empty(len(p))
        read = trilinear if len(p) > FEW else trilinear_few
        read(samples, rotation, origin, spacing, np.ascontiguousarray(p, np.float64), out)
        return out

    corners = grid.to_patient(np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T)
    steep = min(float(np.linalg.norm(slopes)), max(1.0, 1.2 * max(slopes)))
    numbers = (*rotation.ravel().tolist(), *origin.tolist(), *spacing.tolist(), *map(float, samples.shape))
    bounds = np.array([corners.min(axis=0), corners.max(axis=0)])
    form = Form("samples", numbers, () if of is None else (of,), samples, max(1.0, steep))
    return Field(evaluate, bounds, max(1.0, steep), form=form)


def periodic(values: ArrayLike, lengths_mm: ArrayLike, bounds: ArrayLike) -> Field:
    """A tile of values (i,j,k), lengths_mm (3,) long and its low corner at 0, repeated without end and read linearly.

    Counts and lengths may differ by axis. lipschitz is the steepest slope between neighbours, all axes together.
    """
    tile, lengths = np.asarray(values, np.float32), np.asarray(lengths_mm, np.float64)
    if tile.ndim != 3 or not tile.size or lengths.shape != (3,) or not (lengths > 0).all():
        raise GeometryError(f"periodic: needs values (i,j,k) and three lengths, got {tile.shape}, {lengths.tolist()}")
    table = np.pad(tile, ((0, 1),) * 3, mode="wrap")
    table.setflags(write=False)
    counts = np.array(tile.shape)
    rises = [float(np.abs(np.diff(table, axis=a)).max()) * counts[a] / lengths[a] for a in range(3)]
    steep = max(float(np.linalg.norm(rises)), 1e-9)
    form = Form("periodic", (*map(float, lengths), *map(float, counts)), (), table, steep)

    def evaluate(p: Array) -> Array:
        at = (p / lengths - np.floor(p / lengths)) * counts
        return map_coordinates(table, at.T, np.float64, order=1, mode="nearest")

    return Field(evaluate, np.asarray(bounds, np.float64), steep, form=form)


def waves(terms: ArrayLike, lengths_mm: ArrayLike, bounds: ArrayLike, slope: float | None = None) -> Field:
    """Sum of products of waves along the axes, lengths_mm (3,) long. terms (n,4): a weight and for each axis 0 for 1,
    1 and 2 for sine and cosine, 3 and 4 for those of twice the angle. slope is its steepest a mm, where known."""
    rows, lengths = np.asarray(terms, np.float64), np.asarray(lengths_mm, np.float64)
    if rows.ndim != 2 or rows.shape[1:] != (4,) or not np.isin(rows[:, 1:], range(5)).all() or not (lengths > 0).all():
        raise GeometryError(f"waves: needs rows of a weight and three waves 0..4, and lengths, got {rows.tolist()}")
    rise = (np.abs(rows[:, :1]) * np.array([0, 1, 1, 2, 2])[rows[:, 1:].astype(int)]).sum(axis=0)
    steep = slope if slope is not None else float(np.linalg.norm(2 * np.pi / lengths * rise))
    form = Form("waves", (*map(float, lengths), *rows.ravel().tolist()), slope=steep)

    def evaluate(p: Array) -> Array:
        angle = 2 * np.pi / lengths * p
        sine, cosine = np.sin(angle), np.cos(angle)
        wave = [np.ones_like(sine), sine, cosine, 2 * sine * cosine, 1 - 2 * sine * sine]
        return sum(w * wave[int(a)][:, 0] * wave[int(b)][:, 1] * wave[int(c)][:, 2] for w, a, b, c in rows)

    return Field(evaluate, np.asarray(bounds, np.float64), steep, form=form)


def from_mesh(mesh: Mesh, h_mm: float, band_mm: float, *, inward: bool = False) -> Field:
    """Distance to a closed mesh, exact at samples h_mm apart within band_mm of it, a lower bound of it beyond, trilinear
    between. With inward the band lies inside only: outside, distances end 1.8 samples from the mesh, in half the time.

    Inside is where a column from below has crossed the mesh an odd number of times. Raises GeometryError for an empty
    mesh or more than 400 M samples.
    """
    if not len(mesh.faces) or not 0 < h_mm <= band_mm:
        raise GeometryError(
            f"from_mesh: needs faces and 0 < h <= band, got {len(mesh.faces)} faces, {h_mm}, {band_mm} mm"
        )
    low, high = mesh.bounds + _growth(band_mm + h_mm)
    shape = tuple(int(n) for n in np.ceil((high - low) / h_mm).astype(int) + 1)
    if np.prod(shape, dtype=np.int64) > MOST_SAMPLES:
        raise GeometryError(f"from_mesh: {shape} samples of {h_mm} mm; crop the mesh or raise h")
    corners = ((mesh.vertices - low) / h_mm)[mesh.faces]
    band = band_mm / h_mm
    order, starts = _slabs(corners[:, :, 0], min(band, BESIDE), shape[0])
    inside = np.zeros(shape, np.bool_)
    scan.crossings(corners, order, starts, SLAB, np.array([1.7e-5, 2.9e-5]), inside)
    square = _squares(corners, order, starts, band, shape, inside if inward else None)  # type: ignore[arg-type]
    values = np.sqrt(square, out=square)
    away = values >= band
    if inward:
        away |= ~inside & (values >= BESIDE)
    if not away.all():
        # how far the band is, less a sample: the mesher passes over what no surface can reach
        # (half a diagonal at either end where the band is thin)
        values[away] += np.maximum(edt.edt(away, parallel=0)[away] - (1.75 if inward else 1.0), 0.0)
    values *= np.where(inside, np.float32(-h_mm), np.float32(h_mm))
    return from_samples(Grid(Pose(origin_mm=low), np.full(3, h_mm), shape), values)  # type: ignore[arg-type]


def _squares(
    corners: Array,
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    band: float,
    shape: tuple[int, int, int],
    within: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Squared distances in samples (i,j,k), at most band^2, not within at most BESIDE^2: exact within BESIDE; beyond, of
    the triangles that are nearest to the samples around, 1 in 100 of which is second nearest by more than 0.01 sample."""
    beside = min(band, BESIDE)
    owner, square = np.full(shape, -1, np.int32), np.full(shape, np.inf, np.float32)
    nearest.seed(corners, order, starts, SLAB, beside, owner, square)
    if within is not None:
        left_out = ~within & (owner < 0)
        owner[left_out], square[left_out] = -2, beside * beside
    # a ring of samples at a time, and twice more so that each has asked all around it
    rings = int(np.ceil((band - beside) / 0.9)) if band > beside else 0
    for ring in range(rings + 2 if rings else 0):
        last = owner, square
        owner, square = np.empty_like(owner), np.empty_like(square)
        nearest.spread(corners, ring < rings, *last, owner, square)
    return np.minimum(square, np.float32(band * band), out=square)


def _slabs(x: Array, band: float, planes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles (m,3 corner coordinates) that come within band of each slab of SLAB planes: rows, and where slabs
    start."""
    count = -(-planes // SLAB)
    first = np.clip((x.min(axis=1) - band) // SLAB, 0, count - 1).astype(np.int64)
    last = np.clip((x.max(axis=1) + band) // SLAB, 0, count - 1).astype(np.int64)
    spans = last - first + 1
    rows = np.repeat(np.arange(len(x)), spans)
    slab = np.repeat(first, spans) + np.arange(len(rows)) - np.repeat(np.cumsum(spans) - spans, spans)
    order = np.argsort(slab, kind="stable")
    return rows[order], np.concatenate([[0], np.cumsum(np.bincount(slab, minlength=count))])


def shared(field: Field) -> Field:
    """The same field, which remembers its answer for the last points it saw, if those are read-only and so cannot change.

    For a shape that stands in several branches of one design.
    """
    last: list[tuple[Array, NDArray]] = []

    def evaluate(p: Array) -> NDArray:
        if p.flags.writeable:
            return field.evaluate(p)
        if not last or last[0][0] is not p:
            answer = field.evaluate(p)
            answer.setflags(write=False)
            last[:] = [(p, answer)]
        return last[0][1]

    return replace(field, evaluate=evaluate)


def sampled(field: Field, h_mm: float, margin_mm: float = 3.0, band_mm: float = 2.5) -> Field:
    """The field read from its own samples h_mm apart, margin_mm beyond its bounds: for shapes that are dear to evaluate.

    Beyond band_mm from the surface, where a pseudo-distance may jump, the distance transform of the samples' signs takes
    over. The surface moves by h^2/8 times its curvature (0.4 mm samples, 5 mm radius: 4 um); edges round by about h/2.
    """
    low = field.bounds[0] - margin_mm
    shape = np.maximum(np.ceil((field.bounds[1] + margin_mm - low) / h_mm).astype(int) + 1, 2)
    grid = Grid(Pose(np.eye(3), low), np.full(3, h_mm), (int(shape[0]), int(shape[1]), int(shape[2])))
    values = np.empty(grid.shape, np.float32)
    for i in range(grid.shape[0]):
        index = np.indices((1, *grid.shape[1:])).reshape(3, -1).T + [i, 0, 0]
        values[i] = field.evaluate(grid.to_patient(index)).reshape(grid.shape[1:])
    inside = values < 0
    outer = edt.edt(~inside, anisotropy=(h_mm,) * 3, parallel=1) - h_mm / 2
    inner = h_mm / 2 - edt.edt(inside, anisotropy=(h_mm,) * 3, parallel=1)
    far = np.where(inside, inner, outer)
    values = np.where(np.abs(far) < band_mm, np.clip(values, far - h_mm, far + h_mm), far)
    read = from_samples(grid, values)
    assert read.form is not None
    return replace(read, bounds=field.bounds, lipschitz=1.5, form=replace(read.form, slope=1.5))


def loft(
    z_mm: ArrayLike,
    centre_x_mm: ArrayLike,
    medial_mm: ArrayLike,
    lateral_mm: ArrayLike,
    depth_mm: ArrayLike,
    exponent: float = 2.5,
) -> Field:
    """Superellipse sections |x'/a|^n + |y/b|^n <= 1 stacked along z, with x' = x - centre_x, b = depth and a = medial
    for x' > 0, lateral otherwise (half-widths, mm); arrays (m,) with z rising, monotone cubic between them.

    The lowest section closes to a bullet tip that ends at z_mm[0]; the top at z_mm[-1] is flat. The field is the
    distance to the foot point on the surface: within 3 % for offsets of 2 mm either way; deep inside only its sign is
    meant.
    """
    z = np.asarray(z_mm, np.float64)
    rows = [np.asarray(v, np.float64) for v in (centre_x_mm, medial_mm, lateral_mm, depth_mm)]
    if z.ndim != 1 or len(z) < 2 or any(r.shape != z.shape for r in rows) or not (np.diff(z) > 0).all():
        raise GeometryError(f"loft: needs equally long arrays with rising z, got {[v.size for v in (z, *rows)]}")
    _positive("loft", smallest_half_width_mm=float(min(r.min() for r in rows[1:])))
    if not 1.5 <= exponent <= 8:
        raise GeometryError(f"loft: exponent {exponent} outside 1.5..8")
    nodes = max(64, int(np.ceil((z[-1] - z[0]) / 0.25)) + 1)
    at = np.linspace(z[0], z[-1], nodes)
    curves = [PchipInterpolator(z, r) for r in rows]
    table = np.column_stack([*(c(at) for c in curves), *(c.derivative()(at) for c in curves)])
    tip = min(0.25 * (table[0, 1] + table[0, 2]) + 0.5 * table[0, 3], 0.5 * (z[-1] - z[0]))
    step = float(at[1] - at[0])

    def evaluate(p: Array) -> Array:
        out = np.empty(len(p))
        loft_distance(table, z[0], step, z[-1], tip, exponent, 8, np.ascontiguousarray(p, np.float64), out)
        return out

    centre, medial, lateral, depth = table[:, :4].T
    low = [(centre - lateral).min(), -depth.max(), z[0]]
    high = [(centre + medial).max(), depth.max(), z[-1]]
    return Field(evaluate, np.array([low, high]), LOFT_LIPSCHITZ)
