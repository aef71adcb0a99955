"""A result as text: the tables of a run, and those of docs/speed.md in Markdown."""

import math

from bench.cases import OWN, RTNEURAL, SHOWN, SHOWN_OF_THREADS
from fastrnn.benchmark.table import duration, left_out_notes, missing_notes, time_cell, versions
from fastrnn.terminal import print_table

TITLES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", RTNEURAL: "RTNeural"}


def print_report(result):
    """Print everything in a result."""
    print(_headline(result))
    for line in missing_notes(result):
        print(line)
    if result["cases"]:
        print("Medians over rounds of calls in a row; p50 and p99 are those of single calls.")
        print("ratio: the time of the fastest other engine, or of the one named, divided by ours.\n")
        print_table(*case_table(result, result["cases"]), width=None)
        print()
        for line in left_out_notes({entry["name"]: entry["engines"] for entry in result["cases"]}):
            print(line)
        if not result["busy"]:
            print(_limits_line(result))
        for line in summary_lines(result["summary"]):
            print(line)
    pools = [entry for entry in result["cases"] if "pool" in entry]
    if pools:
        print("\nPools: the time for each stream, and how many times as long as in one step of the pool.\n")
        print_table(*pool_table(pools), width=None)
    if "cold_start" in result:
        print()
        print_table(*start_table(result), width=None)


def markdown(result, has_all=False):
    """The tables of docs/speed.md as Markdown, or with `has_all` a table of every case."""
    shown = SHOWN if result["threads"] == 1 else SHOWN_OF_THREADS
    entries = [entry for entry in result["cases"] if has_all or entry["name"] in shown]
    columns, rows = case_table(result, entries) if has_all else short_table(result, entries)
    lines = [*_markdown_table(columns, rows), "", f"{_headline(result)}."]
    summary = result["summary"]
    if summary["geometric_mean"]:
        lines.append(
            f"Speed-up: geometric mean {summary['geometric_mean']:.2f} over the "
            f"{summary['geometric_mean_of']} cases that all engines run, lowest of all "
            f"{len(result['cases'])} cases {summary['minimum']:.2f} ({summary['minimum_case']})."
        )
    pools = [entry for entry in result["cases"] if "pool" in entry]
    if pools:
        lines += ["", *_markdown_table(*pool_table(pools))]
    if "cold_start" in result:
        lines += ["", *_markdown_table(*start_table(result))]
    return "\n".join(lines)


def case_table(result, entries):
    """Columns and rows with everything.

    That is times, quantiles of steps, ratio, target, share of the machine's limit, and the ratio at that
    limit.
    """
    engines = [name for name in result["engines"] if name != "fastrnn"]
    for name in (RTNEURAL, OWN):
        if any(name in entry["engines"] for entry in entries):
            engines.append(name)
    has_steps = any("p99" in entry["engines"]["fastrnn"] for entry in entries)
    quantiles = ("p50", "p99") if has_steps else ()
    quantile_columns = (f"its {name}" for name in quantiles)
    has_threads = result["threads"] > 1
    threads_columns = ("one thread", "scaling") if has_threads else ()
    limit_columns = () if result["limits"] is None else ("share of the limit", "ratio at the limit")
    columns = (
        "case", "fastrnn", *quantile_columns, *engines, "ratio", "wanted", *threads_columns, *limit_columns,
    )  # fmt: skip
    rows = []
    for entry in entries:
        times = entry["engines"]
        is_missed = entry["ratio"] is not None and entry["ratio"] < entry["target"]
        rows.append((
            entry["name"],
            time_cell(times["fastrnn"]),
            *(duration(times["fastrnn"][name]) if name in times["fastrnn"] else "" for name in quantiles),
            *(_cell(times.get(name)) for name in engines),
            _ratio(entry["ratio"]),
            f"{entry['target']:.2f}{' MISSED' if is_missed else ''}",
            *([_cell(times["one thread"]), _scaling(entry)] if has_threads else []),
            *([_share(entry["limit"]), _ratio(entry["limit"]["ratio"])] if limit_columns else []),
        ))  # fmt: skip
    return columns, rows


def short_table(result, entries):
    """Columns and rows for docs/speed.md: the time of every engine, and the ratio."""
    engines = [name for name in result["engines"] if name != "fastrnn"]
    has_threads = result["threads"] > 1
    last = ("fastrnn, one thread", "scaling") if has_threads else ()
    columns = ("", "fastrnn", *(TITLES[name] for name in engines), "speed-up", *last)
    rows = [
        (
            entry["name"],
            f"**{time_cell(entry['engines']['fastrnn'])}**",
            *(_cell(entry["engines"].get(name)) for name in engines),
            _ratio(entry["peer_ratio"]),
            *((_cell(entry["engines"]["one thread"]), f"{entry['scaling']:.2f}") if has_threads else ()),
        )
        for entry in entries
    ]
    return columns, rows


