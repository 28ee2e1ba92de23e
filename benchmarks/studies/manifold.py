"""Does a hyperbolic decoder order effects better than its Euclidean twin?

Dimension x curvature x seeds on frozen features.

    python -m benchmarks.studies.manifold [--run .] [--seeds 5] [--model models/full]

The trained encoder's vectors and presence logits are read once; then only the chain decoder is
trained, from scratch, on the non-linear and full-chain training clips, the same way for every row:
same widths, same initial numbers, same batches, same optimiser (GCWD), the epoch with the best
validation likelihood kept. Judged on the frozen full-chain test clips: negative log-likelihood of
the chain; exact: the likeliest chain of a beam of 8 is the true one up to swaps that cannot be
heard; order: of the true effects' possible orders the likeliest one's audible pairs that are the
right way round (chance: one half); set F1 of the likeliest chain. The last line is one JSON object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.studies.study import Cell, Study, arguments, carry_out, interval, last_line, words
from unmixer_core import config
from unmixer_core.features.store import FeatureTable
from unmixer_core.metrics import patch
from unmixer_core.model import checkpoint
from unmixer_core.model.chain_decoder import ChainDecoder
from unmixer_core.model.targets import Targets
from unmixer_core.pipeline import log, machine
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.report.html import Report
from unmixer_core.report.plots import COLOURS
from unmixer_core.schema import chain as chains
from unmixer_core.training import losses, phase
from unmixer_core.training.optim import GCWD

DIMS, CURVATURES = (2, 8, 32), (0.1, 0.3, 1.0)
EPOCHS, BATCH, BEAM, READ = 12, 256, 8, 64
LR = 0.004
DIGITS = 4
MEASURES = {
    "nll": "chain NLL, nats",
    "exact": "exact up to audible",
    "order": "order of audible pairs",
    "set_f1": "set F1",
}


@dataclass(frozen=True)
class FrozenEncoder:
    """What the decoder is given of n clips.

    Vector [n, embedding], present [n, 8] (logits), chain [n, 8].
    """

    vector: Tensor
    present: Tensor
    chain: Tensor

    def __len__(self) -> int:
        return len(self.chain)

    def __getitem__(self, rows: Any) -> FrozenEncoder:
        return FrozenEncoder(self.vector[rows], self.present[rows], self.chain[rows])


@torch.no_grad()
def frozen(features: FeatureTable, model: Any, rows: np.ndarray) -> FrozenEncoder:
    """Read the encoder of a trained model, in inference mode."""
    targets = Targets.of(features.patches.select(rows))
    belief = model(features.batch(rows), targets.note, targets.gate_s)
    return FrozenEncoder(belief.vector, belief.classes.present, targets.chain)


def splits(run: Path, model: Path, cache: Path) -> dict[str, FrozenEncoder]:
    """`train`, `valid` and `test`; what is in the folder `cache` is not read again."""
    features = FeatureTable.open(run / "data" / "features")
    where = features.patches.where
    rows = {
        "train": np.concatenate([where(phase=p, split="train") for p in ("nonlinear", "full")]),
        "valid": where(phase="full", split="valid"),
        "test": where(phase="full", split="test"),
    }
    parts = {
        cache / f"{name}-{i:06}.pt": part[i : i + READ]
        for name, part in rows.items()
        for i in range(0, len(part), READ)
    }
    missing = [path for path in parts if not path.exists()]
    trained = checkpoint.load(model).model if missing else None
    cache.mkdir(parents=True, exist_ok=True)
    for path in log.StageLog().progress(missing, len(missing), "encoder"):
        torch.save(vars(frozen(features, trained, parts[path])), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    read = {
        name: [torch.load(p, weights_only=True) for p in parts if p.name.startswith(name)]
        for name in rows
    }
    found = {
        n: FrozenEncoder(**{key: torch.cat([p[key] for p in read[n]]) for key in read[n][0]})
        for n in rows
    }
    longest = max(int((part.chain >= 0).sum(1).max()) for part in found.values())
    length = min(longest + 1, chains.MAX_EFFECTS)  # slots that anything stands in, END included
    return {name: replace(part, chain=part.chain[:, :length]) for name, part in found.items()}


@dataclass(frozen=True)
class Orders:
    """Every order of each test clip's true effects that sounds different.

    Chains [m, 8], their clip [m], right pairs [m] of `chances` [n] audible ones.
    """

    chain: Tensor
    clip: Tensor
    hits: Tensor
    chances: np.ndarray

    @classmethod
    def of(cls, chain: Tensor) -> Orders:
        rows: list[tuple[np.ndarray, int, int]] = []
        chances = np.zeros(len(chain))
        for clip, codes in enumerate(chain.tolist()):
            true = chains.decode(codes)
            chances[clip] = len(chains.audible_pairs(true))
            different = (
                {chains.canonical(order) for order in permutations(true)}
                if chances[clip]
                else set()
            )
            rows += [
                (chains.encode(o), clip, patch.order_hits(o, true)[0]) for o in sorted(different)
            ]
        found, clips, hits = (np.array(column) for column in zip(*rows, strict=True))
        return cls(
            torch.from_numpy(found).long()[:, : chain.shape[1]],
            torch.from_numpy(clips),
            torch.from_numpy(hits),
            chances,
        )

    def judged(self, log_prob: Tensor) -> np.ndarray:
        """Right pairs [n] of each clip's likeliest order; log_prob [m]."""
        hits = np.zeros(len(self.chances))
        for clip in self.clip.unique().tolist():
            mine = self.clip == clip
            hits[clip] = float(self.hits[mine][log_prob[mine].argmax()])
        return hits


