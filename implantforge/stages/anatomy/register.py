"""Which bone, which side, which way is up: the mean shapes laid on a surface from every start, then bent to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from implantforge.core import Array, Mesh
from implantforge.stages.anatomy.atlas import Atlas, Fragment, spread_of, vertex_normals
from implantforge.stages.anatomy.marks import bone

_FLIPS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
_FAR_MM = 10.0


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points (n,3) mm spread evenly over a surface, and the outward normals there."""

    points: Array
    normals: Array

    def every(self, count: int) -> Cloud:
        """About `count` of the points, evenly taken."""
        step = max(len(self.points) // count, 1)
        return Cloud(self.points[::step], self.normals[::step])

    def mirrored(self) -> Cloud:
        """The mirror image in x = 0."""
        flip = np.array([-1.0, 1.0, 1.0])
        return Cloud(self.points * flip, self.normals * flip)


@dataclass(frozen=True, eq=False)
class Match:
    """A left mean bone laid on a surface: patient = (scale * shape @ rotation.T + shift), x turned round when mirrored.

    weights are the shape's, in standard deviations; residual_mm is the RMS distance of the surface that follows it,
    covered the share of the surface that does, seen the share (0..1) of model vertices the surface shows.
    """

    atlas: Atlas
    mirrored: bool
    rotation: Array
    shift: Array
    scale: float
    weights: Array
    score: float = np.inf
    residual_mm: float = np.inf
    covered: float = 0.0
    seen: NDArray[np.bool_] | None = None
    warp: Array | None = None

    def model_shape(self) -> Array:
        """(n,3) vertices of the bent mean bone in the model's frame, with what the modes could not follow."""
        shape = self.atlas.shape(self.weights)
        return shape if self.warp is None else shape + self.warp

    def mark(self, name: str) -> Array:
        """A landmark of the bent mean bone in the model's frame."""
        at = self.atlas.mark(name, self.weights)
        if self.warp is None:
            return at
        far, near = cKDTree(self.atlas.shape(self.weights)).query(at, k=6)
        share = 1.0 / (far + 1.0)
        moved: Array = at + share @ self.warp[near] / share.sum()
        return moved

    def to_patient(self, model_mm: Array) -> Array:
        """From the model's frame to the patient's."""
        out = self.scale * np.asarray(model_mm) @ self.rotation.T + self.shift
        return out * [-1.0, 1.0, 1.0] if self.mirrored else out

    def to_model(self, patient_mm: Array) -> Array:
        """From the patient's frame to the model's (a left bone, LPS, centred)."""
        points = np.asarray(patient_mm) * [-1.0, 1.0, 1.0] if self.mirrored else np.asarray(patient_mm)
        return (points - self.shift) @ self.rotation / self.scale

    def turn(self, way: Array) -> Array:
        """A direction of the model's frame in the patient's."""
        out = np.asarray(way) @ self.rotation.T
        return out * [-1.0, 1.0, 1.0] if self.mirrored else out


def sample(mesh: Mesh, count: int) -> Cloud:
    """`count` points spread over the surface by area, the same for the same mesh wherever it lies."""
    normals, _ = vertex_normals(mesh.vertices, mesh.faces)
    area = np.linalg.norm(mesh.face_cross, axis=1)
    total = np.cumsum(area)
    k = np.arange(count)
    # a stride prime to the order of faces keeps every prefix of the points spread over the whole bone
    at = (k * 0.6180339887498949) % 1.0
    face = np.minimum(np.searchsorted(total, at * total[-1] * (1 - 1e-9)), len(area) - 1)
    r1, r2 = np.sqrt((0.5 + k * 0.7548776662466927) % 1.0), (0.5 + k * 0.5698402909980532) % 1.0
    share = np.stack([1 - r1, r1 * (1 - r2), r1 * r2], axis=1)
    corner = mesh.faces[face]
    # corners in the order of the edges they face: a mirrored or renumbered triangle is sampled at the same place
    edge = np.linalg.norm(
        mesh.vertices[np.roll(corner, -1, axis=1)] - mesh.vertices[np.roll(corner, 1, axis=1)], axis=2
    )
    corner = np.take_along_axis(corner, np.argsort(np.round(edge, 9), axis=1, kind="stable"), axis=1)
    points = np.einsum("ij,ijk->ik", share, mesh.vertices[corner])
    n = np.einsum("ij,ijk->ik", share, normals[corner])
    return Cloud(points, n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12))


