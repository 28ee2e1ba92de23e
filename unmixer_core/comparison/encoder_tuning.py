"""ITF as InverSynth II does it (Barkan et al., ISMIR 2023).

The encoder is tuned on the one sound, through the frozen proxy.

    w* = argmin_w  L_spectral(G_proxy(F_w(x)), x)

About thirty steps from the trained weights; what every step's encoder answers is a candidate, and
the host chooses among them. The classes and the chain stay those of the untuned prediction: through
them no gradient flows. `finetune` moves the knobs themselves instead; `benchmark_itf` shows both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unmixer_core.inference import finetune
from unmixer_core.model.heads import Context
from unmixer_core.model.mixture import to_unit
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Belief, Unmixer, context_of
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch


def tune(
    model: Unmixer,
    features: Tensor,
    patch: Patch,
    proxy: Proxy,
    distance: finetune.Distance,
    *,
    steps: int,
    lr: float,
    clip_s: float | None,
) -> list[Patch]:
    """`patch`, then what the encoder answers after each step.

    Up to steps + 1 patches of the same classes and chain.

    features [1, 2, mels, frames]; patch: the untuned prediction, whose discrete parts, note and
    gate are kept. Adam at `lr` on the encoder alone; it stops early where the distance or a
    gradient is not finite. The model is left as it was.
    """
    tuned = copy.deepcopy(model).eval()
    start = finetune.batch([patch], features.device)
    context = _on(context_of(Targets.of_list([patch])), features.device)
    heard = torch.as_tensor(patch.active_knobs, device=features.device)[None]
    with torch.no_grad():
        components = _heaviest(tuned, tuned(features, start.note, start.gate_s), context)
    adam = torch.optim.Adam(tuned.encoder.parameters(), lr=lr)
    answers: list[Patch] = []
    with finetune.frozen(proxy):
        for step in range(steps + 1):
            belief = tuned(features, start.note, start.gate_s)
            knobs = torch.where(heard, _knobs(tuned, belief, context, components), start.knobs)
            loss = distance(start.render(proxy, knobs, clip_s)).sum()
            if not torch.isfinite(loss):
                break
            found = knobs[0].detach().cpu().numpy().astype(np.float32)
            answers.append(replace(patch, knobs=found) if step else patch)
            if step == steps or not _moved(adam, loss, tuned):
                break
    return answers


def _moved(adam: torch.optim.Optimizer, loss: Tensor, tuned: Unmixer) -> bool:
    """One step of Adam; False, and no step, where a gradient is not finite."""
    adam.zero_grad()
    loss.backward()
    gradients = [p.grad for p in tuned.encoder.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        return False
    adam.step()
    return True


def _heaviest(model: Unmixer, belief: Belief, context: Context) -> list[Tensor]:
    """Index [1] of each device's heaviest component.

    The same ones are followed through all steps.
    """
    return [mixture.logits.argmax(-1) for mixture in model.mixtures(belief, context)]


def _knobs(
    model: Unmixer, belief: Belief, context: Context, components: Sequence[Tensor]
) -> Tensor:
    """Unit knobs [1, K]: the means of these components, amounts that do not move at zero."""
    means = [
        m.component(index)
        for m, index in zip(model.mixtures(belief, context), components, strict=True)
    ]
    return model.stilled(to_unit(model.knobs.scatter(means)), context.moving)


def _on(context: Context, device: torch.device) -> Context:
    return Context(
        [c.to(device) for c in context.choices], context.slots.to(device), context.moving.to(device)
    )
