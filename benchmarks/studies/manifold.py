"""Does a hyperbolic decoder order effects better than its Euclidean twin?

Dimension x curvature x seeds on frozen features.

    python -m benchmarks.studies.manifold [--run .] [--seeds 5] [--model models/full]

The trained encoder's vectors and presence logits are computed once. Then only the chain decoder is
trained, from scratch, on the non-linear and full-chain training clips. Every row is trained in the
same way: same widths, initial numbers, batches and optimiser (GCWD), and the weights of the epoch
with the best validation likelihood.

Measured on the frozen full-chain test clips. nll: negative log-likelihood of the chain. exact: the
likeliest chain of a beam of 8 is the true one, up to swaps that are not audible. order: share of
the audible pairs that are in the right order in the likeliest order of the true effects (chance:
one half). set_f1: F1 of the likeliest chain's effects. The last line is one JSON object.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.manifold_page import MEASURES, fill_page
from benchmarks.studies.study import Cell, Study, arguments, carry_out, last_line
from unmixer_core import config
from unmixer_core.features.store import FeatureTable
from unmixer_core.metrics import patch
from unmixer_core.model import checkpoint
from unmixer_core.model.chain_decoder import ChainDecoder
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline import log, machine
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.schema import chain as chains
from unmixer_core.system import files
from unmixer_core.system.json_types import Json
from unmixer_core.training import losses, phase
from unmixer_core.training.optim import GCWD

DIMS = (2, 8, 32)
CURVATURES = (0.1, 0.3, 1.0)
EPOCHS = 12
BATCH = 256
#: Width of the beam search.
BEAM = 8
#: Clips that the encoder takes at once, and that one file of the cache holds.
READ = 64
#: Rows of a batch without gradients.
SCORED = 2048
#: Peak learning rate.
LR = 0.004
#: Digits of the numbers per clip in the study's JSON.
DIGITS = 4
#: The part of the `optim` section that GCWD takes beside its learning rate.
GCWD_SETTINGS = {
    "beta1",
    "beta2",
    "eps",
    "weight_decay",
    "clip",
    "threshold",
    "percentile",
    "manifold_lr",
}


@dataclass(frozen=True)
class FrozenEncoder:
    """The decoder's inputs and targets for n clips.

    vector: [n, embedding]. present: logits [n, 8]. chain: [n, 8].
    """

    vector: Tensor
    present: Tensor
    chain: Tensor

    def __len__(self) -> int:
        return len(self.chain)

    def __getitem__(self, rows: Tensor | np.ndarray | slice) -> FrozenEncoder:
        return FrozenEncoder(self.vector[rows], self.present[rows], self.chain[rows])


@torch.no_grad()
def encode(features: FeatureTable, model: Unmixer, rows: np.ndarray) -> FrozenEncoder:
    """Run the encoder of a trained model, in inference mode."""
    targets = Targets.of(features.patches.select(rows))
    belief = model(features.batch(rows), targets.note, targets.gate_s)
    return FrozenEncoder(belief.vector, belief.classes.present, targets.chain)


def splits(run: Path, model: Path, cache: Path) -> dict[str, FrozenEncoder]:
    """Return `train`, `valid` and `test`; batches in the folder `cache` are not encoded again."""
    features = FeatureTable.open(run / "data" / "features")
    where = features.patches.where
    rows = {
        "train": np.concatenate([where(phase=p, split="train") for p in ("nonlinear", "full")]),
        "valid": where(phase="full", split="valid"),
        "test": where(phase="full", split="test"),
    }
    batches: dict[Path, np.ndarray] = {}
    for name, part in rows.items():
        for i in range(0, len(part), READ):
            batches[cache / f"{name}-{i:06}.pt"] = part[i : i + READ]
    missing = [path for path in batches if not path.exists()]
    if missing:
        trained = checkpoint.load(model).model
        for path in log.StageLog().progress(missing, len(missing), "encoder"):
            with files.replacing(path) as temporary:
                torch.save(vars(encode(features, trained, batches[path])), temporary)
    encoded = {}
    for name in rows:
        paths = [path for path in batches if path.name.startswith(name)]
        saved = [torch.load(path, weights_only=True) for path in paths]
        columns = {key: torch.cat([one[key] for one in saved]) for key in saved[0]}
        encoded[name] = FrozenEncoder(**columns)
    longest = max(int((part.chain >= 0).sum(1).max()) for part in encoded.values())
    length = min(longest + 1, chains.MAX_EFFECTS)  # slots that are ever used, END included
    return {name: replace(part, chain=part.chain[:, :length]) for name, part in encoded.items()}


@dataclass(frozen=True)
class Orders:
    """Every order of each test clip's true effects that sounds different: m orders of n clips.

    chain: [m, 8]. clip: the clip of each order [m]. hits: its audible pairs in the right order [m].
    chances: audible pairs of each clip [n].
    """

    chain: Tensor
    clip: Tensor
    hits: Tensor
    chances: np.ndarray

    @classmethod
    def of(cls, chain: Tensor) -> Orders:
        """Enumerate the orders of true chains [n, slots]."""
        rows: list[tuple[np.ndarray, int, int]] = []
        chances = np.zeros(len(chain))
        for clip, codes in enumerate(chain.tolist()):
            true = chains.decode(codes)
            chances[clip] = len(chains.audible_pairs(true))
            if not chances[clip]:
                continue
            different = {chains.canonical(order) for order in permutations(true)}
            for order in sorted(different):
                right, *_ = patch.order_hits(order, true)
                rows.append((chains.encode(order), clip, right))
        codes_of, clip_of, hits = (np.array(column) for column in zip(*rows, strict=True))
        return cls(
            chain=torch.from_numpy(codes_of).long()[:, : chain.shape[1]],
            clip=torch.from_numpy(clip_of),
            hits=torch.from_numpy(hits),
            chances=chances,
        )

    def hits_of_best(self, log_prob: Tensor) -> np.ndarray:
        """Return the right pairs [n] of each clip's likeliest order; log_prob [m]."""
        hits = np.zeros(len(self.chances))
        for clip in self.clip.unique().tolist():
            of_clip = self.clip == clip
            hits[clip] = float(self.hits[of_clip][log_prob[of_clip].argmax()])
        return hits


