"""Random bytes for what reads bytes of others, for as long as one likes: `make fuzz TARGET=frames MINUTES=10`."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from tests.fuzz.mutate import changed
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


def fuzz(target: Target, seconds: float, seed: int, *, inputs: int = sys.maxsize) -> tuple[int, list[bytes]]:
    """How many inputs there were, and the first findings."""
    draw, findings, count, deadline = random.Random(seed), list[bytes](), 0, time.monotonic() + seconds
    while count < inputs and time.monotonic() < deadline and len(findings) < 10:
        data = changed(draw, target.seeds)
        count += 1
        try:
            target.run(data)
        except Exception:  # noqa: BLE001 - that is what is looked for
            findings.append(data)
            print(f"finding: {data.hex()}\n{traceback.format_exc()}", file=sys.stderr)
    return count, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", choices=["all", *TARGETS], default="all")
    parser.add_argument("--input", help="repeat this one, in hexadecimal, with --target")
    options = parser.parse_args()
    if options.input is not None:
        TARGETS[options.target].run(bytes.fromhex(options.input))
        return
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    names = list(TARGETS) if options.target == "all" else [options.target]
    wrong = False
    for name in names:
        count, findings = fuzz(TARGETS[name], 60 * options.minutes / len(names), seed)
        print(f"{name}: seed {seed}, {count} inputs, {len(findings)} findings", flush=True)
        wrong = wrong or bool(findings)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