def _starts(atlas: Atlas, cloud: Cloud, mirrored: bool) -> list[Match]:
    """Mean shape by principal axes, for every fragment of like proportions and the four turns."""
    centre, axes, spread = spread_of(cloud.points, np.ones(len(cloud.points)))
    out = []
    for piece in atlas.fragments:
        if _unlike(piece, spread) > 0.45:
            continue
        scale = float(np.clip(np.linalg.norm(spread) / np.linalg.norm(piece.spread), 0.3, 1.5))
        for flip in _FLIPS:
            rotation = (axes * flip) @ piece.axes.T
            shift = centre - scale * rotation @ piece.centre
            out.append(Match(atlas, mirrored, rotation, shift, scale, np.zeros(len(atlas.modes))))
    return out


def _unlike(piece: Fragment, spread: Array) -> float:
    ratio = np.log(spread / piece.spread)
    return float(np.ptp(ratio))


def _rotation(w: Array) -> Array:
    angle = float(np.linalg.norm(w))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = w / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    out: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return out


Rows = tuple[Array, Array, Array, Array, Array]
"""Of points y (m,3) in the model's frame: the unit vectors n (m,3) they are measured along, how the modes move the shape
along n (m,k), the gaps (m,) and weights (m,)."""


def _from_points(
    match: Match, cloud: Cloud, shape: Array, normals: Array, tree: cKDTree, band: float, bend: int
) -> Rows:
    """Every point against the tangent plane of the shape's nearest vertex."""
    y = (cloud.points - match.shift) @ match.rotation / match.scale
    ny = cloud.normals @ match.rotation
    near = tree.query(y)[1]
    n = normals[near]
    gap = y - shape[near]
    residual = np.einsum("ij,ij->i", gap, n)
    agree = np.einsum("ij,ij->i", ny, n).clip(0, 1)
    aside = np.maximum(np.einsum("ij,ij->i", gap, gap), residual**2)
    weight = agree**2 / (1.0 + aside / (band * band)) ** 2
    # along the normal of each vertex first: many points share a vertex
    along = np.einsum("ij,kij->ik", normals, match.atlas.modes[:bend])[near] if bend else np.zeros((len(y), 0))
    return y, n, along, residual, weight


def _from_shape(match: Match, cloud: Cloud, shape: Array, normals: Array, tree: cKDTree, band: float) -> Rows:
    """Every vertex of the shape against the tangent plane of the nearest point (tree: of the cloud's points)."""
    near = tree.query(match.scale * shape @ match.rotation.T + match.shift)[1]
    y = (cloud.points[near] - match.shift) @ match.rotation / match.scale
    ny = cloud.normals[near] @ match.rotation
    gap = y - shape
    agree = np.einsum("ij,ij->i", ny, normals).clip(0, 1)
    n = ny + normals
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
    residual = np.einsum("ij,ij->i", gap, n)
    weight = (
        match.atlas.area
        / match.atlas.area.mean()
        * agree**2
        / (1.0 + np.einsum("ij,ij->i", gap, gap) / (band * band)) ** 2
    )
    return y, n, np.einsum("ij,kij->ik", n, match.atlas.modes), residual, weight


def _solved(match: Match, rows: list[Rows], noise: float) -> Match:
    """The match moved by weighted least squares of all rows; priors of a unit on each mode and of 0.2 on the logarithm of
    size."""
    bend = rows[0][2].shape[1]
    prior, pull = np.ones(7 + bend), np.zeros(7 + bend)
    prior[:3], prior[3:6], prior[6] = 1e-2, 1e-3, 25.0
    pull[6] = -prior[6] * np.log(match.scale)
    pull[7:] = match.weights[:bend]
    left, right = np.diag(prior), -pull
    for y, n, along, residual, weight in rows:
        jacobian = np.empty((len(y), 7 + bend))
        for k in range(3):
            one, two = (k + 1) % 3, (k + 2) % 3
            jacobian[:, k] = y[:, one] * n[:, two] - y[:, two] * n[:, one]
        jacobian[:, 3:6] = n
        jacobian[:, 6] = np.einsum("ij,ij->i", y, n)
        jacobian[:, 7:] = -along
        # samples near each other say the same thing: they count as a few hundred independent ones
        share = min(len(y), 800) / len(rows) / max(float(weight.sum()), 1.0) / noise**2
        heavy = (jacobian * (weight * share)[:, None]).T
        left = left + heavy @ jacobian
        right = right - heavy @ residual
    return _moved(match, np.linalg.solve(left, right), bend)


