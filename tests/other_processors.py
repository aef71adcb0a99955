"""Narrow products of processors that this one is not, by an emulator: ``python tests/other_processors.py``.

It compiles narrow_bits.c for this processor and for aarch64, and compares what they compute: sums bit by bit,
on every instruction set with fused multiply-adds, and steps of cells up to their gates. It takes minutes.
Debian has what it wants in gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user. --clang compiles with
Clang.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parent
FLAGS = ("-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror")
HERE = ("avx2", "avx2_vnni", "avx512", "avx512_vnni", "amx")
ARM = {"neon": (), "neon with dot products": ("-march=armv8.2-a+dotprod",)}
# Gates err by 3e-6. A last bit of h may be a whole unit of a narrow number, one of many in a sum.
NEAR = {"typical": 1e-5, "largest": 2e-2}


def compiled(folder, name, compiler, *flags):
    program = Path(folder) / name.replace(" ", "_")
    include = TESTS.parent / "fastrnn" / "engine"
    command = [*compiler, *FLAGS, *flags, f"-I{include}", TESTS / "narrow_bits.c", "-o", program, "-lm"]
    subprocess.run(command, check=True)
    return program


def results(command, isa, what):
    """The numbers; None where the processor lacks the instruction set."""
    result = subprocess.run([*command, isa, what], capture_output=True)
    if result.returncode == 2:
        return None
    result.check_returncode()
    return np.frombuffer(result.stdout, np.float32)


def differences(what, one, other):
    if one.shape != other.shape:
        return f"{other.size} numbers, not {one.size}"
    if what == "sums":
        count = np.count_nonzero((one != other) & ~(np.isnan(one) & np.isnan(other)))
        return f"{count} of {one.size} differ" if count else None
    apart = np.abs(one - other)
    errors = {"typical": np.sqrt((apart**2).mean()), "largest": apart.max()}
    return None if all(errors[name] <= NEAR[name] for name in NEAR) else f"errors {errors}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clang", action="store_true")
    parser.add_argument("-O", dest="level", default="2", help="how much compilers optimise")
    options = parser.parse_args()
    optimised = f"-O{options.level}"
    cross = ["clang", "--target=aarch64-linux-gnu"] if options.clang else ["aarch64-linux-gnu-gcc"]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        here = [compiled(folder, "here", ["clang" if options.clang else "gcc"], optimised)]
        runs = {isa: (here, isa) for isa in HERE}
        for name, flags in ARM.items():
            program = compiled(folder, name, cross, optimised, "-static", *flags)
            runs[name] = (["qemu-aarch64", program], "neon")
        for what in ("sums", "steps"):
            wanted = None
            for name, (command, isa) in runs.items():
                got = results(command, isa, what)
                if got is None:
                    print(f"{what}: this processor lacks {name}")
                    continue
                wanted = got if wanted is None else wanted
                found = differences(what, wanted, got)
                wrong += found is not None
                print(f"{what}: {name}: {found or f'{got.size} right'}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
