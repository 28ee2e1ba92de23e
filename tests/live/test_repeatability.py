"""How alike two takes are: the measures on sounds whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from unmixer_core.errors import HostError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.repeatability import FLOOR_DB, compare, measure, residual_db, worst
from unmixer_core.schema.patch import Patch

NOISE = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 20000)).astype(np.float32)


def test_equal_takes_are_at_the_floor():
    same = compare(NOISE, NOISE.copy())
    assert (same.residual_db, same.level_db, same.spectral_db) == (FLOOR_DB, 0.0, 0.0)


@pytest.mark.parametrize("gain_db", [-6.0, -1.0, 2.0])
def test_a_gain_is_its_level_and_its_spectral_distance(gain_db):
    difference = compare(NOISE, (NOISE * 10 ** (gain_db / 20)).astype(np.float32))
    assert difference.level_db == pytest.approx(gain_db, abs=1e-3)
    assert difference.spectral_db == pytest.approx(abs(gain_db), rel=0.01)


@pytest.mark.parametrize("floor_db", [-80.0, -40.0, -20.0])
def test_added_noise_is_the_residual(floor_db):
    other = np.random.default_rng(2).uniform(-0.5, 0.5, NOISE.shape)
    noisy = (NOISE + other * 10 ** (floor_db / 20)).astype(np.float32)
    assert residual_db(NOISE, noisy) == pytest.approx(floor_db, abs=0.2)


def test_the_worst_is_the_largest_of_each():
    pair = [compare(NOISE, NOISE * 0.5), compare(NOISE, NOISE)]
    assert worst(pair) == pair[0] == worst(pair[::-1])


class Host:
    def __init__(self, fail=False):
        self.fail, self.takes = fail, 0

    def map(self, patches):
        for i in reversed(range(len(patches))):
            self.takes += 1
            clip = NOISE * (1.0 + 1e-3 * self.takes)
            yield i, RenderFailure(patches[i], "no.") if self.fail else clip.astype(np.float32)


def test_each_patch_is_rendered_twice():
    host = Host()
    difference = measure(host, [Patch.init(note) for note in (40, 50, 60)])
    assert host.takes == 6
    assert difference.residual_db == pytest.approx(20 * np.log10(3e-3), abs=0.1)
    with pytest.raises(HostError, match="none of 1 patches"):
        measure(Host(fail=True), [Patch.init()])
