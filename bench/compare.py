"""Two results beside each other: what became slower, and what faster."""

from fastrnn.benchmark.engines import PEERS
from fastrnn.benchmark.table import best_peer

# A change smaller than this share is none, whatever the rounds say.
THRESHOLD = 0.05


def compare(before, after, threshold=THRESHOLD):
    """What changed between two results, case by case.

    A case counts as slower when its time grew and its ratio to the best peer, of the engines that
    both results have, fell too: on a machine that is slower as a whole, or for the moment, the peers
    are slower with it. Both must change by more than `threshold`, and by more than the rounds of a
    run differ among themselves.

    Returns
    -------
    dict
        slower, faster: by the case's name how many times longer it takes, the smaller of the two
        changes, the largest first. same: how many cases did not change. only_before, only_after:
        the names of cases that one result lacks.
    """
    old = {entry["name"]: entry["engines"] for entry in before["cases"]}
    new = {entry["name"]: entry["engines"] for entry in after["cases"]}
    changes = {name: _change(old[name], new[name]) for name in old if name in new}
    slower, faster = {}, {}
    for name, (change, noise) in changes.items():
        limit = 1 + max(threshold, noise)
        if change > limit:
            slower[name] = change
        elif change < 1 / limit:
            faster[name] = change
    return {
        "slower": dict(sorted(slower.items(), key=lambda item: -item[1])),
        "faster": dict(sorted(faster.items(), key=lambda item: item[1])),
        "same": len(changes) - len(slower) - len(faster),
        "only_before": [name for name in old if name not in new],
        "only_after": [name for name in new if name not in old],
    }


def _change(old, new):
    """How many times longer a case takes, 1 where time and ratio disagree; and the noise of both."""
    changes = [new["fastrnn"]["microseconds"] / old["fastrnn"]["microseconds"]]
    common = {peer.name for peer in PEERS} & old.keys() & new.keys()
    peers = [best_peer(times, common) for times in (old, new)]
    records = [old["fastrnn"], new["fastrnn"]]
    if None not in peers:
        changes.append(changes[0] * peers[0][1] / peers[1][1])
        records += [old[peers[0][0]], new[peers[1][0]]]
    noise = max(_noise(record) for record in records)
    if min(changes) > 1:
        return min(changes), noise
    return (max(changes) if max(changes) < 1 else 1.0), noise


def _noise(record):
    """How far apart the quartiles over the rounds are, as a share of the median."""
    low, high = record["quartiles"]
    return (high - low) / record["microseconds"]


def print_comparison(before, after, found):
    """Print what `compare` found."""
    if before["processor"] != after["processor"] or before["engines"] != after["engines"]:
        for word, result in (("before", before), ("after", after)):
            versions = ", ".join(f"{name} {version}" for name, version in result["engines"].items())
            print(f"{word}: {result['processor']}; {versions}")
    for word in ("slower", "faster"):
        for name, change in found[word].items():
            print(f"{word}: {name}: {change:.2f} times the time")
    for key, words in (("only_before", "only in the first result"), ("only_after", "only in the second")):
        if found[key]:
            print(f"{words}: {'; '.join(found[key])}")
    print(f"{len(found['slower'])} slower, {len(found['faster'])} faster, {found['same']} the same")
