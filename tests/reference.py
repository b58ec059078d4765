"""Slow, plain twins of the kernels, written from the formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial import cKDTree

Array = NDArray[np.float64]


def tpms_level(kind: str, cell: float, points: Array) -> Array:
    """f at points (n,3) mm, in library trigonometry."""
    x, y, z = (2 * np.pi / cell * points).T
    sin, cos = np.sin, np.cos
    if kind == "gyroid":
        return sin(x) * cos(y) + sin(y) * cos(z) + sin(z) * cos(x)
    if kind == "diamond":
        return sin(x) * sin(y) * sin(z) + sin(x) * cos(y) * cos(z) + cos(x) * sin(y) * cos(z) + cos(x) * cos(y) * sin(z)
    if kind == "primitive":
        return cos(x) + cos(y) + cos(z)
    if kind == "neovius":
        return 3 * (cos(x) + cos(y) + cos(z)) + 4 * cos(x) * cos(y) * cos(z)
    pairs = cos(2 * x) * cos(2 * y) + cos(2 * y) * cos(2 * z) + cos(2 * z) * cos(2 * x)
    if kind == "frd":
        return 4 * cos(x) * cos(y) * cos(z) - pairs
    if kind == "lidinoid":
        turns = sin(2 * x) * cos(y) * sin(z) + sin(2 * y) * cos(z) * sin(x) + sin(2 * z) * cos(x) * sin(y)
        return 0.5 * turns - 0.5 * pairs + 0.15
    if kind == "splitp":
        turns = sin(2 * x) * sin(z) * cos(y) + sin(2 * y) * sin(x) * cos(z) + sin(2 * z) * sin(y) * cos(x)
        return 1.1 * turns - 0.2 * pairs - 0.4 * (cos(2 * x) + cos(2 * y) + cos(2 * z))
    return 2 * (cos(x) * cos(y) + cos(y) * cos(z) + cos(z) * cos(x)) - (cos(2 * x) + cos(2 * y) + cos(2 * z))


def tpms_distance(kind: str, cell: float, level: float, steps: int, points: Array) -> Array:
    """Signed distance by the same walk, gradients by central differences."""

    def gradient(at: Array) -> Array:
        e = 1e-5 * cell
        shifts = np.eye(3) * e
        sides = [tpms_level(kind, cell, at + d) - tpms_level(kind, cell, at - d) for d in shifts]
        return np.stack(sides, axis=1) / (2 * e)

    foot = points.copy()
    sign = np.where(tpms_level(kind, cell, points) < level, -1.0, 1.0)
    for _ in range(steps + 1):
        g = gradient(foot)
        f = tpms_level(kind, cell, foot) - level
        s = (f + ((points - foot) * g).sum(axis=1)) / (g * g).sum(axis=1)
        foot = points - s[:, None] * g
    return sign * np.linalg.norm(points - foot, axis=1)


def trilinear(values: Array, at: Array) -> Array:
    """values (i,j,k) read at fractional indices (n,3) inside the grid."""
    base = np.minimum(at.astype(int), np.array(values.shape) - 2)
    part = at - base
    out = np.zeros(len(at))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
        out += weight * values[tuple((base + corner).T)]
    return out


def edge_count_manifold(faces: NDArray[np.int32]) -> bool:
    """Every directed edge once, and its opposite once."""
    directed = [(int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1))]
    return len(set(directed)) == len(directed) and {(b, a) for a, b in directed} == set(directed)


def local_thickness(mask: NDArray[np.bool_], radius: Array) -> Array:
    """Largest radius of the balls (radius (i,j,k), voxels) that cover each voxel, by comparing all pairs."""
    inside = np.argwhere(mask)
    r = radius[mask]
    gaps = np.linalg.norm(inside[:, None] - inside[None], axis=2)
    out = np.zeros(mask.shape)
    out[mask] = np.where(gaps < r[None], r[None], 0).max(axis=1)
    return out


def crossing_parity(triangles: Array, points: Array) -> NDArray[np.bool_]:
    """Whether an odd number of triangles (m,3,3) lies above each point (n,3); no point above an edge."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    normal = np.cross(b - a, c - a)
    flat: NDArray[np.bool_] = np.isclose(normal[:, 2], 0, rtol=0, atol=0)
    out = np.empty(len(points), bool)
    for start in range(0, len(points), 256):
        p = points[start : start + 256, None]
        sides = [_turn(u[:, :2], v[:, :2], p[..., :2]) > 0 for u, v in ((a, b), (b, c), (c, a))]
        over = (sides[0] == sides[1]) & (sides[1] == sides[2]) & ~flat
        slope = -normal[:, :2] / np.where(flat, 1, normal[:, 2])[:, None]
        height = a[:, 2] + ((p[..., :2] - a[:, :2]) * slope).sum(axis=-1)
        out[start : start + 256] = (over & (height > p[..., 2])).sum(axis=1) % 2
    return out


