"""A rack of nine effects: the eight of the schema and a gain.

Run by `test_nine_effects.py` in a process of its own, because modules bind RACK when they are
imported: `python -m tests.schema.nine_effects CASE FOLDER`. A case that must be refused prints the
error's sentence and ends with status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unmixer_core.schema import devices
from unmixer_core.schema.knob import Address, Knob, Linear

GAIN_DB = Knob("gain", "Gain", "dB", Linear(), 0.0, 12.0, 0.0, Address("parameter", "Gain"))
GAIN = devices.Device(key="gain", name="Gain", knobs=(GAIN_DB,), choices=(), fixed={}, lti=True)


def add_device(with_table: bool = True) -> None:
    """Append the gain to the schema's effects."""
    devices.EFFECTS = (*devices.EFFECTS, GAIN)
    if with_table:
        on = devices.Parameter("Device On", 1.0, 0.0, 1.0, True)
        gain = devices.Parameter("Gain", 0.0, -35.0, 35.0, False)
        devices.TABLES["Gain"] = (on, gain)
        devices.CLASS_NAMES["Gain"] = "StereoGain"


def add_proxy_module() -> None:
    """The effect's function in dsp and its module in the proxy."""
    from torch import Tensor

    from unmixer_core.proxy.controls import Controls
    from unmixer_core.proxy.effects import registry
    from unmixer_core.proxy.effects.base import Effect

    def gain(audio: Tensor, gain_db: Tensor) -> Tensor:
        return audio * 10.0 ** (gain_db[:, None, None] / 20.0)

    class Gain(Effect):
        def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
            return gain(audio, controls.physical("gain"))

    registry.MODULES["gain"] = Gain


def add_mapping() -> None:
    """The mapping to Vital: its flanger is the one slot that no other effect of a chain needs."""
    from unmixer_core.headless.sound import voice
    from unmixer_core.headless.sound.device_state import Controls, Raw

    def mapped(raw: Raw, tempo_bpm: float) -> tuple[str, Controls]:
        return "flanger", {"flanger_dry_wet": 0.0, "flanger_gain_db": raw["Gain"]}

    voice.EFFECTS["Gain"] = mapped


def schema(folder: Path) -> None:
    """Masks, chains, parquet columns, sampling and the table of patches on disk."""
    import numpy as np
    import pyarrow.parquet as pq

    from unmixer_core import config, sampling
    from unmixer_core.dataset.patch_table import RECORD
    from unmixer_core.schema import chain as chains
    from unmixer_core.schema.patch import Patch, Patches
    from unmixer_core.schema.rack import RACK

    assert RACK.effect_names[-1] == "Gain" and chains.MAX_EFFECTS == 9
    full = chains.encode(RACK.effect_names)
    assert full.shape == (9,) and chains.decode(full) == RACK.effect_names
    assert chains.commutes("Gain", "EQ Eight")
    assert RACK.devices_on(full).shape == (10,)
    column = RACK.knob_index["gain.gain"]
    assert Patch.init(effects=("Gain",)).active_knobs[column]
    assert not Patch.init(effects=("Reverb",)).active_knobs[column]
    assert RECORD["chain"].shape == (9,) and RECORD["knobs"].shape == (RACK.n_knobs,)

    params = config.load(Path("params.yaml"))
    longest = params.sample.model_copy(update={"chain_length_weights": (0.0,) * 9 + (1.0,)})
    table = sampling.sample(3, "full", "train", 1, longest)
    assert (np.sort(table.chain, axis=1) == np.arange(9)).all()
    path = folder / "patches.parquet"
    table.write(path)
    names = pq.read_table(path).column_names
    assert {"chain_8", "gain.gain"} <= set(names) and "chain_9" not in names
    assert np.array_equal(Patches.read(path).chain, table.chain)
    assert Patch.from_dict(table[0].to_dict()).digest == table[0].digest


def bounds(folder: Path) -> None:
    """Bounds of params.yaml and of the web API."""
    from pydantic import ValidationError

    from unmixer_app.web.models import PatchBody
    from unmixer_core import config

    sample = config.load(Path("params.yaml")).sample.model_dump()
    config.Sample.model_validate(sample | {"chain_length_weights": (1.0,) * 10})
    try:
        config.Sample.model_validate(sample | {"chain_length_weights": (1.0,) * 11})
    except ValidationError:
        pass
    else:
        raise AssertionError("weights of chains of ten effects were accepted")
    chain = PatchBody.model_json_schema()["properties"]["chain"]
    assert chain["maxItems"] == 9 and "Gain" in chain["items"]["enum"]
    body = PatchBody.model_validate({"chain": chain["items"]["enum"]})
    assert len(body.chain) == 9