def _moved(match: Match, delta: Array, bend: int) -> Match:
    """y' = exp(sigma) (turn @ y) + shift in the model's frame, written as a change of the pose."""
    turn, move, grow = _rotation(delta[:3]), delta[3:6], float(np.exp(np.clip(delta[6], -0.2, 0.2)))
    scale = match.scale / grow
    rotation = match.rotation @ turn.T
    shift = match.shift - scale * rotation @ move
    weights = match.weights
    if bend:
        weights = weights.copy()
        weights[:bend] = np.clip(weights[:bend] + delta[7:], -4.0, 4.0)
    return replace(match, rotation=rotation, shift=shift, scale=scale, weights=weights)


def _rigid(match: Match, cloud: Cloud, steps: int, bands: tuple[float, float]) -> Match:
    atlas = match.atlas
    for band in np.geomspace(*bands, steps):
        match = _solved(match, [_from_points(match, cloud, atlas.mean, atlas.normals, atlas.tree, band, 0)], 2.0)
    return match


def _bent(match: Match, cloud: Cloud, steps: int, bands: tuple[float, float], bend: int) -> Match:
    bend = min(bend, len(match.atlas.modes))
    for band in np.geomspace(*bands, steps):
        shape = match.model_shape()
        normals = match.atlas.normals_of(shape)
        match = _solved(match, [_from_points(match, cloud, shape, normals, cKDTree(shape), band, bend)], 1.0)
    return match


def judged(match: Match, cloud: Cloud, tree: cKDTree, part: int = 1) -> Match:
    """The match with its score: how far the surface lies from the shape, and the shape, where the surface shows it, from
    the surface; both in mm of the model, so that a child's bone is held to the same. part: every how many of the shape's
    vertices look back."""
    atlas, shape = match.atlas, match.atlas.mean
    normals, model_tree = atlas.normals, atlas.tree
    if match.weights.any():
        shape = match.model_shape()
        normals, model_tree = atlas.normals_of(shape), cKDTree(shape)
    y = (cloud.points - match.shift) @ match.rotation / match.scale
    ny = cloud.normals @ match.rotation
    far, near = model_tree.query(y)
    n = normals[near]
    plane = np.abs(np.einsum("ij,ij->i", y - shape[near], n))
    agree = np.einsum("ij,ij->i", ny, n)
    off = np.minimum(np.maximum(plane, far - 4.0) + 4.0 * (1 - agree).clip(0, 1), _FAR_MM)
    own = (agree > 0.5) & (off < 6.0)
    laid = match.scale * shape[::part] @ match.rotation.T + match.shift
    back = tree.query(laid)[0] / match.scale
    seen = _window(cloud, laid)
    missing = float(np.minimum(back[seen], _FAR_MM).mean()) if seen.sum() > 20 else _FAR_MM
    residual = float(np.sqrt(np.mean(plane[own] ** 2))) if own.any() else np.inf
    return replace(match, score=float(off.mean()) + missing, residual_mm=residual * match.scale,
                   covered=float(own.mean()), seen=seen & (back < 6.0))  # fmt: skip


def _window(cloud: Cloud, laid: Array) -> NDArray[np.bool_]:
    """Vertices within the length of the surface along its own longest axis: beyond it the bone may be cut off."""
    centre, axes, _ = spread_of(cloud.points, np.ones(len(cloud.points)))
    along = (cloud.points - centre) @ axes[:, 0]
    height = (laid - centre) @ axes[:, 0]
    edge = 0.03 * np.ptp(along)
    return (height > along.min() + edge) & (height < along.max() - edge)


def _trees(cloud: Cloud) -> dict[bool, cKDTree]:
    """Enough points for the shape to look back at: with few of them a shape grown too large would seem nearer."""
    many = cloud.every(4000)
    return {False: cKDTree(many.points), True: cKDTree(many.mirrored().points)}