def _turn(a: Array, b: Array, p: Array) -> Array:
    """Twice the signed area of (a, b, p) in the plane."""
    return (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])


def triangle_square(p: Array, triangle: Array) -> Array:
    """Squared distance from points (n,3) to one triangle (3,3): the plane where the foot is inside, else three sides."""
    normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
    square = np.full(len(p), np.inf)
    inside = np.ones(len(p), bool)
    for a, b in zip(triangle, np.roll(triangle, -1, axis=0)):
        along = b - a
        t = np.clip((p - a) @ along / max(along @ along, 1e-300), 0, 1)
        square = np.minimum(square, ((p - a - t[:, None] * along) ** 2).sum(axis=1))
        inside &= (p - a) @ np.cross(normal, along) >= 0
    if normal @ normal > 0:
        plane = ((p - triangle[0]) @ normal) ** 2 / (normal @ normal)
        square[inside] = np.minimum(square, plane)[inside]
    return square


def near_distances(corners: Array, band: float, shape: tuple[int, int, int]) -> Array:
    """Least squared distance (i,j,k) to the triangles (m,3,3) that are within band, band^2 elsewhere; all in samples."""
    out = np.full(shape, band * band)
    for t in corners:
        low = np.maximum(np.ceil(t.min(axis=0) - band).astype(int), 0)
        high = np.minimum(np.floor(t.max(axis=0) + band).astype(int) + 1, shape)
        if (high > low).all():
            part = out[tuple(slice(a, b) for a, b in zip(low, high))]
            at = np.indices(part.shape).reshape(3, -1).T + low
            np.minimum(part, triangle_square(at.astype(float), t).reshape(part.shape), out=part)
    return out


def scan_inside(corners: Array, shape: tuple[int, int, int], nudge: Array) -> NDArray[np.bool_]:
    """Samples (i,j,k) with an odd number of triangles (m,3,3) below them in their nudged column."""
    odd = np.zeros(shape, bool)
    for t in corners:
        low = np.maximum(np.ceil(t[:, :2].min(axis=0) - nudge).astype(int), 0)
        high = np.minimum(np.floor(t[:, :2].max(axis=0) - nudge).astype(int) + 1, shape[:2])
        if (high <= low).any():
            continue
        p = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high)), indexing="ij"), axis=-1) + nudge
        sides = np.stack([_turn(t[q, :2], t[(q + 1) % 3, :2], p) for q in range(3)])
        hit = np.asarray((sides > 0).all(axis=0) | (sides < 0).all(axis=0))
        height = np.tensordot(t[[2, 0, 1], 2], sides, 1) / np.where(hit, sides.sum(axis=0), 1)
        above = np.arange(shape[2]) >= height[..., None]
        odd[low[0] : high[0], low[1] : high[1]] ^= hit[..., None] & above
    return odd


def loft_sections(table: Array, z_low: float, step: float, z: Array) -> tuple[Array, Array]:
    """Centre, medial, lateral, depth (n,4) and their slopes at z, by scipy's Hermite spline; constant beyond the ends."""
    nodes = z_low + step * np.arange(len(table))
    spline = CubicHermiteSpline(nodes, table[:, :4], table[:, 4:])
    at = np.clip(z, nodes[0], nodes[-1])
    slope = np.where(((z > nodes[0]) & (z < nodes[-1]))[:, None], spline.derivative()(at), 0.0)
    return spline(at), slope


