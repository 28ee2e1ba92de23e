"""ITF as InverSynth II does it: tune the encoder on one sound, through the frozen proxy.

    w* = argmin_w  L_spectral(G_proxy(F_w(x)), x)

Barkan et al., "InverSynth II", ISMIR 2023. It takes about thirty steps from the trained weights.
The patch that the encoder predicts after each step is a candidate, and the host chooses among them.
Classes and chain stay those of the untuned prediction, because no gradient flows through them.
`finetune` optimises the knobs themselves instead; `benchmark_itf` shows both.
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
    """Return `patch`, then the patch that the encoder predicts after each step of Adam.

    Up to steps + 1 patches of the same classes, chain, note and gate. Adam at `lr` moves the
    encoder alone. It stops early where the distance or a gradient is not finite. The model does not
    change.

    features: [1, 2, mels, frames]. patch: the untuned prediction.
    """
    tuned = copy.deepcopy(model).eval()
    start = finetune.batch([patch], features.device)
    context = _on(context_of(Targets.of_list([patch])), features.device)
    audible = torch.as_tensor(patch.active_knobs, device=features.device)[None]
    with torch.no_grad():
        untuned = tuned(features, start.note, start.gate_s)
        components = _heaviest_components(tuned, untuned, context)
    adam = torch.optim.Adam(tuned.encoder.parameters(), lr=lr)
    patches: list[Patch] = []
    with finetune.frozen(proxy):
        for step in range(steps + 1):
            belief = tuned(features, start.note, start.gate_s)
            means = _component_means(tuned, belief, context, components)
            knobs = torch.where(audible, means, start.knobs)
            loss = distance(start.render(proxy, knobs, clip_s)).sum()
            if not torch.isfinite(loss):
                break
            if step == 0:
                patches.append(patch)
            else:
                values = knobs[0].detach().cpu().numpy().astype(np.float32)
                patches.append(replace(patch, knobs=values))
            if step == steps or not _take_step(adam, loss, tuned):
                break
    return patches


def _take_step(adam: torch.optim.Optimizer, loss: Tensor, tuned: Unmixer) -> bool:
    """Take one step of Adam; take none and return False where a gradient is not finite."""
    adam.zero_grad()
    loss.backward()
    gradients = [p.grad for p in tuned.encoder.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        return False
    adam.step()
    return True


def _heaviest_components(model: Unmixer, belief: Belief, context: Context) -> list[Tensor]:
    """Index [1] of each device's heaviest component; all steps follow the same ones."""
    return [mixture.logits.argmax(-1) for mixture in model.mixtures(belief, context)]


def _component_means(
    model: Unmixer, belief: Belief, context: Context, components: Sequence[Tensor]
) -> Tensor:
    """Unit knobs [1, K]: the means of these components; unused modulation amounts are zero."""
    mixtures = model.mixtures(belief, context)
    means = [m.component(index) for m, index in zip(mixtures, components, strict=True)]
    return model.stilled(to_unit(model.knobs.scatter(means)), context.moving)


def _on(context: Context, device: torch.device) -> Context:
    return Context(
        [c.to(device) for c in context.choices], context.slots.to(device), context.moving.to(device)
    )
