"""`python -m tests.unmixer_app.service.puppet`.

A child that does what its requests say under "act" (of a search: as the chain).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    tell("{}")
    for line in sys.stdin:
        asked = json.loads(line)
        act = asked.get("act") or asked["options"]["act"]
        if act == "done":
            Path(asked["out"]).mkdir(parents=True)
            (Path(asked["out"]) / "patch.json").write_text("{}")
            (Path(asked["folder"]) / "best.wav").write_bytes(bytes(1000))
            tell(json.dumps({"step": "refine"}))
            tell(json.dumps({"done": {}}))
        elif act == "die":
            sys.exit(3)
        elif act == "stand":
            tell(json.dumps({"step": "refine"}))
            time.sleep(600)
        else:
            tell({"garbage": "no JSON", "long": "x" * (5 << 20)}.get(act, act))


if __name__ == "__main__":
    main()
