"""G_proxy: patch → sound, differentiable in every knob, choice weight, chain slot, note and
gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from unmixer_core.proxy.chain import run_chain
from unmixer_core.proxy.controls import Controls, choice_weights
from unmixer_core.proxy.effects import make_effects
from unmixer_core.proxy.neural import NeuralProxy
from unmixer_core.proxy.twin import ProxyModule, described
from unmixer_core.proxy.voice import WavetableVoice
from unmixer_core.schema.rack import RACK


class RackProxy(ProxyModule):
    """The differentiable twin of the host, at its own sample rate: DDSP by the schema.

    proxy = Proxy.load(Path("models/proxy"))
    audio = proxy(knobs, choices, chain, note, gate_s)    # [batch, 2, time]
    """

    KIND = "ddsp"

    def __init__(self, sample_rate: int = 22050, clip_s: float = 2.0) -> None:
        super().__init__(sample_rate, clip_s)
        self.voice = WavetableVoice()
        self.effects = make_effects()
        devices = RACK.device_of_knob
        self._columns = [np.flatnonzero(devices == i).tolist() for i in range(len(RACK.devices))]

    def forward(
        self,
        knobs: Tensor,
        choices: Tensor | Sequence[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        """Sound of a batch of patches, as `ProxyModule.forward` says."""
        n_samples = round((clip_s or self.clip_s) * self.sample_rate)
        weights = choice_weights(choices, knobs)
        note, gate_s = note.to(knobs), gate_s.to(knobs)
        controls = [self._controls(i, knobs, weights) for i in range(len(RACK.devices))]
        dry = self.voice(
            controls[0], note, gate_s, n_samples=n_samples, sample_rate=self.sample_rate
        )

        def apply(effect: int, audio: Tensor, rows: Tensor) -> Tensor:
            return self.effects[effect](audio, controls[effect + 1].select(rows), self.sample_rate)

        return run_chain(dry, chain, apply)

    def _controls(self, device: int, knobs: Tensor, weights: list[Tensor]) -> Controls:
        mine = {
            ref.choice.key: weight
            for ref, weight in zip(RACK.choices, weights, strict=True)
            if ref.device == device
        }
        module = self.voice if device == 0 else self.effects[device - 1]
        return Controls(RACK.devices[device], knobs[:, self._columns[device]], mine, module.knobs)

    @classmethod
    def load(cls, folder: Path, *, sample_rate: int | None = None) -> ProxyModule:
        """The proxy in a folder, of whichever kind it is.

        `sample_rate` asks for another rate than the one it was calibrated at, which only a DDSP
        proxy can sound at. Raises StageError when there is no proxy (or not at that rate),
        SchemaMismatch when it was trained for another schema.
        """
        description = described(folder)
        if description["kind"] == NeuralProxy.KIND:
            return NeuralProxy.open(folder, description, sample_rate)
        proxy = cls(sample_rate or description["sample_rate"], description["clip_s"])
        proxy.restore(folder)
        return proxy
