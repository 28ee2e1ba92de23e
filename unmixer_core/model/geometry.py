"""The hyperbolic operations we use, on the Poincare ball of curvature -c, and their flat twins.

Everything is computed in float64: in float32 the ball ends at distance 6 from the origin, where a
chain of eight effects would still have to fit (methods.md section 2). geoopt supplies the manifold
of the parameters that live here; the maps are written out because geoopt's stop 1e-5 short of the
boundary and lose five digits there (Ganea, Becigneul, Hofmann, "Hyperbolic Neural Networks",
NeurIPS 2018, eqs. 2, 4, 12). Class logits are the unidirectional hyperbolic multinomial regression
of Shimizu, Mukuta, Harada, "Hyperbolic Neural Networks++" (ICLR 2021), eq. 6. `Flat` is the same
interface with c = 0, so that one switch swaps the geometry and nothing else.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import geoopt
import torch
from jaxtyping import Float, Float64
from torch import Tensor

_TINY = 1e-15
#: Relative distance that points keep from the boundary: geodesic distance 23 from the origin.
_MARGIN = 1e-10


@runtime_checkable
class Space(Protocol):
    """What the chain decoder asks of a geometry.

    Points and tangent vectors are float64 [..., d].
    """

    manifold: geoopt.Manifold

    def expmap0(self, tangent: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """The point reached from the origin along `tangent`."""
        ...

    def logmap0(self, point: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """Inverse of expmap0."""
        ...

    def add(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch dim"]:
        """`right`, moved as the origin moves to `left`."""
        ...

    def dist(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch"]:
        """Geodesic distance."""
        ...

    def logits(
        self,
        point: Float[Tensor, "*batch dim"],
        normals: Float[Tensor, "classes dim"],
        offsets: Float[Tensor, "classes"],
    ) -> Float64[Tensor, "*batch classes"]:
        """Logit of every class: signed distance to its hyperplane."""
        ...


class Poincare:
    """The Poincare ball {x : c |x|^2 < 1}."""

    def __init__(self, curvature: float) -> None:
        if not curvature > 0:
            raise ValueError(f"a Poincare ball needs curvature > 0, got {curvature}")
        self.curvature = float(curvature)
        self.manifold = geoopt.PoincareBall(c=self.curvature, learnable=False).to(torch.float64)

    def expmap0(self, tangent: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """The point reached from the origin along `tangent`; stays strictly inside the ball."""
        tangent = tangent.double()
        length = self.curvature**0.5 * tangent.norm(dim=-1, keepdim=True).clamp_min(_TINY)
        return self._inside(torch.tanh(length) / length * tangent)

    def logmap0(self, point: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """Inverse of expmap0."""
        point = self._inside(point.double())
        length = self.curvature**0.5 * point.norm(dim=-1, keepdim=True).clamp_min(_TINY)
        return torch.atanh(length) / length * point

    def add(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch dim"]:
        """Mobius addition: `right` moved so that the origin lands on `left`. Does not commute."""
        left, right, c = left.double(), right.double(), self.curvature
        inner = (left * right).sum(-1, keepdim=True)
        left2, right2 = left.square().sum(-1, keepdim=True), right.square().sum(-1, keepdim=True)
        moved = (1 + 2 * c * inner + c * right2) * left + (1 - c * left2) * right
        return self._inside(moved / (1 + 2 * c * inner + c**2 * left2 * right2).clamp_min(_TINY))

    def _inside(self, point: Tensor) -> Tensor:
        return clip_radius(point, (1 - _MARGIN) / self.curvature**0.5)

    def dist(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch"]:
        """Geodesic distance [...]; arcosh form, whose gradient stays finite up to the boundary."""
        left, right = left.double(), right.double()
        gap = (left - right).square().sum(-1)
        room = (1 - self.curvature * left.square().sum(-1)) * (
            1 - self.curvature * right.square().sum(-1)
        )
        ratio = self.curvature * gap / room.clamp_min(_TINY)
        half_sine = (ratio + _TINY).sqrt()
        return 2 * torch.asinh(half_sine) / self.curvature**0.5

    def logits(
        self,
        point: Float[Tensor, "*batch dim"],
        normals: Float[Tensor, "classes dim"],
        offsets: Float[Tensor, "classes"],
    ) -> Float64[Tensor, "*batch classes"]:
        """Signed, scaled distances of `point` [..., d] to n hyperplanes.

        Normals [n, d], offsets [n] -> [..., n].
        """
        point, normals, offsets = point.double(), normals.double(), offsets.double()
        root = self.curvature**0.5
        conformal = 2 / (1 - self.curvature * point.square().sum(-1, keepdim=True)).clamp_min(_TINY)
        size = normals.norm(dim=-1).clamp_min(_TINY)
        along = point @ (normals / size[:, None]).T
        angle = 2 * root * offsets
        inside = conformal * root * along * torch.cosh(angle) - (conformal - 1) * torch.sinh(angle)
        return 2 * size / root * torch.asinh(inside)


class Flat:
    """Euclidean space with the scalings the ball has as its curvature goes to zero."""

    def __init__(self) -> None:
        self.manifold = geoopt.Euclidean(ndim=1)

    def expmap0(self, tangent: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """The point reached from the origin along `tangent`."""
        return tangent.double()

    def logmap0(self, point: Float[Tensor, "*batch dim"]) -> Float64[Tensor, "*batch dim"]:
        """Inverse of expmap0."""
        return point.double()

    def add(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch dim"]:
        """Vector addition."""
        return left.double() + right.double()

    def dist(
        self, left: Float[Tensor, "*#batch dim"], right: Float[Tensor, "*#batch dim"]
    ) -> Float64[Tensor, "*#batch"]:
        """Twice the Euclidean length: the ball's metric at the origin."""
        return 2 * (left.double() - right.double()).norm(dim=-1)

    def logits(
        self,
        point: Float[Tensor, "*batch dim"],
        normals: Float[Tensor, "classes dim"],
        offsets: Float[Tensor, "classes"],
    ) -> Float64[Tensor, "*batch classes"]:
        """Logit of every class: signed distance to its hyperplane."""
        point, normals, offsets = point.double(), normals.double(), offsets.double()
        return 4 * (point @ normals.T - normals.norm(dim=-1) * offsets)


def space(kind: str, curvature: float) -> Space:
    """`poincare` (of that curvature) or `euclidean`."""
    if kind == "poincare":
        return Poincare(curvature)
    if kind == "euclidean":
        return Flat()
    raise ValueError(f"manifold must be poincare or euclidean, got {kind!r}")


def clip_radius(tangent: Float[Tensor, "*batch dim"], radius: float) -> Float[Tensor, "*batch dim"]:
    """Shorten tangent vectors [..., d] longer than `radius` (Guo et al., "Clipped Hyperbolic
    Classifiers", CVPR 2022).
    """
    length = tangent.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    return tangent * (radius / length).clamp_max(1.0)