def model(folder: Path) -> None:
    """Widths of the model's heads, its chains and its training targets."""
    import numpy as np
    import torch

    from tests.model import tiny
    from unmixer_core.evaluation import detection
    from unmixer_core.inference import propose

    table = tiny.patches(n_train=2, n_valid=1, phases=("full",))
    unmixer = tiny.model().eval()
    features = tiny.features(table).batch(range(len(table)))
    note = torch.as_tensor(table.note, dtype=torch.float32)
    gate_s = torch.as_tensor(table.gate_s, dtype=torch.float32)
    belief = unmixer(features, note, gate_s)
    assert belief.classes.present.shape == (3, 9)
    targets = tiny.Targets.of(table)
    assert targets.slots.shape == (3, 9, 10)
    assert unmixer.chain_log_probs(belief, targets.chain).shape == (3, 9, 10)
    found = propose.propose(unmixer, features, note, gate_s, 2, 0)
    assert all(proposal.patch.chain.shape == (9,) for row in found for proposal in row)
    assert detection.presence([("Gain",)]).shape == (1, 9)
    assert np.flatnonzero(detection.presence([("Gain",)])).tolist() == [8]


def proxy(folder: Path) -> None:
    """A module an effect, audible in a chain of nine, and the neural proxy's inputs."""
    import torch

    from unmixer_core.proxy.neural import NeuralProxy
    from unmixer_core.proxy.proxy import RackProxy
    from unmixer_core.schema.patch import Patch, Patches
    from unmixer_core.schema.rack import RACK

    add_proxy_module()
    quiet = Patch.init(effects=("Gain",))
    loud = quiet.with_values({"gain.gain": 0.5})
    table = Patches.stack([quiet, loud, Patch.init(effects=RACK.effect_names)], "full", "train")
    inputs = (
        torch.as_tensor(table.knobs),
        torch.as_tensor(table.choices),
        torch.as_tensor(table.chain, dtype=torch.int64),
        torch.as_tensor(table.note, dtype=torch.float32),
        torch.as_tensor(table.gate_s),
    )
    twin = RackProxy(8000, 0.25)
    assert len(twin.effects) == 9
    with torch.no_grad():
        sound = twin(*inputs)
        assert torch.allclose(sound[1], sound[0] * 10.0 ** (6.0 / 20.0), atol=1e-5)
        assert torch.isfinite(sound).all()
        drawn = NeuralProxy(8000, 0.25, width=2)(*inputs)
    assert drawn.shape == sound.shape


def headless(folder: Path) -> None:
    """The stand-in's voice, its template set and its server."""
    from unmixer_core.headless.server.server import OscServer
    from unmixer_core.headless.song.template import PREFIX
    from unmixer_core.headless.sound.device_state import DeviceState
    from unmixer_core.headless.sound.voice import voice
    from unmixer_core.live.track.names import DEVICE_OF_CLASS

    add_mapping()
    made = voice([DeviceState("Wavetable"), DeviceState("Gain", {"Gain": 6.0})])
    assert made.controls["flanger_on"] == 1.0 and made.controls["flanger_gain_db"] == 6.0
    assert DEVICE_OF_CLASS["StereoGain"].name == "Gain"
    server = OscServer(folder, port=0, layout="tracks")
    try:
        assert f"{PREFIX} Gain" in [track.name for track in server.song.tracks]
    finally:
        server.pool.close()
        server.link.close()


def no_table(folder: Path) -> None:
    import unmixer_core.schema.rack  # noqa: F401  (the rack is built on import)


def no_proxy_module(folder: Path) -> None:
    from unmixer_core.proxy.proxy import RackProxy

    RackProxy()


def no_mapping(folder: Path) -> None:
    from unmixer_core.headless.server.server import OscServer

    OscServer(folder, port=0)


CASES: dict[str, Callable[[Path], Any]] = {
    case.__name__: case
    for case in (
        schema,
        bounds,
        model,
        proxy,
        headless,
        no_table,
        no_proxy_module,
        no_mapping,
    )
}


def main() -> int:
    from unmixer_core.errors import UnmixerError

    name, folder = sys.argv[1:]
    add_device(with_table=name != "no_table")
    try:
        CASES[name](Path(folder))
    except UnmixerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
