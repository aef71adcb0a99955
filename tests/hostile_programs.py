"""Files of programs as nobody would write them: mutated JSON and mutated bytes."""

import copy
import json
import struct

import numpy as np

WORDS = (
    "",
    "x",
    "tokens",
    "lengths",
    "add",
    "loop",
    "conv2d",
    "dim",
    "float32",
    "complex64",
    "__class__",
    "\n",
    "e",
)


def parts_of(content):
    """The header of a safetensors file, its description, and the bytes of its tensors."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["fastrnn"]), content[8 + size :]


def file_of(header, description, data):
    """The file of these parts. The description may be a text."""
    text = description if isinstance(description, str) else json.dumps(description)
    head = json.dumps({**header, "__metadata__": {"fastrnn": text}}).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def places_of(value, path=()):
    """The paths of all parts of a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places_of(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from places_of(part, (*path, index))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def some_value(random, whole):
    """A value of any kind, or a part of another place."""
    kind = random.integers(12)
    if kind < 4:
        places = list(places_of(whole))
        return copy.deepcopy(at(whole, places[random.integers(len(places))]))
    if kind == 4:
        return int(random.choice([0, -1, 1, 2, 3, 7, 100, 2**31, 2**62, -(2**63), 10**30]))
    if kind == 5:
        return float(random.choice([0.0, -1.5, 1e308, 1e-300]))
    if kind == 6:
        return bool(random.integers(2))
    if kind == 7:
        return None
    if kind == 8:
        return WORDS[random.integers(len(WORDS))]
    if kind == 9:
        return [some_value(random, [0]) for _ in range(random.integers(4))]
    if kind == 10:
        word = ("value", "size", "float", "complex", "array", "constant", "tuple", "dict", "named")
        return {word[random.integers(len(word))]: some_value(random, [0, "x", ["dim", "tokens", 0]])}
    return {"size": ["*", {"size": ["dim", "tokens", 0]}, 3]}


def mutate(random, value):
    """Change one part of a JSON value in place: replace, remove, repeat or swap."""
    places = [path for path in places_of(value) if path]
    path = places[random.integers(len(places))]
    holder, key = at(value, path[:-1]), path[-1]
    kind = random.integers(8)
    if kind == 0 and isinstance(holder, list):
        holder.pop(key)
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 2 and isinstance(holder, dict):
        del holder[key]
    elif kind == 3 and isinstance(holder, dict):
        holder[WORDS[random.integers(len(WORDS))]] = holder.pop(key)
    elif kind == 4 and type(holder[key]) is int:
        holder[key] += int(random.choice([-1, 1, 2, -5]))
    else:
        holder[key] = some_value(random, value)


def mutated_json(random, content):
    """A file whose description, and sometimes whose header, has been changed in one or several places."""
    header, description, data = parts_of(content)
    header.pop("__metadata__")
    for _ in range(1 + random.integers(3)):
        mutate(random, description)
    if random.integers(6) == 0:
        names = list(header)
        name = names[random.integers(len(names))]
        header[str(random.choice([name + "x", "constants.x", "golden.0.input.0"]))] = header.pop(name)
    return file_of(header, description, data)


def mutated_bytes(random, content):
    """A file with some other bytes, or cut, or with bytes more."""
    changed = bytearray(content)
    for _ in range(1 + random.integers(4)):
        kind = random.integers(4)
        place = int(random.integers(len(changed)))
        if kind < 2:
            changed[place] = random.integers(256)
        elif kind == 2:
            del changed[place : place + int(random.integers(9))]
        else:
            changed[place:place] = bytes(
                random.integers(0, 256, size=int(random.integers(9)), dtype=np.uint8)
            )
    return bytes(changed)


def mutated_graph(random, content):
    """A file that can be read, as most of these can, of a graph whose arguments do not fit together."""
    header, description, data = parts_of(content)
    header.pop("__metadata__")
    for _ in range(1 + random.integers(3)):
        kind = random.integers(6)
        nodes = [node for node in _all_nodes(description["nodes"]) if node[1]]
        node = nodes[random.integers(len(nodes))]
        if kind == 0:  # another shape of a constant
            names = [name for name in header if name.startswith("constants.")]
            shape = header[names[random.integers(len(names))]]["shape"]
            random.shuffle(shape)
            if len(shape) > 1 and random.integers(2):
                shape[:2] = [shape[0] * shape[1], 1]
        elif kind == 1:  # another size of an input
            form = description["inputs"][random.integers(len(description["inputs"]))]
            form[2] = [size if random.integers(3) else f"S{i}" for i, size in enumerate(form[2])]
        elif kind == 2:  # a value that is there in the place of another one
            values = [place for place in places_of(node[1]) if place and place[-1] == "value"]
            if values:
                place = values[random.integers(len(values))]
                names = [form[0] for form in description["inputs"]]
                names += [name for other in description["nodes"] for name in other[2] if name]
                names += [name.removeprefix("constants.") for name in header if name.startswith("constants.")]
                at(node[1], place[:-1])["value"] = names[random.integers(len(names))]
        else:  # another number
            numbers = [
                place
                for place in places_of(node[1])
                if place and type(at(node[1], place)) in (int, bool, float)
            ]
            if numbers:
                place = numbers[random.integers(len(numbers))]
                number = at(node[1], place)
                change = [
                    -number,
                    number + 1,
                    number - 1,
                    number * 2,
                    0,
                    3,
                    100,
                    -2,
                    2**31,
                    2**62,
                    None,
                    True,
                ]
                at(node[1], place[:-1])[place[-1]] = change[random.integers(len(change))]
    return file_of(header, description, data)


def mutated_nodes(random, content, operators):
    """A file that can be read, of a graph with other operators, and arguments of any kind."""
    header, description, data = parts_of(content)
    header.pop("__metadata__")
    nodes = list(_all_nodes(description["nodes"]))
    names = [form[0] for form in description["inputs"]]
    names += [name.removeprefix("constants.") for name in header if name.startswith("constants.")]
    values = [{"value": name} for name in names]
    values += [{"size": ["//", ["dim", name, int(random.integers(-3, 4))], 1]} for name in names]
    values += [-1, 0, 7, 2**40, 0.5, True, None, "float32", "x", [], [1, -1], [{"value": names[0]}]]
    for _ in range(1 + random.integers(3)):
        node = nodes[random.integers(len(nodes))]
        kind, keys = random.integers(4), list(node[1])
        if kind == 0 and len(node) == 4:
            node[0] = operators[random.integers(len(operators))]
        elif kind == 1 and keys:
            del node[1][keys[random.integers(len(keys))]]
        elif kind == 2:
            node[2].append(f"more{len(node[2])}")
            description["outputs"][0] = str(random.choice([node[2][-1], description["outputs"][0]]))
        elif keys:
            node[1][keys[random.integers(len(keys))]] = copy.deepcopy(values[random.integers(len(values))])
    return file_of(header, description, data)


def _all_nodes(nodes):
    for node in nodes:
        yield node
        if len(node) > 4:
            yield from _all_nodes(node[4]["nodes"])