def train(
    cell: Cell,
    seed: int,
    data: Mapping[str, FrozenEncoder],
    settings: config.Model,
    optim: config.Optim,
    lr: float,
) -> ChainDecoder:
    """Train a new decoder and return it with the weights of its best epoch.

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
    given = optim.model_dump(include=GCWD_SETTINGS)
    optimiser = GCWD(model.named_parameters(), lr=lr, **given)
    generator = torch.Generator().manual_seed(seed)
    n_clips = len(data["train"])
    per_epoch = -(-n_clips // BATCH)
    best_nll = np.inf
    best_weights = model.state_dict()
    for epoch in range(EPOCHS):
        shuffled = torch.randperm(n_clips, generator=generator)
        for step, rows in enumerate(shuffled.split(BATCH)):
            progress = (epoch + step / per_epoch) / EPOCHS
            optimiser.set_lr(lr * phase.one_cycle(progress, optim.warmup))
            part = data["train"][rows]
            optimiser.zero_grad()
            losses.chain_nll(model(part.vector, part.present, part.chain), part.chain).backward()
            optimiser.step()
        valid_nll = float(nll(model, data["valid"]).mean())
        if valid_nll < best_nll:
            best_nll = valid_nll
            weights = model.state_dict().items()
            best_weights = {name: value.detach().clone() for name, value in weights}
    model.load_state_dict(best_weights)
    return model


@torch.no_grad()
def nll(model: ChainDecoder, data: FrozenEncoder) -> Tensor:
    """Return the negative log-likelihood of each chain [n]."""
    return -model.log_prob(data.vector, data.present, data.chain)


@torch.no_grad()
def measure(model: ChainDecoder, test: FrozenEncoder, orders: Orders) -> Json:
    """Return each measure's mean, and under `<measure>_by_clip` its values per clip."""
    likeliest = model.beam(test.vector, test.present, BEAM)[0][:, 0]
    exact = []
    set_f1 = []
    for guessed_codes, true_codes in zip(likeliest.tolist(), test.chain.tolist(), strict=True):
        guessed = chains.decode(guessed_codes)
        true = chains.decode(true_codes)
        exact.append(float(chains.canonical(guessed) == chains.canonical(true)))
        set_f1.append(patch.set_f1(guessed, true))
    log_prob = []
    for i in range(0, len(orders.clip), SCORED):
        clips = orders.clip[i : i + SCORED]
        chain = orders.chain[i : i + SCORED]
        log_prob.append(model.log_prob(test.vector[clips], test.present[clips], chain))
    by_clip = {
        "nll": nll(model, test).double().numpy(),
        "exact": np.array(exact),
        "order": orders.hits_of_best(torch.cat(log_prob)),
        "set_f1": np.array(set_f1),
    }
    result: Json = {name: float(values.mean()) for name, values in by_clip.items()}
    # a ratio of sums: clips have different numbers of pairs
    result["order"] = float(by_clip["order"].sum() / orders.chances.sum())
    for name, values in by_clip.items():
        result[f"{name}_by_clip"] = np.round(values, DIGITS).tolist()
    return result


def cells() -> list[Json]:
    """Return the settings: Euclidean (curvature 0), then the ball at each curvature."""
    settings = []
    for curvature in (0.0, *CURVATURES):
        manifold = "poincare" if curvature else "euclidean"
        for dim in DIMS:
            settings.append({"manifold": manifold, "dim": dim, "curvature": curvature})
    return settings


def main() -> None:
    """Run the study; see the module."""

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
    optim = config.load().optim
    settings = checkpoint.load(model).settings
    fingerprint = pipeline_state.fingerprint(options.run / "data" / "features", model)
    data = splits(options.run, model, Path(".unmixer") / f"study-manifold-{fingerprint[:12]}")
    orders = Orders.of(data["test"].chain)

    def run(cell: Cell, seed: int, state: Path) -> Json:
        start = time.perf_counter()
        decoder = train(cell, seed, data, settings, optim, options.lr)
        row = measure(decoder, data["test"], orders)
        row["parameters"] = sum(p.numel() for p in decoder.parameters())
        row["seconds"] = time.perf_counter() - start
        return row

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
        "inputs": fingerprint,
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
        lambda rows, report: fill_page(rows, report, orders.chances),
    )
    rows = carry_out(study, options.out)
    parts = {"euclidean": rows[rows["curvature"] == 0.0], "poincare": rows[rows["curvature"] > 0.0]}
    last_line(
        {f"{name}.{m}": float(part[m].mean()) for name, part in parts.items() for m in MEASURES}
    )


def common(data: Mapping[str, FrozenEncoder]) -> float:
    """Return how often the commonest training chain is the right one, up to audible."""
    train_chains = [chains.decode(row) for row in data["train"].chain.tolist()]
    guess = chains.canonical(patch.majority_chain(train_chains))
    test_chains = [chains.decode(row) for row in data["test"].chain.tolist()]
    return float(np.mean([chains.canonical(true) == guess for true in test_chains]))


if __name__ == "__main__":
    main()