def loft_value(table: Array, z_low: float, step: float, tip: float, exponent: float, p: Array) -> Array:
    """Gauge of the section minus one at p (n,3); below the tip's base an ellipsoid's."""
    row, _ = loft_sections(table, z_low, step, p[:, 2])
    x = p[:, 0] - row[:, 0]
    u, v = np.abs(x) / np.where(x >= 0, row[:, 1], row[:, 2]), np.abs(p[:, 1]) / row[:, 3]
    tau = np.maximum((z_low + tip - p[:, 2]) / tip, 0)
    return np.hypot((u**exponent + v**exponent) ** (1 / exponent), tau) - 1


def loft_surface(table: Array, z_low: float, step: float, tip: float, exponent: float, spacing: float) -> Array:
    """Points (n,3) on side, tip and top of a loft, about `spacing` mm apart."""
    z_top = z_low + step * (len(table) - 1)
    reach = float(table[:, 1:4].max())
    angle = np.arange(0, 2 * np.pi, spacing / reach)
    fall = np.arange(0, np.pi / 2, spacing / max(tip, reach))
    z = np.concatenate([z_low + tip * (1 - np.cos(fall)), np.arange(z_low + tip, z_top, spacing), [z_top]])
    z, angle = (g.ravel() for g in np.meshgrid(z, angle))
    row, _ = loft_sections(table, z_low, step, z)
    shrink = np.sqrt(1 - np.maximum((z_low + tip - z) / tip, 0) ** 2)
    return _outline(row, z, angle, shrink, exponent, z_top, spacing / reach)


def _outline(row: Array, z: Array, angle: Array, shrink: Array, exponent: float, z_top: float, grain: float) -> Array:
    """Rays at `angle` out of each section's centre to its outline, and rings of them on the top."""
    x, y = np.cos(angle), np.sin(angle)
    gauge = (np.abs(x / np.where(x >= 0, row[:, 1], row[:, 2])) ** exponent + np.abs(y / row[:, 3]) ** exponent) ** (
        1 / exponent
    )
    side = np.column_stack([row[:, 0] + shrink * x / gauge, shrink * y / gauge, z])
    rim, centre = side[z == z_top], np.array([row[z == z_top][0, 0], 0, z_top])
    rings = np.arange(0, 1, grain)
    return np.concatenate([side, (centre + rings[:, None, None] * (rim - centre)).reshape(-1, 3)])


def loft_distance(
    table: Array, z_low: float, step: float, tip: float, exponent: float, p: Array, spacing: float
) -> Array:
    """Signed distance at p (n,3) to the nearest of many surface points: too large by spacing^2 / 8 |distance| at most."""
    far = cKDTree(loft_surface(table, z_low, step, tip, exponent, spacing)).query(p, workers=1)[0]
    inside = (loft_value(table, z_low, step, tip, exponent, p) < 0) & (p[:, 2] < z_low + step * (len(table) - 1))
    return np.where(inside, -far, far)


def ridge(radius: Array, spacing: Array) -> NDArray[np.bool_]:
    """Balls (radius (i,j,k) mm) that no neighbour's ball swallows."""
    wide = np.pad(radius, 1)
    alive = radius > 0
    for shift in np.ndindex(3, 3, 3):
        step = np.linalg.norm((np.array(shift) - 1) * spacing)
        if step:
            alive &= wide[tuple(slice(s, s + n) for s, n in zip(shift, radius.shape))] < radius + step - 1e-6
    return alive


