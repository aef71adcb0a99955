"""Whether a draft belongs to a command: the same model, input and options, computed the same way."""

import hashlib
import json
import os
from collections.abc import Mapping

from fastrnn.cli.running.journal import Journal, stamp
from fastrnn.cli.running.pieces import PIECE_MULTIPLY_ADDS, PIECE_NUMBERS, PIECE_ROWS
from fastrnn.engine.backends import config

# What messages say of a draft that does not fit, by the entry of the identity that differs.
MISMATCHES = {
    "model": "of another model",
    "input": "of another input, or of this one before it changed",
    "options": "of other options",
    "engine": "of another release of fastrnn or another machine",
}


def digest_model(path: str) -> str:
    """A digest of the bytes of a model's file, or of all files of its folder."""
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

    The model counts by its bytes. The input may be larger than memory, so it counts by its size, its times
    and its number in the file system. The engine counts because kernels of another instruction set, or
    pieces of another size in the blas backend, may round differently. The number of threads counts only in
    the blas backend.
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
        "engine": json.dumps([*engine, PIECE_NUMBERS, PIECE_MULTIPLY_ADDS, PIECE_ROWS]),
    }


def difference(identity: Mapping[str, str], journal: Journal) -> str | None:
    """What a journal of another command is of. None if it belongs to this command."""
    for entry, what in MISMATCHES.items():
        if journal.identity.get(entry) != identity[entry]:
            return what
    return None
