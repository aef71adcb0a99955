"""The command line of the benchmark."""

import argparse
import json
import sys


def main(arguments=None):
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"python -m bench: {str(error).removeprefix('bench: ')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m bench: interrupted", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the grid next to every other engine that is installed.",
    )
    parser.set_defaults(command=_measure)
    _add_amount(parser)
    parser.add_argument("--busy", action="store_true", help="measure while another process keeps a core busy")
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="NAME",
        help="measure the grid of this narrow precision, beside engines at the same width",
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name, function, summary):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function)
        return command

    comparison = add("compare", _compare, "Compare two results. Exit with 1 if a case became slower.")
    comparison.add_argument("before", metavar="BEFORE", help="a result (.json)")
    comparison.add_argument("after", metavar="AFTER", help="a later result (.json)")
    comparison.add_argument(
        "--threshold", type=float, metavar="SHARE", help="ignore smaller changes (default 0.05)"
    )
    builds = add("builds", _builds, "Time two builds in turns. Exit with 1 if a case became slower.")
    for name in ("before", "after"):
        builds.add_argument(name, metavar=name.upper(), help="a folder with fastrnn/ or src/fastrnn/ in it")
    _add_amount(builds)
    models = add("models", _models, "Measure whole models next to every other engine that is installed.")
    _add_amount(models)
    bits = add("bits", _bits, "Record the bits of all outputs, or compare them with a record.")
    target = bits.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", help="write the record here (.json)")
    target.add_argument(
        "--against", metavar="RECORD", help="show what differs from a record; exit with 1 if anything does"
    )
    show = add("show", _show, "Print the table of a result.")
    show.add_argument("result", metavar="RESULT", help="a result (.json)")
    text = add("markdown", _markdown, "Print a result as the tables of docs/speed.md.")
    text.add_argument("result", metavar="RESULT", help="a result (.json)")
    text.add_argument("--all", action="store_true", help="print every case, with its target")
    plots = add("plot", _plot, "Draw a result: the time per step, and the roofline.")
    plots.add_argument("result", metavar="RESULT", help="a result (.json)")
    plots.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="where steps and roofline go (.svg, .png)"
    )
    return parser


