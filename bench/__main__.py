"""``python -m bench``: measure the grid, show a table, write JSON."""

import argparse
import json
import os

# One thread for every engine. Before any of them loads.
for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

from bench.cases import GRID  # noqa: E402 - the threads have to be set first
from bench.engines import ENGINES, is_installed  # noqa: E402
from bench.run import ROUNDS, machine, measure  # noqa: E402
from fastrnn.terminal import print_table, progress  # noqa: E402


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the grid, on one core.")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("-o", "--output", help="where the result goes (.json)")
    options = parser.parse_args()
    cases = [case for case in GRID if options.only in case.name]
    peers = [engine.name for engine in ENGINES if is_installed(engine)]
    result = {**machine(), "cases": []}
    rows = []
    with progress("bench") as report:
        for index, case in enumerate(cases):
            times = measure(case, options.rounds)
            result["cases"].append({**case.as_dict(), "name": case.name, "microseconds": times})
            ours = times["fastrnn"]["median"]
            cells = [
                f"{times[name]['median']:.1f}" if "median" in times.get(name, {}) else "-" for name in peers
            ]
            best = min(times.get(name, {}).get("median", float("inf")) for name in peers[1:] or ["fastrnn"])
            rows.append((case.name, *cells, f"{best / ours:.2f}"))
            report(index + 1, len(cases))
    print(f"{result['processor']}; {result['engines']}; not installed: {result['not_installed'] or 'none'}")
    print("microseconds (median), and the best peer's time over ours\n")
    print_table(("case", *peers, "ratio"), rows)
    if options.output:
        with open(options.output, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
