"""Whether a draft belongs to a command: the same model, input and options, computed in the same way."""

import hashlib
import json
import os
from collections.abc import Mapping

from fastrnn.cli.running.blocks import BLOCK_NUMBERS, BLOCK_ROWS, BLOCK_WORK
from fastrnn.cli.running.journal import Journal, stamp
from fastrnn.engine.backends import config

# What a draft is of that does not fit, by the parts of an identity.
OTHERS = {
    "model": "another model",
    "input": "another input, or of this one before it changed",
    "options": "other options",
    "engine": "another release of fastrnn, or another machine",
}


def digest_model(path: str) -> str:
    """A text that tells a model's file, or the files of its folder, from all that hold other bytes."""
    digest = hashlib.sha256()
    folder = path if os.path.isdir(path) else os.path.dirname(path) if path.endswith(".index.json") else None
    names = [path] if folder is None else [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    for name in names:
        if not os.path.isfile(name):
            continue
        digest.update(os.path.basename(name).encode(errors="surrogateescape") if folder is not None else b"")
        with open(name, "rb") as file:
            while data := file.read(2**20):
                digest.update(data)
    return digest.hexdigest()


def make_identity(model_digest: str, input_path: str, options: Mapping[str, object]) -> dict[str, str]:
    """What has to be the same for a draft to be used.

    The model counts by its bytes. The input, which may be larger than memory, counts by its size, times and
    number in the file system. The engine counts because kernels of another instruction set, or blocks of
    another size in the blas backend, may round in another way. How many threads there are counts in the blas
    backend alone.
    """
    found = config()
    engine = [found["fastrnn"], found["numpy"], found["machine"], found["backend"]]
    if found["backend"].startswith("blas"):
        engine.append(found["threads"])
    else:
        options = {name: value for name, value in options.items() if name != "threads"}
    return {
        "model": model_digest,
        "input": json.dumps(stamp(input_path)),
        "options": json.dumps(options, sort_keys=True),
        "engine": json.dumps([*engine, BLOCK_NUMBERS, BLOCK_WORK, BLOCK_ROWS]),
    }


def difference(identity: Mapping[str, str], journal: Journal) -> str | None:
    """What a journal is of, where it does not belong to the command; None where it does."""
    for part, what in OTHERS.items():
        if journal.identity.get(part) != identity[part]:
            return what
    return None