def _add_amount(parser):
    """Add the options that say how much is measured, and where the result goes."""
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="measure only cases with TEXT in their names"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each case (default 21)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads to use (default 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result as JSON")


# Each command imports what it needs itself, since the number of threads has to be set before an engine loads.


def _measure(options):
    from fastrnn.benchmark.engines import limit_threads

    limit_threads(options.threads)
    from bench.cases import GRID, GRID_OF_THREADS
    from bench.report import print_report
    from bench.run import run
    from bench.startup import RUNS
    from fastrnn.terminal import progress

    rounds, threads = _amount(options)
    starts = RUNS if options.only in "cold start" and threads == 1 and not _is_narrow(options) else 0
    grid = (
        _narrow_grid(options.precision) if _is_narrow(options) else GRID if threads == 1 else GRID_OF_THREADS
    )
    cases = _pick(grid, options.only, or_none=bool(starts))
    with progress("bench") as report:
        result = run(cases, rounds, threads=threads, is_busy=options.busy, starts=starts, report=report)
    _write(result, options.output)
    print_report(result)


def _is_narrow(options):
    return options.precision != "float32"


def _narrow_grid(precision):
    """The cases of a narrow precision, with the targets for this processor."""
    from bench.narrow import NARROW_GRIDS, grid_of
    from fastrnn.checks import check_choice
    from fastrnn.engine.backends import ISAS, pick_isa

    check_choice("bench", "--precision", precision, ("float32", *NARROW_GRIDS))
    return grid_of(precision, bool(ISAS) and pick_isa() == "amx")


def _builds(options):
    from fastrnn.benchmark.engines import limit_threads

    limit_threads(options.threads)
    from bench.builds import Build, compare_builds, is_clean, print_builds
    from bench.cases import GRID_OF_BUILDS
    from fastrnn.terminal import progress

    rounds, threads = _amount(options)
    cases = _pick(GRID_OF_BUILDS, options.only)
    with Build("before", options.before) as before, Build("after", options.after) as after:
        with progress("bench") as report:
            result = compare_builds(before, after, cases, rounds, threads=threads, report=report)
    _write(result, options.output)
    print_builds(result)
    return 0 if is_clean(result) else 1


def _models(options):
    from fastrnn.benchmark.engines import limit_threads

    limit_threads(options.threads)
    from bench.models import WHOLE_MODELS
    from bench.programs import print_result, run
    from fastrnn.terminal import progress

    rounds, threads = _amount(options)
    models = _pick(WHOLE_MODELS, options.only)
    with progress("bench") as report:
        result = run(models, rounds, threads=threads, report=report)
    _write(result, options.output)
    print_result(result)


def _amount(options):
    """The rounds and the threads, checked; so is the place of the result, before anything is measured."""
    from fastrnn.benchmark.measure import ROUNDS
    from fastrnn.checks import check_positive
    from fastrnn.saving.whole_files import check_target

    if options.output is not None:
        check_target(options.output)
    rounds = ROUNDS if options.rounds is None else check_positive("bench", "--rounds", options.rounds)
    return rounds, check_positive("bench", "--threads", options.threads)


def _pick(grid, text, or_none=False):
    """The cases of a grid with a text in their names."""
    from fastrnn.errors import message

    cases = [case for case in grid if text in case.name]
    if not cases and not or_none:
        hint = f"The cases are {grid[0].name!r} to {grid[-1].name!r}; {_file_of(grid)} has them all."
        raise ValueError(message("bench", "a text that is in the name of a case", repr(text), hint))
    return cases


def _file_of(grid):
    """Where the cases of a grid are declared."""
    return f"{type(grid[0]).__module__.replace('.', '/')}.py"


def _write(result, path):
    """Write a result to a file, or nowhere."""
    from fastrnn.saving.whole_files import replacing

    if path is not None:
        with replacing(path) as draft, open(draft, "w") as file:
            json.dump(result, file, indent=1)


def _compare(options):
    from bench.compare import THRESHOLD, compare, print_comparison

    before, after = _read(options.before), _read(options.after)
    found = compare(before, after, THRESHOLD if options.threshold is None else options.threshold)
    print_comparison(before, after, found)
    return 1 if found["slower"] else 0


def _bits(options):
    from bench.bits import differences, record
    from fastrnn.saving.whole_files import check_target

    if options.output is not None:
        check_target(options.output)
        _write(record(), options.output)
        return 0
    with open(options.against) as file:
        before = json.load(file)
    differing, shared = differences(before, record())
    for name in differing:
        print(name)
    print(f"{len(differing)} of {shared} differ")
    return 1 if differing else 0


def _show(options):
    from bench.report import print_report

    print_report(_read(options.result))


def _markdown(options):
    from bench.report import markdown

    print(markdown(_read(options.result), options.all))


def _plot(options):
    from fastrnn.errors import message

    try:
        from bench.plot import plot
    except ImportError as error:
        hint = "pip install matplotlib brings it."
        raise RuntimeError(message("plot", "matplotlib", f"none ({error})", hint)) from error
    for path in plot(_read(options.result), options.output):
        print(path)


def _read(path):
    """A result from its file."""
    from bench.run import RESULT_VERSION
    from fastrnn.errors import message

    try:
        with open(path) as file:
            result = json.load(file)
    except ValueError as error:
        raise ValueError(message(path, "a result of python -m bench", f"no JSON ({error})")) from error
    version = result.get("version") if isinstance(result, dict) else None
    if version != RESULT_VERSION:
        raise ValueError(message(path, f"a result of version {RESULT_VERSION}", f"{version}"))
    return result


if __name__ == "__main__":
    sys.exit(main())
