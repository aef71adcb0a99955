"""Compare two results: which cases became slower, and which faster."""

from fastrnn.benchmark.engines import PEERS
from fastrnn.benchmark.table import best_peer, versions

# Smaller changes than this share are ignored.
THRESHOLD = 0.05


def compare(before, after, threshold=THRESHOLD):
    """What changed between two results, case by case.

    A case counts as slower if its time grew and its ratio to the best peer fell too, since on a slower
    machine or at a slow moment the peers are slower as well. Only peers that are in both results count. Both
    changes have to be larger than `threshold`, and larger than the rounds of one run differ.

    Returns
    -------
    dict
        slower, faster: how many times as long each of these cases takes, by name, the largest change first.
        Of the two changes it is the smaller one. same: how many cases did not change. only_before,
        only_after: the names of cases that one result lacks.
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
    """How many times as long a case takes, or 1 if time and ratio disagree; and the noise of both results."""
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
    """The distance between the quartiles over the rounds, as a share of the median."""
    low, high = record["quartiles"]
    return (high - low) / record["microseconds"]


def print_comparison(before, after, found):
    """Print what `compare` returned."""
    if before["processor"] != after["processor"] or before["engines"] != after["engines"]:
        for word, result in (("before", before), ("after", after)):
            print(f"{word}: {result['processor']}; {versions(result)}")
    for word in ("slower", "faster"):
        for name, change in found[word].items():
            print(f"{word}: {name}: {change:.2f} times the time")
    for key, words in (("only_before", "only in the first result"), ("only_after", "only in the second")):
        if found[key]:
            print(f"{words}: {'; '.join(found[key])}")
    print(f"{len(found['slower'])} slower, {len(found['faster'])} faster, {found['same']} the same")
