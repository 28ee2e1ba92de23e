"""Patches: identity, tables on disk, and sampling."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from unmixer_core import sampling
from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK

SETTINGS = SimpleNamespace(
    chain_length_weights=(0.1, 0.2, 0.3, 0.2, 0.1, 0.1),
    order_audible_bias=0.6,
    p_osc_2=0.3,
    p_sub=0.3,
    p_filter=0.7,
    p_unison=0.3,
    p_effect_mode=0.4,
    p_modulation=0.4,
    p_stop=0.0,
    note_low=36,
    note_high=72,
    gate_low_s=0.25,
    gate_high_s=1.25,
)


def _table(n=12, phase="full", seed=3):
    return sampling.sample(n, phase, "train", seed, SETTINGS)


def test_dict_round_trip_keeps_the_digest():
    for patch in _table():
        assert Patch.from_dict(patch.to_dict()).digest == patch.digest


def test_digest_ignores_what_cannot_be_heard_and_sees_what_can():
    patch = Patch.init(effects=("Saturator",)).with_values({"wavetable.osc_2_on": "Off"})
    assert (
        patch.with_values({"wavetable.osc_2_pos": 0.9, "reverb.decay_time": 0.1}).digest
        == patch.digest
    )
    assert patch.with_values({"saturator.drive": 0.9}).digest != patch.digest
    assert (
        Patch.init(effects=("Saturator", "Delay")).digest
        != Patch.init(effects=("Delay", "Saturator")).digest
    )


def test_patch_of_another_schema_is_refused():
    data = _table(1)[0].to_dict() | {"schema": "0" * 16}
    with pytest.raises(SchemaMismatch, match=RACK.digest):
        Patch.from_dict(data)


def test_active_follows_switches_chain_and_modulation():
    patch = Patch.init(effects=("Delay",)).with_values(
        {"wavetable.filter_1_on": "Off", "wavetable.env_2_to_osc_1_pos": 0.5}
    )
    active = dict(zip(RACK.knob_index, patch.active_knobs, strict=True))
    assert active["delay.feedback"] and not active["reverb.decay_time"]
    assert not active["wavetable.filter_1_freq"] and not active["wavetable.env_2_attack"]
    moved = patch.with_values({"wavetable.env_2_to_osc_1_pos": 0.8})
    assert moved.active_knobs[RACK.knob_index["wavetable.env_2_attack"]]


def test_parquet_round_trip_and_refusals(tmp_path):
    table, path = _table(), tmp_path / "patches.parquet"
    table.write(path)
    back = Patches.read(path)
    assert all(
        np.array_equal(getattr(back, name), getattr(table, name))
        for name in table.__dataclass_fields__
    )
    raw = pq.read_table(path)
    pq.write_table(raw.replace_schema_metadata({"schema_digest": "f" * 16}), path)
    with pytest.raises(SchemaMismatch, match="f{16}.*dvc repro"):
        Patches.read(path)
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(StageError, match="cannot be read"):
        Patches.read(path)
    with pytest.raises(StageError, match="dvc repro"):
        Patches.read(tmp_path / "none.parquet")


def test_sampling_is_seeded_and_a_longer_table_begins_with_the_shorter():
    short, long = _table(5), _table(20)
    assert [p.digest for p in short] == [p.digest for p in long][:5]
    assert [p.digest for p in _table(5, seed=4)] != [p.digest for p in short]
    first = sampling.draw("full", "train", 2, 3, SETTINGS)
    assert (
        first.digest
        == short[2].digest
        != sampling.draw("full", "train", 2, 3, SETTINGS, attempt=1).digest
    )


def test_a_share_of_knobs_is_turned_all_the_way_and_nothing_else_changes():
    some = SimpleNamespace(**{**vars(SETTINGS), "p_stop": 0.3})
    plain, turned = _table(300).knobs, sampling.sample(300, "full", "train", 3, some).knobs
    moved = plain != turned
    assert set(np.unique(turned[moved])) <= {0.0, 1.0}
    drawn = {ref.id: moved[:, i] for i, ref in enumerate(RACK.knobs)}
    heard = _table(300).chain == RACK.effect_names.index("Reverb")
    assert drawn["reverb.decay_time"][heard.any(1)].mean() == pytest.approx(0.3, abs=0.12)
    assert (
        turned[:, RACK.knob_index["reverb.dry_wet"]][drawn["reverb.dry_wet"]] == 1.0
    ).all()  # 0 is not drawn
    assert not any(drawn[ref.id].any() for ref in RACK.knobs if ref.knob.bipolar_amount)


@pytest.mark.parametrize("phase", ["dry", "nonlinear", "full"])
def test_phase_decides_which_effects_occur(phase):
    table = _table(150, phase)
    used = {name for patch in table for name in patch.effects}
    allowed = {
        "dry": set(),
        "nonlinear": set(sampling.NONLINEAR_EFFECTS),
        "full": set(RACK.effect_names),
    }[phase]
    assert used == allowed
    assert ((table.knobs >= 0) & (table.knobs <= 1)).all()
    assert (table.choices < np.array(RACK.sizes)).all()


def test_select_and_where_pick_rows():
    table = Patches.concat([_table(4, "dry"), _table(6, "full")])
    assert list(table.where(phase="full")) == list(range(4, 10))
    assert table.select(table.where(phase="dry")).phase.tolist() == ["dry"] * 4
