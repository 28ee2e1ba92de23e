"""Draw the patch table: training, validation and the frozen test split, for the three phases of
the curriculum.
"""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config
from unmixer_core.pipeline import run
from unmixer_core.sampling import sample as draw_table
from unmixer_core.schema.patch import PHASES, Patches


def main(patches: Path, sample: config.Sample) -> dict[str, float]:
    """Write every patch of the experiment.

    The test split comes first and has a seed of its own, so that it never moves.
    """
    tables: list[Patches] = []
    for split in ("test", "valid", "train"):
        for phase in PHASES:
            n = getattr(sample, f"n_{phase}" if split == "train" else f"n_{split}_{phase}")
            seed = sample.test_seed if split == "test" else sample.seed
            tables.append(draw_table(n, phase, split, seed, sample, first_id=sum(map(len, tables))))
    table = Patches.concat(tables)
    table.write(patches)
    lengths = (table.chain >= 0).sum(axis=1)
    counts = {
        f"patches_{split}": len(table.where(split=split)) for split in ("train", "valid", "test")
    }
    return counts | {"mean_chain_length": float(lengths.mean())}


if __name__ == "__main__":
    run.run_stage(main)
