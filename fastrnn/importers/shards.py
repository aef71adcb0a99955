"""Models in several files (shards), and folders with a model.

`read_whole` reads all files of a folder or an index as one state dict. `refuse_shard` refuses a file that is
only a part of a model. The content of the files is not parsed here, except for the index.

Source: Hugging Face's names, ``model-00001-of-00002.safetensors`` beside ``model.safetensors.index.json``, or
``pytorch_model-*.bin`` (https://huggingface.co/docs/transformers/big_models).
"""

import json
import os
import re
from collections.abc import Callable

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, brief, message, printable, quote, quote_first
from fastrnn.importers.source import Source
from fastrnn.importers.state_dict import LeftOut, StateDict
from fastrnn.importers.unsupported import DCP

MAX_INDEX = 64 * 2**20
MAX_SHARDS = 10_000
_SHARD = re.compile(
    r"(?P<stem>.*?)[-._]?(?P<number>[0-9]{4,6})-of-(?P<count>[0-9]{4,6})(?P<end>\..*)?", re.DOTALL
)
# What training scripts save beside the weights.
_OTHER_FILES = r"(?s)(training_args|optimizer|scheduler|scaler|rng_state|trainer_state).*"
# Endings of weight files. A folder may hold one model in several formats; the first of these is taken.
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
GIVE_THE_PATH = "Give the path of the one you want."


# ---------------------------------------------------------------- files that are a part of a model


def refuse_shard(source: Source) -> None:
    """Raise FormatError if the name of a file or an index beside it shows that it is a part of a model."""
    match = _SHARD.fullmatch(source.name)
    if match and int(match["count"]) > 1:
        got = f"part {int(match['number'])} of {int(match['count'])}"
        raise FormatError(message(source.where, "a whole model", got, _whole_hint(source)))
    for index, files in _indices_beside(source).items():
        if source.name in files and len(files) > 1:
            got = f"one of the {len(files)} files of {printable(index)}"
            raise FormatError(message(source.where, "a whole model", got, _whole_hint(source)))


def _whole_hint(source: Source) -> str:
    if source.origin is None:
        return "Put all parts in one folder, and give the folder."
    return f"Give the folder: {printable(os.path.dirname(source.origin) or '.')}"


def _indices_beside(source: Source) -> dict[str, set[str]]:
    """Return the files of each index in the folder of a file, by the name of the index."""
    if source.origin is None:
        return {}
    folder = os.path.dirname(source.origin) or "."
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".index.json"))
    except OSError:
        return {}
    found = {}
    for name in names:
        try:
            weight_map = _read_index(Source(os.path.join(folder, name)))
        except (OSError, FormatError):
            continue  # a damaged index says nothing about this file
        if weight_map is not None:
            found[name] = set(weight_map.values())
    return found


# ---------------------------------------------------------------- indices


def is_index(head: bytes) -> bool:
    """Whether a file that begins with `head` may be an index of shards."""
    return head.lstrip()[:1] == b"{"


def _read_index(source: Source) -> dict[str, str] | None:
    """Return the file of each tensor by its name; None if this is not an index of shards.

    Raises
    ------
    FormatError
        It is a damaged index.
    """
    with source.open() as file:
        if file.size > MAX_INDEX or not is_index(file.read(64)):
            return None
        file.seek(0)
        content = file.read()
    try:
        weight_map = json.loads(content)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) and _is_plain_file(file) for file in weight_map.values())
    ):
        raise FormatError(message(source.where, "an index of the files beside it", brief(weight_map)))
    return weight_map


def _is_plain_file(name: str) -> bool:
    """Whether a name can only be that of a file in the same folder."""
    is_plain = bool(name) and name not in (".", "..") and not set(name) & {"/", "\\", "\0", ":"}
    return is_plain and not name.endswith(".json")


# ---------------------------------------------------------------- whole models


def read_whole(source: Source, read: Callable[[Source], StateDict]) -> StateDict | None:
    """Read all files of a folder or an index as one state dict.

    Parameters
    ----------
    source : Source
    read : callable
        Reads one file.

    Returns
    -------
    StateDict or None
        None if `source` is neither a folder nor an index.

    Raises
    ------
    FormatError
        Files or tensors are missing, or there are several models.
    """
    files = files_of(source)
    if not files:
        return None
    shards: list[tuple[Source, set[str] | None]]
    if isinstance(files, list):
        shards = [(file, None) for file in files]
    else:
        shards = [(Source(path), set(names)) for path, names in files.items()]
    if len(shards) == 1 and shards[0][1] is None:
        return read(shards[0][0])
    return _joined(source, [(file, read(file), names) for file, names in shards])


def _joined(source: Source, shards: list[tuple[Source, StateDict, set[str] | None]]) -> StateDict:
    """Join the state dicts of all shards. Each has the names that the index gives it, or None for all."""
    arrays: dict[str, Array] = {}
    unread: dict[str, str] = {}
    left_out = LeftOut({})
    metadata: dict[str, str] = {}
    given = {name: file for file, _, names in shards for name in names or ()}
    for file, shard, names in shards:
        if names is not None:
            missing = sorted(names - shard.keys() - shard.unread.keys())
            if missing:
                got = f"{len(missing)} missing, for example {quote(missing[:3])}"
                raise FormatError(message(file.where, f"the tensors that {source.where} lists", got))
        twice = sorted(arrays.keys() & shard.keys())
        if twice and names is None:
            raise FormatError(message(file.where, "each tensor in one part", f"{quote(twice[:3])} in two"))
        for name, array in shard.items():
            # A tensor that the index does not list is still a part of the model.
            if given.get(name, file) is file:
                arrays[name] = array
        unread |= shard.unread
        left_out |= shard.left_out
        metadata |= shard.metadata
    kind = f"{shards[0][1].file_format}, {len(shards)} files"
    others = tuple(dict.fromkeys(other for _, shard, _ in shards for other in shard.others))
    return StateDict(arrays, kind, "", left_out, metadata, unread=unread, others=others)


