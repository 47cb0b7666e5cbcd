"""What a camera that stands still sees of things that stand still, kept from one image to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.desk.scanline import Hits, Surfaces, Views

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def is_still(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Which bodies `[nbody]` nothing but a change of the model moves."""
    still: NDArray[np.bool_] = (model.body_weldid == 0) & (model.body_mocapid < 0)
    return still


class Background:
    """The still geoms before one camera, for each of `num_sims` simulations, in images of one size.

    Nothing is assumed: what is kept for a simulation is used as long as its eye and every one of the still
    `geoms` are where they were, bit for bit. Colours and lights may change, for only hits are kept.
    """

    def __init__(self, moving: Surfaces, still: Surfaces, geoms: Ints, num_sims: int) -> None:
        self._moving, self._still, self._geoms = moving, still, geoms
        self._kept: list[Hits | None] = [None] * num_sims
        self._places = np.full((num_sims, 16 * len(geoms)), np.nan)

    def cast(self, views: Views, sims: Ints) -> Hits:
        """`Surfaces.cast` of both, for the simulations `sims`. Threads may ask for different ones at once."""
        places = self._places_in(views)
        stale = np.flatnonzero((places != self._places[sims]).any(axis=1))
        if len(stale):
            seen = self._still.cast(views.take(stale))
            for image, sim in enumerate(sims[stale]):
                self._kept[sim] = _alone(seen, image)
            self._places[sims[stale]] = places[stale]
        return _in_front(
            self._moving.cast(views), _beside([kept for sim in sims if (kept := self._kept[sim])])
        )

    def _places_in(self, views: Views) -> Floats:
        """All that a cast depends on, `[n, 16 B]` for `B` geoms."""
        parts = (views.matrix, views.origin, views.eye, views.seen)
        return np.concatenate([part[:, self._geoms].reshape(len(views.eye), -1) for part in parts], axis=1)


def _in_front(near: Hits, far: Hits) -> Hits:
    """What is seen of both in the same images; `near` where they are equally far."""
    number = near.triangle + len(far.image)
    return replace(
        _joined([far, near]),
        inverse_depth=np.maximum(far.inverse_depth, near.inverse_depth),
        triangle=np.where(near.inverse_depth >= far.inverse_depth, number, far.triangle),
    )


def _alone(hits: Hits, image: int) -> Hits:
    """One of several images."""
    rows = np.flatnonzero(hits.image == image)
    number = np.zeros(len(hits.image), np.int64)
    number[rows] = np.arange(len(rows))
    return Hits(
        inverse_depth=hits.inverse_depth[image : image + 1].copy(),
        triangle=number.take(hits.triangle[image : image + 1]),
        image=np.zeros(len(rows), np.int64),
        geom=hits.geom.take(rows),
        normal=hits.normal.take(rows, axis=1),
        offset=hits.offset.take(rows),
        inverse_depths=hits.inverse_depths.take(rows, axis=1),
    )


def _beside(parts: Sequence[Hits]) -> Hits:
    """Several images of one each."""
    count = [len(part.image) for part in parts]
    first = np.cumsum([0, *count[:-1]])
    return replace(
        _joined(parts),
        inverse_depth=np.concatenate([part.inverse_depth for part in parts]),
        triangle=np.concatenate([part.triangle + start for part, start in zip(parts, first, strict=True)]),
        image=np.repeat(np.arange(len(parts)), count),
    )


def _joined(parts: Sequence[Hits]) -> Hits:
    """The triangles of all parts one after another, and the pixels of the first."""
    return replace(
        parts[0],
        image=np.concatenate([part.image for part in parts]),
        geom=np.concatenate([part.geom for part in parts]),
        normal=np.concatenate([part.normal for part in parts], axis=1),
        offset=np.concatenate([part.offset for part in parts]),
        inverse_depths=np.concatenate([part.inverse_depths for part in parts], axis=1),
    )