def paint_balls(
    centres: NDArray[np.int64], radii: Array, spacing: Array, shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Largest radius of the balls that cover each voxel (i,j,k)."""
    out = np.zeros(shape, np.float32)
    for centre, r in zip(centres, radii):
        reach = (r / spacing).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, shape)
        part = out[tuple(slice(a, b) for a, b in zip(low, high))]
        away = [((np.arange(a, b) - c) * s) ** 2 for a, b, c, s in zip(low, high, centre, spacing)]
        near = away[0][:, None, None] + away[1][:, None] + away[2] < r * r
        np.copyto(part, np.float32(r), where=near & (part < r))
    return out


def label_pieces(faces: NDArray[np.int32], vertices: int) -> NDArray[np.int32]:
    """Piece of each vertex, numbered by lowest vertex: every vertex takes its faces' lowest label until none changes."""
    label = np.arange(vertices)
    while True:
        lowest = label[faces].min(axis=1)
        after = label.copy()
        for corner in faces.T:
            np.minimum.at(after, corner, lowest)
        after = after[after]
        if (after == label).all():
            return np.unique(label, return_inverse=True)[1].astype(np.int32)
        label = after


def piece_volumes(vertices: Array, faces: NDArray[np.int32], labels: NDArray[np.int32]) -> Array:
    """Signed volume of each piece, about its first vertex."""
    origin = vertices[np.unique(labels, return_index=True)[1]]
    a, b, c = (vertices[faces[:, q]] - origin[labels[faces[:, 0]]] for q in range(3))
    each = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return np.bincount(labels[faces[:, 0]], each, len(origin)).astype(np.float64)


def bad_edges(faces: NDArray[np.int32]) -> int:
    """Directed edges that are doubled or have no single opposite, by sorting."""
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2).astype(np.int64)
    size = int(faces.max()) + 1
    names, row, count = np.unique(ends[:, 0] * size + ends[:, 1], return_inverse=True, return_counts=True)
    other = ends[:, 1] * size + ends[:, 0]
    at = np.minimum(np.searchsorted(names, other), len(names) - 1)
    back = np.where(names[at] == other, count[at], 0)
    return int(((count[row] != 1) | (back != 1) | (ends[:, 0] == ends[:, 1])).sum())


def layer_fit(
    hu: NDArray, spacing: Array, point: Array, normal: Array, blur: Array, reach: tuple[float, float], noise: Array,
    mean: Array, sigma: Array,
) -> Array:  # fmt: skip
    """Edge, ln thickness, marrow, cortex and flesh of one blurred layer, by library least squares on the same voxels."""
    from scipy.optimize import least_squares
    from scipy.special import ndtr

    axis = int(np.argmax(np.abs(normal) / spacing))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    start = (index[:, axis] * spacing[axis] - point[axis]) / normal[axis]
    line = (point + start[:, None] * normal) / spacing
    others = [a for a in range(3) if a != axis]
    weight = np.prod(np.maximum(1 - np.abs(index[:, others] - line[:, others]), 0), axis=1)
    t = (index * spacing - point) @ normal
    keep = (weight >= 0.02) & (t >= -reach[0]) & (t <= reach[1]) & (start >= -reach[0]) & (start <= reach[1])
    t, value, weight = t[keep], hu[tuple(index[keep].T)].astype(float), weight[keep]
    inner, outer = np.clip((-t - 1.2) / 2, 0, 1), np.clip((t - 0.8) / 1.2, 0, 1)
    scale = np.sqrt(weight / (noise[0] ** 2 + (noise[1] * inner) ** 2 + (noise[2] * outer) ** 2))
    s = float(np.sqrt((blur**2) @ normal**2))

    def miss(x: Array) -> Array:
        a, b = ndtr((t - x[0]) / s), ndtr((t - x[0] + np.exp(x[1])) / s)
        model = x[2] * (1 - b) + x[3] * (b - a) + x[4] * a
        return np.concatenate([scale * (model - value), (x - mean) / sigma])

    return least_squares(miss, mean, x_scale=sigma, xtol=1e-12, ftol=1e-12).x


def triangle_distance(corners: Array, points: Array) -> Array:
    """Distance of points (n,3) to the nearest of triangles (m,3,3), over all pairs."""
    import trimesh

    out = np.empty(len(points))
    for n, p in enumerate(points):
        near = trimesh.triangles.closest_point(corners, np.broadcast_to(p, (len(corners), 3)))
        out[n] = np.linalg.norm(near - p, axis=1).min()
    return out


