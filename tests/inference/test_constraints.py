from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unmixer_core.errors import ConfigError
from unmixer_core.inference.constraints import Constraints
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.search.neighbourhood import both, changes


def test_a_lock_is_read_in_physical_units_and_by_item_name():
    found = Constraints.parse(["saturator.drive = 12", "wavetable.filter_1_type=lowpass"])
    knob = RACK.knobs[RACK.knob_index["saturator.drive"]].knob
    assert knob.to_physical(found.values["saturator.drive"]) == pytest.approx(12.0, abs=1e-4)
    assert found.values["wavetable.filter_1_type"] == "Lowpass"
    assert np.flatnonzero(found.knobs).tolist() == [RACK.knob_index["saturator.drive"]]
    assert np.flatnonzero(found.choices).tolist() == [RACK.choice_index["wavetable.filter_1_type"]]


@pytest.mark.parametrize("ref", RACK.knobs, ids=lambda ref: ref.id)
@pytest.mark.parametrize("unit", [0.0, 0.5, 1.0])
def test_every_knob_can_be_locked_at_what_patch_json_shows(ref, unit: float):
    physical = float(ref.knob.to_physical(unit))
    found = Constraints.parse([f"{ref.id}={physical!r}"])
    assert float(ref.knob.to_physical(found.values[ref.id])) == pytest.approx(
        physical, rel=1e-4, abs=1e-4
    )


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("", "expected CONTROL=VALUE"),
        ("=", "expected CONTROL=VALUE"),
        ("saturator.drive", "expected CONTROL=VALUE"),
        ("saturator.drve=3", "Did you mean saturator.drive"),
        ("saturator.drive=1000", "from 0 to 30 dB"),
        ("saturator.drive=nan", "must be a number"),
        ("saturator.drive=x", "must be a number"),
        ("wavetable.filter_1_type=Comb", "it has Lowpass, Highpass"),
    ],
)
def test_a_wrong_lock_is_refused_with_what_is_allowed(lock: str, words: str):
    with pytest.raises(ConfigError, match=words):
        Constraints.parse([lock])


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("Saturator>Reverb", ("Saturator", "Reverb")),
        ("eq_eight > delay", ("EQ Eight", "Delay")),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_chain_is_read_by_name_or_key(text: str, chain: tuple[str, ...]):
    assert Constraints.parse(chain=text).chain == chain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wah", "there is no effect 'Wah'"),
        ("Reverb>Reverb", "occur once"),
        ("Reverb>", "no effect"),
    ],
)
def test_a_wrong_chain_is_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        Constraints.parse(chain=text)


def test_applied_constraints_are_met_and_touch_nothing_else():
    constraints = Constraints.parse(
        ["saturator.drive=12", "wavetable.osc_2_on=On"], "Saturator>Reverb"
    )
    patch = Patch.init(50, 0.5, ["Delay"])
    forced = constraints.apply(patch)
    again = constraints.apply(forced)
    assert np.array_equal(again.knobs, forced.knobs)
    assert np.array_equal(again.choices, forced.choices)
    assert forced.effects == ("Saturator", "Reverb") != patch.effects
    assert forced.digest != patch.digest
    assert (forced.knobs != patch.knobs).sum() <= 1 and (forced.choices != patch.choices).sum() == 1


def test_changes_are_different_single_decisions_that_keep_the_constraints():
    patch = Patch.init(50, 0.5, ["Saturator", "Delay", "Reverb"])
    free, held = (
        changes(patch, Constraints()),
        changes(
            patch,
            Constraints.parse(["wavetable.osc_1_wavetable=Basic Shapes"], "Saturator>Delay>Reverb"),
        ),
    )
    assert len({p.digest for p in free}) == len(free) > len(held) > 0
    for other in free:
        items = int((other.choices != patch.choices).sum())
        assert items + (other.effects != patch.effects) == 1 and np.array_equal(
            other.knobs, patch.knobs
        )
        chains.decode(other.chain)
    assert all(
        p.effects == patch.effects and p.item("wavetable.osc_1_wavetable") == "Basic Shapes"
        for p in held
    )
    assert ("Saturator", "Reverb", "Delay") not in {p.effects for p in free}, (
        "that swap cannot be heard"
    )


def test_two_changes_together_are_two_decisions_away():
    patch = Patch.init(50, 0.5, ["Saturator", "Delay"])
    single = changes(patch, Constraints())
    longer = replace(patch, gate_s=0.8)
    found = both(patch, [*single, longer])
    assert len({p.digest for p in found}) == len(found) > 4 * len(single)
    assert not {p.digest for p in found} & {
        patch.digest,
        longer.digest,
        *(p.digest for p in single),
    }
    for other in found:
        items = int((other.choices != patch.choices).sum())
        assert items + (other.effects != patch.effects) + (other.gate_s != patch.gate_s) == 2
