"""G_proxy: patch → sound, differentiable in every knob, choice weight, chain slot, note and gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.proxy.chain import run_chain
from unmixer_core.proxy.controls import Controls
from unmixer_core.proxy.effects import make_effects
from unmixer_core.proxy.voice import Voice
from unmixer_core.schema.rack import RACK

WEIGHTS, DESCRIPTION = "proxy.safetensors", "proxy.json"
REBUILD = "dvc repro --force train_proxy"


class Proxy(nn.Module):
    """The differentiable twin of the host, at its own sample rate.

    proxy = Proxy.load(Path("models/proxy"))
    audio = proxy(knobs, choices, chain, note, gate_s)    # [batch, 2, time]
    """

    def __init__(self, sample_rate: int = 22050, clip_s: float = 2.0) -> None:
        super().__init__()
        self.sample_rate, self.clip_s = sample_rate, clip_s
        self.voice = Voice()
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
        """Sound of a batch of patches.

        knobs [batch, K] in unit; choices LongTensor [batch, C] or C weight tensors [batch, items]; chain LongTensor
        [batch, 8] of effect ids (−1 = end) or slot weights [batch, 8, 9] (last = end); note [batch] (MIDI, may be
        fractional), gate_s [batch] → audio [batch, 2, clip_s · sample_rate] at the host's level.
        """
        n_samples = round((clip_s or self.clip_s) * self.sample_rate)
        weights = choice_weights(choices, knobs)
        note, gate_s = note.to(knobs), gate_s.to(knobs)
        controls = [self._controls(i, knobs, weights) for i in range(len(RACK.devices))]
        dry = self.voice(controls[0], note, gate_s, n_samples=n_samples, sample_rate=self.sample_rate)

        def apply(effect: int, audio: Tensor, rows: Tensor) -> Tensor:
            return self.effects[effect](audio, controls[effect + 1].select(rows), self.sample_rate)

        return run_chain(dry, chain, apply)

    def _controls(self, device: int, knobs: Tensor, weights: list[Tensor]) -> Controls:
        mine = {
            ref.choice.key: weight for ref, weight in zip(RACK.choices, weights, strict=True) if ref.device == device
        }
        module = self.voice if device == 0 else self.effects[device - 1]
        return Controls(RACK.devices[device], knobs[:, self._columns[device]], mine, module.knobs)

    def save(self, folder: Path) -> None:
        """Weights as safetensors, and a description that carries the schema's digest."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in self.state_dict().items()}, folder / WEIGHTS)
        description = {"schema": RACK.digest, "kind": "ddsp", "sample_rate": self.sample_rate, "clip_s": self.clip_s}
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, sample_rate: int | None = None) -> Proxy:
        """Raises StageError when there is no proxy, SchemaMismatch when it was trained for another schema."""
        path = folder / DESCRIPTION
        if not path.exists():
            raise StageError(f"{folder} holds no proxy; run `dvc repro train_proxy`.")
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["schema"] != RACK.digest:
            raise SchemaMismatch(str(folder), description["schema"], RACK.digest, REBUILD)
        proxy = cls(sample_rate or description["sample_rate"], description["clip_s"])
        proxy.load_state_dict(load_file(folder / WEIGHTS))
        return proxy


def choice_weights(choices: Tensor | Sequence[Tensor], like: Tensor) -> list[Tensor]:
    """Item indices [batch, C] → one-hot weights per choice; weights pass through."""
    if not isinstance(choices, Tensor):
        return [weight.to(like) for weight in choices]
    columns = zip(choices.unbind(-1), RACK.sizes, strict=True)
    return [nn.functional.one_hot(column, size).to(like) for column, size in columns]
