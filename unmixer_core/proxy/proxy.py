"""G_proxy: patch → sound, differentiable in every knob, choice weight, chain slot, note, gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unmixer_core.proxy.chain import run_chain
from unmixer_core.proxy.controls import Chain, Choices, Controls, PerPatch, choice_weights
from unmixer_core.proxy.effects.registry import make_effects
from unmixer_core.proxy.effects.space import Reverb
from unmixer_core.proxy.neural import NeuralProxy
from unmixer_core.proxy.twin import ProxyModule, described
from unmixer_core.proxy.voice import WavetableVoice
from unmixer_core.schema.rack import RACK


class RackProxy(ProxyModule):
    """The differentiable twin of the host, at its own sample rate: a DDSP module for each device.

    proxy = RackProxy.load(Path("models/proxy"))
    audio = proxy(knobs, choices, chain, note, gate_s)    # [batch, 2, time]
    """

    KIND = "ddsp"

    def __init__(self, sample_rate: int = 22050, clip_s: float = 2.0) -> None:
        super().__init__(sample_rate, clip_s)
        self.voice = WavetableVoice()
        modules = make_effects()
        self.effects = nn.ModuleList(modules)
        self._knobs = [self.voice.knobs, *(effect.knobs for effect in modules)]
        self._measured = {f"voice.{name}" for name in self.voice.MEASURED}
        for i, effect in enumerate(modules):
            self._measured |= {f"effects.{i}.{name}" for name in effect.MEASURED}
        devices = RACK.device_of_knob
        self._columns = [np.flatnonzero(devices == i).tolist() for i in range(len(RACK.devices))]

    def forward(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: Choices,
        chain: Chain,
        note: PerPatch,
        gate_s: PerPatch,
        clip_s: float | None = None,
    ) -> Float[Tensor, "batch 2 time"]:
        """Sound of a batch of patches; see `ProxyModule.forward`."""
        n_samples = round((clip_s or self.clip_s) * self.sample_rate)
        weights = choice_weights(choices, knobs)
        note = note.to(knobs)
        gate_s = gate_s.to(knobs)
        controls = [self._controls(i, knobs, weights) for i in range(len(RACK.devices))]
        dry = self.voice(
            controls[0], note, gate_s, n_samples=n_samples, sample_rate=self.sample_rate
        )

        def apply(
            effect: int, audio: Float[Tensor, "rows 2 time"], rows: Int[Tensor, "rows"]
        ) -> Float[Tensor, "rows 2 time"]:
            return self.effects[effect](audio, controls[effect + 1].select(rows), self.sample_rate)

        return run_chain(dry, chain, apply)

    def part_prefixes(self) -> list[str]:
        """How the parameter names of each part begin: of the voice, and of each effect."""
        return ["voice.", *(f"effects.{i}." for i in range(len(self.effects)))]

    def measured_parameters(self) -> frozenset[str]:
        """Names of the parameters that are measured on the host instead of fitted."""
        return frozenset(self._measured)

    def set_measured(
        self,
        spectra: Float[Tensor, "tables frames harmonics 2"],
        early: Float[Tensor, "2 samples"],
    ) -> None:
        """Set the measured constants: the wavetables' spectra and the reverb's reflections."""
        with torch.no_grad():
            self.voice.spectra.copy_(spectra)
            for effect in self.effects:
                if isinstance(effect, Reverb):
                    effect.early.copy_(early)

    def _controls(
        self,
        device: int,
        knobs: Float[Tensor, "batch knobs"],
        weights: list[Float[Tensor, "batch _items"]],
    ) -> Controls:
        own_weights = {}
        for ref, weight in zip(RACK.choices, weights, strict=True):
            if ref.device == device:
                own_weights[ref.choice.key] = weight
        unit = knobs[:, self._columns[device]]
        return Controls(RACK.devices[device], unit, own_weights, self._knobs[device])

    @classmethod
    def load(cls, folder: Path, *, sample_rate: int | None = None) -> ProxyModule:
        """Return the proxy in a folder, of either kind.

        sample_rate: another rate than the one it was calibrated at, which only a DDSP proxy
        supports.

        Raises:
            StageError: there is no proxy, or none for that rate.
            SchemaMismatch: it was trained for another schema.
        """
        description = described(folder)
        if description["kind"] == NeuralProxy.KIND:
            return NeuralProxy.open(folder, description, sample_rate)
        proxy = cls(sample_rate or description["sample_rate"], description["clip_s"])
        proxy.restore(folder)
        return proxy