def crossing_pairs(points: Array, faces: NDArray[np.int32]) -> set[tuple[int, int]]:
    """Pairs of faces without a common vertex of which an edge of one passes through the other, over all pairs."""
    out = set()
    for f in range(len(faces)):
        for g in range(f + 1, len(faces)):
            if set(faces[f]) & set(faces[g]):
                continue
            for one, two in ((f, g), (g, f)):
                a, b, c = points[faces[two]]
                for r in range(3):
                    p, q = points[faces[one][r]], points[faces[one][(r + 1) % 3]]
                    u, v, w = np.linalg.solve(np.stack([b - a, c - a, p - q], axis=1), p - a)
                    if u >= 0 and v >= 0 and u + v <= 1 and 0 <= w <= 1:
                        out.add((f, g))
    return out


def elastic_forces(u: Array, share: Array, strain: Array, lam: float, mu: float) -> tuple[Array, float]:
    """Forces (3,i,j,k) and twice the energy of trilinear cubes by eight Gauss points, cube by cube."""
    corner = np.array([(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    gauss = 0.5 + np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(12)
    out, energy = np.zeros(u.shape), 0.0
    for at in np.ndindex(share.shape):
        nodes = tuple(((np.array(at) + corner) % share.shape).T)
        local = u[:, nodes[0], nodes[1], nodes[2]].astype(float)
        for point in gauss:
            factor = np.where(corner, point, 1 - point)
            slope = np.stack([(2 * corner[:, a] - 1) * factor.prod(axis=1) / factor[:, a] for a in range(3)], axis=1)
            gradient = local @ slope + strain
            small = (gradient + gradient.T) / 2
            stress = share[at] / 8 * (lam * np.trace(small) * np.eye(3) + 2 * mu * small)
            energy += float((stress * gradient).sum())
            np.add.at(out, (slice(None), *nodes), stress @ slope.T)
    return out, energy


def crossing_distance(values: Array) -> Array:
    """Distance (steps) from each sample to the nearest point where a grid line changes sign."""
    points = []
    for axis in range(3):
        a, b = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        for at in np.argwhere((a < 0) != (b < 0)):
            part = a[tuple(at)] / (a[tuple(at)] - b[tuple(at)])
            point = at.astype(float)
            point[0] += part
            points.append(np.insert(point[1:], axis, point[0]))
    samples = np.indices(values.shape).reshape(3, -1).T
    return np.sqrt(((samples[:, None] - np.array(points)) ** 2).sum(axis=2).min(axis=1)).reshape(values.shape)


def painted_balls(balls: Array, away: Array, slack: float) -> Array:
    """Diameter of the largest ball (n,4) that covers each sample of {away > 0}, at least twice its distance."""
    out = np.maximum(2.0 * away, 0.0)
    samples = np.moveaxis(np.indices(away.shape), 0, -1)
    for ball in balls.astype(float):
        covered = ((samples - ball[:3]) ** 2).sum(axis=-1) <= (ball[3] + slack) ** 2
        out[covered] = np.maximum(out[covered], 2 * ball[3])
    return np.where(away > 0, out, 0.0)


def ridge_balls(away: Array, side: int, wide: float, most: float) -> tuple[NDArray[np.bool_], Array]:
    """Samples by the ridge of {side away > 0} (i,j,k), and the balls (n,4) that stand on it near them."""
    field = side * away
    last = np.array(field.shape) - 1

    def at(p: NDArray) -> float:
        return float(field[tuple(np.clip(p, 0, last))])

    def slopes(p: NDArray) -> Array:
        return np.array([at(p + step) - at(p - step) for step in np.eye(3, dtype=int)])

    def uphill(p: NDArray) -> tuple[Array, float, float]:
        ways = [(at(p + step) - at(p), at(p - step) - at(p)) for step in np.eye(3, dtype=int)]
        steep = [up if abs(up) > abs(down) else -down for up, down in ways]
        axis = int(np.argmax(np.abs(steep)))
        back = np.clip(p - (2 if steep[axis] > 0 else -2) * np.eye(3, dtype=int)[axis], 0, last)
        steepest = max(float(np.linalg.norm(slopes(back))), 1e-6)
        way = slopes(back) / steepest
        ahead = float(trilinear(field, np.clip(p + 2 * way, 0, last)[None])[0])
        return way, 0.5 * (ahead - at(p) + 2), 0.5 * steepest

    def top(p: NDArray, way: Array, past: float, slope: float) -> tuple[float, float]:
        """Steps to where a line up and a line down meet, and how high."""
        if past <= 0:
            return 0.0, at(p)
        a, b = (float(trilinear(field, np.clip(p + n * way, 0, last)[None])[0]) for n in (2, 3))
        down, up = np.clip(1.1 * (a - b), 0.3, 1), np.clip(1.06 * slope, 0.3, 1)
        reach = float(np.clip((a - at(p) + 2 * down) / (up + down), 0, most))
        return reach, at(p) + up * reach

    score, found = np.zeros(field.shape, np.float32), {}
    for index in np.argwhere(field > 0):
        if (slopes(index) ** 2).sum() > 3.6:
            continue
        way, past, slope = uphill(index)
        r = at(index)
        near = max(at(index + sign * step) for step in np.eye(3, dtype=int) for sign in (1, -1))
        if near > r and past > (0.6 if r < 5 else 0.9):
            continue
        score[tuple(index)] = r + max(past, 0.0)
        reach, height = top(index, way, past, slope)
        found[tuple(index)] = np.append(index + reach * way, height)
    keep = np.zeros(field.shape, np.bool_)
    for index in found:
        size = 1 if score[index] < wide else 2 if score[index] < 4 * wide else 4
        low = [n - n % size for n in index]
        block = score[tuple(slice(a, a + size) for a in low)]
        first = np.unravel_index(int(np.argmax(block)), block.shape)
        keep[index] = all(a + b == c for a, b, c in zip(low, first, index))
    return keep, np.array([found[index] for index in sorted(found) if keep[index]]).reshape(-1, 4)


def softened(mask: NDArray[np.bool_]) -> Array:
    """1/2 less the share of a mask around each sample, at least 0.05 on its own side."""
    share = mask.astype(float)
    for axis in range(3):
        wide = np.pad(share, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, middle, high = (np.take(wide, np.arange(n, n + mask.shape[axis]), axis) for n in range(3))
        share = (low + 2 * middle + high) / 4
    return np.where(mask, np.minimum(0.5 - share, -0.05), np.maximum(0.5 - share, 0.05))


def green_forces(inverse: Array, f: Array) -> Array:
    """f (3,i,j,k) times symmetric matrices (6,i,j,k): xx yy zz yz xz xy."""
    xx, yy, zz, yz, xz, xy = inverse
    return np.einsum("abijk,bijk->aijk", np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), f)


def plane_dots(a: Array, b: Array) -> Array:
    """Sum of a b (3,i,j,k) by plane."""
    return (a.astype(float) * b).sum(axis=(0, 2, 3))


def advanced(step: float, p: Array, q: Array, u: Array, r: Array) -> tuple[Array, Array]:
    """u + step p and r - step q."""
    return u + step * p, r - step * q


def turned(share: float, z: Array, p: Array) -> Array:
    """z + share p."""
    return z + share * p


def surface_area(values: Array, tetrahedra: NDArray[np.int64]) -> float:
    """Area (steps^2) where values (i,j,k) change sign, linear in the tetrahedra (t,4 corners 4 i + 2 j + k) of each cube."""
    total = 0.0
    corners = np.array(list(np.ndindex(2, 2, 2)), float)
    for cell in np.ndindex(*(n - 1 for n in values.shape)):
        eight = values[tuple(slice(n, n + 2) for n in cell)].ravel()
        for tetrahedron in tetrahedra if np.isfinite(eight).all() else []:
            low = [c for c in tetrahedron if eight[c] < 0]
            high = [c for c in tetrahedron if eight[c] >= 0]
            cut = [corners[a] + eight[a] / (eight[a] - eight[b]) * (corners[b] - corners[a]) for a in low for b in high]
            if len(cut) == 3:
                total += float(np.linalg.norm(np.cross(cut[1] - cut[0], cut[2] - cut[0]))) / 2
            elif len(cut) == 4:  # the four points in the order of low and high: the last two change places
                total += float(np.linalg.norm(np.cross(cut[1] - cut[0], cut[3] - cut[0]))) / 2
                total += float(np.linalg.norm(np.cross(cut[3] - cut[0], cut[2] - cut[0]))) / 2
    return total