def pool_table(entries):
    """Columns and rows of pools: the time of one stream's step in a pool of this size, and in other ways."""
    names = ["in random order", "a lone stream", "streams one by one"]
    names += [*TITLES, "onnxruntime by hand", "onnxruntime one by one"]
    names = [name for name in names if any(name in entry["pool"] for entry in entries)]
    rows = []
    for entry in entries:
        own = entry["engines"]["fastrnn"]["microseconds"] / entry["B"]
        cells = [entry["pool"].get(name) for name in names]
        rows.append((
            entry["name"],
            duration(own),
            *("-" if ratio is None else f"{duration(own * ratio)} ({ratio:.2f}x)" for ratio in cells),
        ))  # fmt: skip
    return ("", "pool.step", *(_pool_title(name) for name in names)), rows


def _pool_title(name):
    if name in TITLES:
        return f"{TITLES[name]}, same batch"
    engine = name.split()[0]
    return name.replace(engine, TITLES.get(engine, engine))


def start_table(result):
    """Columns and rows of cold starts and installed sizes, by engine."""
    rows = []
    for name, times in result["cold_start"].items():
        size = result["installed"].get(name)
        sizes = (_megabytes(size["own"]), _megabytes(size["all"])) if size else ("", "")
        rows.append((TITLES.get(name, name), f"{times['median']:.0f} ms", *sizes))
    return ("cold start", "new process to first result", "own size", "with all it requires"), rows


def summary_lines(summary):
    """The figures over all cases, one per line."""
    for key, words in (
        ("geometric_mean", "geometric mean"),
        ("sequence_mean", "geometric mean of the sequences"),
    ):
        if summary[key] is not None:
            most = summary[f"{key}_at_limit"]
            there = "" if most is None else f"; {most:.2f} at the machine's limits"
            wanted = summary[f"{key}_wanted"]
            count = summary[f"{key}_of"]
            cases = f"{count} case{'s' * (count != 1)}"
            yield f"{words} over {cases}: {summary[key]:.2f}, wanted {wanted:.2f}{there}"
    if summary["minimum"] is not None:
        yield (
            f"lowest {summary['minimum']:.2f} ({summary['minimum_case']}), "
            f"wanted {summary['minimum_wanted']:.2f} everywhere"
        )
    for key, words in (
        ("missed", "cases below the wanted ratio"),
        ("missed_within_limit", "of these, the machine's limit allows the wanted ratio"),
        ("below_minimum", "cases below the lowest ratio allowed"),
        ("missed_pool", "pools below a wanted ratio"),
        ("missed_scaling", "cases below the wanted scaling"),
        ("below_limit", "cases below the wanted share of the limit"),
    ):
        names = summary[key]
        if names is None or (key == "missed_within_limit" and not summary["missed"]):
            continue  # the limits are not known, or there are none of which to say it
        yield f"{words}: {len(names)}{': ' if names else ''}{'; '.join(names)}"


def _headline(result):
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    busy = ", a core kept busy by another process" if result["busy"] else ""
    return f"{result['processor']}, {threads}{busy}, {result['date']}; {versions(result)}"


def _limits_line(result):
    limits = result["limits"]
    if limits is None:
        return f"limits of the machine not measured: {result['no_limits']}"
    speeds = dict(limits["bandwidth"])
    reading = ", ".join(
        f"{speeds[size]:.0f} GB/s from {_bytes(size)}"
        for size in (2**15, 2**19, 2**23, 2**28)
        if size in speeds
    )
    return (
        f"limits of one core ({limits['isa']}): {limits['gflops']['float32']:.0f} GFLOP/s float32, "
        f"{limits['gflops']['float64']:.0f} float64{_narrow_limits(limits)}; reading {reading}"
    )


def _narrow_limits(limits):
    """The highest rates of products of narrow weights."""
    rates = {name: max(by_rows.values()) for name, by_rows in limits.get("products", {}).items()}
    return "".join(f", {rate:.0f} {name}" for name, rate in rates.items())


def _cell(record):
    if record is not None and "recorded" in record:
        return f"{duration(record['recorded'])} (recorded)"
    return time_cell(record)


def _ratio(ratio):
    return "-" if ratio is None else f"{ratio:.2f}"


def _share(limit):
    is_below = limit["wanted"] is not None and limit["share"] < limit["wanted"]
    below = f", wanted {100 * limit['wanted']:.0f} %" if is_below else ""
    return f"{math.floor(100 * limit['share'])} % of {limit['kind']}{below}"


def _scaling(entry):
    wanted = entry["scaling_wanted"]
    is_missed = wanted and entry["scaling"] < wanted
    return f"{entry['scaling']:.2f}{f', wanted {wanted:.2f}' if is_missed else ''}"


def _megabytes(size):
    return f"{size / 1e6:.0f} MB" if size >= 9.95e6 else f"{size / 1e6:.1f} MB"


def _bytes(size):
    return f"{size >> 20} MB" if size >= 2**20 else f"{size >> 10} KB"


def _markdown_table(columns, rows):
    yield f"| {' | '.join(columns)} |"
    yield f"|---{'|---:' * (len(columns) - 1)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |".replace(" us", " µs")