def train(
    cell: Cell,
    seed: int,
    data: Mapping[str, FrozenEncoder],
    settings: Any,
    optim: config.Optim,
    lr: float,
) -> ChainDecoder:
    """A fresh decoder, with the weights of its best epoch.

    Initial weights and batches depend on the seed alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ChainDecoder(
            data["train"].vector.shape[1],
            manifold=cell["manifold"],
            dim=cell["dim"],
            curvature=cell["curvature"] or 1.0,
            radius=settings.radius,
            hidden=settings.chain_hidden,
        )
    given = optim.model_dump(
        include={
            "beta1",
            "beta2",
            "eps",
            "weight_decay",
            "clip",
            "threshold",
            "percentile",
            "manifold_lr",
        }
    )
    optimiser = GCWD(model.named_parameters(), lr=lr, **given)
    generator, best = torch.Generator().manual_seed(seed), (np.inf, model.state_dict())
    per_epoch = -(-len(data["train"]) // BATCH)
    for epoch in range(EPOCHS):
        for step, rows in enumerate(
            torch.randperm(len(data["train"]), generator=generator).split(BATCH)
        ):
            optimiser.set_lr(
                lr * phase.one_cycle((epoch + step / per_epoch) / EPOCHS, optim.warmup)
            )
            part = data["train"][rows]
            optimiser.zero_grad()
            losses.chain_nll(model(part.vector, part.present, part.chain), part.chain).backward()
            optimiser.step()
        found = float(nll(model, data["valid"]).mean())
        if found < best[0]:
            best = (
                found,
                {name: value.detach().clone() for name, value in model.state_dict().items()},
            )
    model.load_state_dict(best[1])
    return model


@torch.no_grad()
def nll(model: ChainDecoder, data: FrozenEncoder) -> Tensor:
    """Negative log-likelihood of each chain [n]."""
    return -model.log_prob(data.vector, data.present, data.chain)


@torch.no_grad()
def judge(model: ChainDecoder, test: FrozenEncoder, orders: Orders) -> dict[str, Any]:
    """The means, and per clip what they are made of."""
    best = model.beam(test.vector, test.present, BEAM)[0][:, 0]
    guessed, true = ([chains.decode(row) for row in x.tolist()] for x in (best, test.chain))
    each = orders.clip
    log_prob = torch.cat(
        [
            model.log_prob(
                test.vector[each[i : i + 2048]],
                test.present[each[i : i + 2048]],
                orders.chain[i : i + 2048],
            )
            for i in range(0, len(each), 2048)
        ]
    )
    by_clip = {
        "nll": nll(model, test).double().numpy(),
        "exact": np.array(
            [
                float(chains.canonical(g) == chains.canonical(t))
                for g, t in zip(guessed, true, strict=True)
            ]
        ),
        "order": orders.judged(log_prob),
        "set_f1": np.array([patch.set_f1(g, t) for g, t in zip(guessed, true, strict=True)]),
    }
    means = {name: float(values.mean()) for name, values in by_clip.items()}
    means["order"] = float(by_clip["order"].sum() / orders.chances.sum())
    return means | {
        f"{name}_by_clip": np.round(values, DIGITS).tolist() for name, values in by_clip.items()
    }


def cells() -> list[dict[str, Any]]:
    """Euclidean (curvature 0), then the ball at each curvature, for each dimension."""
    flat = [{"manifold": "euclidean", "dim": dim, "curvature": 0.0} for dim in DIMS]
    return flat + [
        {"manifold": "poincare", "dim": dim, "curvature": c} for c in CURVATURES for dim in DIMS
    ]


# --- telling ----------------------------------------------------------------------------------


def by_clip(rows: pd.DataFrame, measure: str, **cell: Any) -> np.ndarray:
    """[seeds, clips] of one setting; several settings that match are averaged."""
    for name, value in cell.items():
        rows = rows[rows[name] == value]
    parts = [
        np.array(part[f"{measure}_by_clip"].tolist())
        for _, part in rows.sort_values("seed").groupby("dim")
    ]
    return np.mean(parts, axis=0)


def tell(rows: pd.DataFrame, report: Report, chances: np.ndarray) -> Figure:
    """Tables of all settings and of the paired differences; a picture of the latter."""

    def weights(measure: str) -> np.ndarray | None:
        return chances if measure == "order" else None

    lines, differences = {}, {}
    for (curvature, dim), part in rows.groupby(["curvature", "dim"]):
        name = f"{'ball, c = ' + format(curvature, 'g') if curvature else 'Euclidean'}, d = {dim}"
        cell = {"curvature": curvature, "dim": dim}
        lines[name] = {
            w: words(interval(by_clip(rows, m, **cell), weights(m))) for m, w in MEASURES.items()
        }
        lines[name] |= {
            "parameters": int(part["parameters"].iloc[0]),
            "seconds": float(part["seconds"].mean()),
        }
    report.heading("Every setting")
    n = rows["seed"].nunique()
    report.table(
        pd.DataFrame.from_dict(lines, orient="index"),
        f"Means over {n} seeds and {len(chances)} test clips, 95 % intervals.",
    )
    for curvature in (c for c in sorted(rows["curvature"].unique()) if c):
        for dim in [*sorted(rows["dim"].unique()), None]:
            where = {} if dim is None else {"dim": dim}
            name = f"c = {curvature:g}, {'all d' if dim is None else f'd = {dim}'}"
            differences[name] = {
                m: interval(
                    by_clip(rows, m, curvature=curvature, **where)
                    - by_clip(rows, m, curvature=0.0, **where),
                    weights(m),
                )
                for m in MEASURES
            }
    table = pd.DataFrame(
        {
            name: {MEASURES[m]: words(d) for m, d in found.items()}
            for name, found in differences.items()
        }
    ).T
    report.heading("Ball minus Euclidean")
    report.table(
        table,
        "Differences paired by seed and test clip, 95 % intervals; an interval that holds 0 is no "
        "difference. Lower is better for the NLL, higher for the rest.",
    )
    report.text(verdict(differences))
    return picture(differences)


def verdict(differences: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """In words: at which curvatures, over all dimensions, which measure differs."""
    said = []
    for measure, title in MEASURES.items():
        overall = {
            name.split(",")[0]: d[measure]
            for name, d in differences.items()
            if name.endswith("all d")
        }
        sign = -1 if measure == "nll" else 1
        better = [
            name for name, (_, low, high) in overall.items() if min(sign * low, sign * high) > 0
        ]
        worse = [
            name for name, (_, low, high) in overall.items() if max(sign * low, sign * high) < 0
        ]
        found = [f"the ball is better at {', '.join(better)}"] if better else []
        found += [f"worse at {', '.join(worse)}"] if worse else []
        said.append(f"{title}: {' and '.join(found) or 'no difference at any curvature'}.")
    return "Over all dimensions. " + " ".join(said)


def picture(differences: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """One panel a measure: differences with their intervals."""
    figure = Figure(figsize=(11.0, 0.9 + 0.24 * len(differences)), layout="constrained")
    names = list(differences)[::-1]
    for axes, (measure, title) in zip(
        figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True
    ):
        for y, name in enumerate(names):
            mean, low, high = differences[name][measure]
            colour = COLOURS[1] if name.endswith("all d") else COLOURS[0]
            axes.plot([low, high], [y, y], color=colour)
            axes.plot(mean, y, "o", color=colour, markersize=4)
        axes.axvline(0.0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(
            f"{title}{' (left is better)' if measure == 'nll' else ' (right is better)'}",
            fontsize=7,
        )
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle("Poincaré ball minus Euclidean, paired by seed and clip", fontsize=9)
    return figure


def main() -> None:
    """See the module."""
    import time

    parser = arguments(__doc__, 5)
    parser.add_argument(
        "--model",
        type=Path,
        help="the trained model whose encoder is frozen (default: RUN/models/full)",
    )
    parser.add_argument("--lr", type=float, default=LR)
    options = parser.parse_args()
    machine.threads()
    model = options.model or options.run / "models" / "full"
    optim, settings = config.load().optim, checkpoint.load(model).settings
    print_of = pipeline_state.fingerprint(options.run / "data" / "features", model)
    data = splits(options.run, model, Path(".unmixer") / f"study-manifold-{print_of[:12]}")
    orders = Orders.of(data["test"].chain)

    def run(cell: Cell, seed: int, state: Path) -> dict[str, Any]:
        started = time.perf_counter()
        trained = train(cell, seed, data, settings, optim, options.lr)
        count = sum(p.numel() for p in trained.parameters())
        return judge(trained, data["test"], orders) | {
            "parameters": count,
            "seconds": time.perf_counter() - started,
        }

    sizes = ", ".join(f"{len(part)} {name}" for name, part in data.items())
    about = (
        f"Only the chain decoder is trained, on the frozen vectors and presence logits of "
        f"`{settings.manifold}` model's encoder "
        f"({sizes} clips), {EPOCHS} epochs of batches of {BATCH}, GCWD at a peak of "
        f"{options.lr:g}; within a dimension and a "
        "seed both geometries start from the same numbers and see the same batches. The encoder "
        "was trained beside that model's "
        "own decoder, which may favour its geometry. Exact: likeliest chain up to swaps that "
        "cannot be heard. Order: right pairs "
        f"in the likeliest order of the true effects, of {int(orders.chances.sum())} audible "
        f"pairs; chance 0.5. "
        f"Always answering the commonest chain is exact on {common(data):.3f} of the clips."
    )
    key = {
        "inputs": print_of,
        "epochs": EPOCHS,
        "batch": BATCH,
        "lr": options.lr,
        "optim": optim.model_dump(),
    }
    study = Study(
        "manifold",
        "Hyperbolic or Euclidean chain decoder",
        about,
        "python -m benchmarks.studies.manifold",
        cells(),
        range(1, options.seeds + 1),
        key,
        run,
        lambda rows, report: tell(rows, report, orders.chances),
    )
    rows = carry_out(study, options.out)
    parts = {"euclidean": rows[rows["curvature"] == 0.0], "poincare": rows[rows["curvature"] > 0.0]}
    last_line(
        {f"{name}.{m}": float(part[m].mean()) for name, part in parts.items() for m in MEASURES}
    )


def common(data: Mapping[str, FrozenEncoder]) -> float:
    """How often the commonest training chain is the right one."""
    guess = patch.majority_chain([chains.decode(row) for row in data["train"].chain.tolist()])
    return float(
        np.mean(
            [
                chains.canonical(chains.decode(row)) == chains.canonical(guess)
                for row in data["test"].chain.tolist()
            ]
        )
    )


if __name__ == "__main__":
    main()