def files_of(source: Source) -> list[Source] | dict[str, list[str]]:
    """Return the files that make up the model of a folder or an index.

    Returns
    -------
    list of Source, or dict of str to list of str
        Without an index, the one file of the folder or all files of a numbered set. With an index, the path
        of each file and the names of its tensors; empty if `source` is not an index.

    Raises
    ------
    FormatError
        Files are missing, there are several models, or the folder is that of another program.
    """
    if not source.is_folder:
        weight_map = _read_index(source)
        return {} if weight_map is None else _by_file(source, weight_map)
    assert source.path is not None
    names = sorted(os.listdir(source.path))
    _refuse_folder(source, names)
    for ending in (".safetensors.index.json", ".index.json"):
        indices = [name for name in names if name.endswith(ending)]
        if len(indices) == 1:
            index = Source(os.path.join(source.path, indices[0]))
            weight_map = _read_index(index)
            if weight_map is not None:
                return _by_file(index, weight_map)
    return [Source(os.path.join(source.path, name)) for name in _weights_in(source, names)]


def _by_file(index: Source, weight_map: dict[str, str]) -> dict[str, list[str]]:
    assert index.path is not None
    folder = os.path.dirname(index.path)
    files: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        files.setdefault(os.path.join(folder, file), []).append(name)
    if len(files) > MAX_SHARDS:
        raise FormatError(message(index.where, f"an index of at most {MAX_SHARDS} files", str(len(files))))
    _check_numbers(index, list(weight_map.values()))
    missing = [os.path.basename(path) for path in files if not os.path.isfile(path)]
    if missing:
        got = f"no {quote_first(missing, 5)}"
        raise FormatError(message(index.where, "all its files in the same folder", got))
    return files


def _check_numbers(index: Source, names: list[str]) -> None:
    """Raise FormatError if the files of an index are numbered, and it does not list all of them."""
    matches = [match for name in set(names) if (match := _SHARD.fullmatch(name))]
    if len(matches) < len(set(names)):
        return
    for count in {int(match["count"]) for match in matches}:
        numbers = {int(match["number"]) for match in matches if int(match["count"]) == count}
        if len(numbers) < count:
            raise FormatError(message(index.where, f"an index of {count} files", f"one of {len(numbers)}"))


def _refuse_folder(source: Source, names: list[str]) -> None:
    """Raise FormatError for the folders of other programs."""
    kinds = (
        (".distcp", "a folder of torch.distributed.checkpoint (DCP)", DCP),
        ("saved_model.pb", "a TensorFlow SavedModel", "fastrnn reads torch's weights."),
        (".data-00000-of-00001", "a TensorFlow checkpoint", "fastrnn reads torch's weights."),
        ("_optim_states.pt", "a DeepSpeed checkpoint, which is split among its files",
         "In that folder, run python zero_to_fp32.py . weights"),
    )  # fmt: skip
    for ending, kind, hint in kinds:
        if any(name.endswith(ending) for name in names):
            raise FormatError(message(source.where, "a folder with a model's weights", kind, hint))


def _weights_in(source: Source, names: list[str]) -> list[str]:
    """Return the one weight file of a folder, or all files of a numbered set; else raise FormatError."""
    expected = "a folder with one file of weights, or all parts of one"
    weights = [name for name in names if name.endswith(ENDINGS) and not re.fullmatch(_OTHER_FILES, name)]
    sets: dict[tuple[str, str, int], dict[int, str]] = {}
    for name in weights:
        match = _SHARD.fullmatch(name)
        if match and int(match["count"]) > 1:
            key = _stem(f"{match['stem']}.x"), match["end"] or "", int(match["count"])
            sets.setdefault(key, {})[int(match["number"])] = name
    parts = {name for numbered in sets.values() for name in numbered.values()}
    whole = [name for name in weights if name not in parts]
    stems = {_stem(name) for name in whole} | {stem for stem, _, _ in sets}
    if len(stems) > 1:
        got = f"{len(weights)}: {quote_first(weights, 10)}"
        hint = "Put each model into its own folder." if sets else GIVE_THE_PATH
        raise FormatError(message(source.where, expected, got, hint))
    for ending in ENDINGS:
        found = [name for name in whole if name.endswith(ending)]
        of_set = [(key, numbered) for key, numbered in sets.items() if key[1] == ending]
        if len(found) == 1 and not of_set:
            return found
        if len(of_set) == 1 and not found:
            (_, _, count), numbered = of_set[0]
            first = min(numbered)
            missing = [n for n in range(first, first + count) if n not in numbered]
            if first > 1 or missing:
                got = f"{len(numbered)} of {count}, without part {missing[0] if missing else 1}"
                raise FormatError(message(source.where, expected, got))
            return [numbered[n] for n in sorted(numbered)]
        if found or of_set:
            shown = [*found, *(name for _, numbered in of_set for name in numbered.values())]
            got = f"{len(shown)}: {quote_first(shown, 10)}"
            hint = "Put each set into its own folder." if of_set else GIVE_THE_PATH
            raise FormatError(message(source.where, expected, got, hint))
    got = quote_first(names, 10) if names else "an empty one"
    raise FormatError(message(source.where, expected, got))


def _stem(name: str) -> str:
    """Return a file's name without its ending. Hugging Face's older name becomes the newer one."""
    stem = os.path.splitext(name)[0]
    return "model" if stem == "pytorch_model" else stem