def candidates(cloud: Cloud, names: tuple[str, ...], keep: int = 4) -> list[Match]:
    """The best rigid lays of the named bones, either side, best first."""
    small, found = cloud.every(150), []
    clouds = {False: small, True: small.mirrored()}
    trees = _trees(cloud)
    for name in names:
        atlas = bone(name)
        rough: list[Match] = []
        for mirrored in (False,) if name == "sacrum" else (False, True):
            for start in _starts(atlas, clouds[mirrored], mirrored):
                laid = _rigid(start, clouds[mirrored], 2, (20.0, 17.0))
                rough.append(judged(laid, clouds[mirrored], trees[mirrored], 5))
        rough.sort(key=lambda match: match.score)
        # half of the starts are upside down or back to front: they are dropped before they are finished
        rough = [
            _rigid(match, clouds[match.mirrored], 2, (14.0, 12.0)) for match in rough[: max(len(rough) // 2, 4 * keep)]
        ]
        rough = [judged(match, clouds[match.mirrored], trees[match.mirrored], 5) for match in rough]
        rough.sort(key=lambda match: match.score)
        for match in rough[: 3 * keep]:
            laid = _rigid(match, clouds[match.mirrored], 8, (10.0, 5.0))
            found.append(judged(laid, clouds[match.mirrored], trees[match.mirrored], 5))
    return sorted(found, key=lambda match: match.score)


def best(cloud: Cloud, names: tuple[str, ...]) -> list[Match]:
    """Bent lays of the named bones on a surface, best first: one per bone and side."""
    middle = cloud.every(600)
    clouds = {False: middle, True: middle.mirrored()}
    trees = _trees(cloud)
    out: dict[tuple[str, bool], Match] = {}
    tried: dict[tuple[str, bool], int] = {}
    for match in candidates(cloud, names):
        key = (match.atlas.name, match.mirrored)
        tried[key] = tried.get(key, 0) + 1
        if tried[key] > 2:
            continue
        bent = _bent(match, clouds[match.mirrored], 8, (6.0, 3.0), 10)
        bent = judged(bent, clouds[match.mirrored], trees[match.mirrored])
        if key not in out or bent.score < out[key].score:
            out[key] = bent
    return sorted(out.values(), key=lambda match: match.score)


def refined(match: Match, cloud: Cloud) -> Match:
    """The match bent with all modes on all points until it rests."""
    mine = cloud.mirrored() if match.mirrored else cloud
    tree = cKDTree(mine.points)
    match = _bent(match, mine.every(1500), 12, (3.0, 1.5), 99)
    match = _rested(_bent(match, mine.every(3000), 4, (1.5, 1.5), 99), mine, tree)
    # judged before the warp: what follows any surface says nothing of which bone it is
    match = judged(match, mine.every(3000), tree)
    return _warped(match, mine) if match.covered > 0.5 else match


def _rested(match: Match, cloud: Cloud, tree: cKDTree) -> Match:
    """Steps of all modes, points to the shape and the shape to points, until no weight moves by 0.005 standard deviations,
    25 at most. The shape looks at all points: triangles matter less that way."""
    part = cloud.every(20000)
    for _ in range(25):
        last, shape = match.weights, match.model_shape()
        normals = match.atlas.normals_of(shape)
        rows = _from_points(match, part, shape, normals, cKDTree(shape), 3.0, len(match.weights))
        match = _solved(match, [rows, _from_shape(match, cloud, shape, normals, tree, 3.0)], 1.0)
        if float(np.abs(match.weights - last).max()) < 0.005:
            break
    return match


def _warped(match: Match, cloud: Cloud) -> Match:
    """What the modes leave over: the gaps to the surface, smoothed over 15 mm of the bone, a few times."""
    atlas = match.atlas
    near = _spread(atlas)
    warp = np.zeros_like(atlas.mean)
    y = (cloud.points - match.shift) @ match.rotation / match.scale
    ny = cloud.normals @ match.rotation
    body = cKDTree(y)
    base = atlas.shape(match.weights)
    for _ in range(8):
        shape = base + warp
        normals = atlas.normals_of(shape)
        at = body.query(shape, k=3)[1]
        gap = y[at] - shape[:, None]
        along = np.einsum("ikj,ij->ik", gap, normals)
        aside = np.maximum((gap**2).sum(axis=2) - along**2, 0.0)
        agree = np.einsum("ikj,ij->ik", ny[at], normals)
        weight = np.maximum(agree - 0.5, 0.0) * np.exp(-0.5 * aside / 4.0**2) * (np.abs(along) < 12.0) + 1e-9
        step = (weight * along).sum(axis=1) / weight.sum(axis=1)
        sure = weight.max(axis=1) * atlas.area
        total = near @ sure
        moved = near @ ((sure * step)[:, None] * normals)
        # where nothing is seen nearby nothing moves
        warp = warp + moved / (total + 0.05 * (near @ atlas.area))[:, None]
    return replace(match, warp=warp)


@lru_cache(maxsize=8)
def _spread(atlas: Atlas) -> sparse.csr_matrix:
    """Gaussian weights (n,n) of 7 mm between vertices of the mean that look the same way."""
    pairs = atlas.tree.query_pairs(16.0, output_type="ndarray")
    i, j = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(len(atlas.mean))[:, None], 2, axis=1)]).T
    weight = np.exp(-0.5 * ((atlas.mean[i] - atlas.mean[j]) ** 2).sum(axis=1) / 7.0**2)
    weight *= np.maximum(np.einsum("ij,ij->i", atlas.normals[i], atlas.normals[j]), 0.0)
    return sparse.csr_matrix((weight, (i, j)), (len(atlas.mean), len(atlas.mean)))
