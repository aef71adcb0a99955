"""torch's files and their pickles, written opcode by opcode, as no program would write them."""

import io
import pickle
import struct
import zipfile

from fastrnn.importers.torch_file import LEGACY_MAGIC

# ---------------------------------------------------------------- parts of pickles


def number(value):
    """The opcodes that push a plain value: text, number, None, bool."""
    return pickle.dumps(value, protocol=2)[2:-1]


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def list_of(*parts):
    return b"](" + b"".join(parts) + b"e"


def dict_of(pairs):
    return b"}(" + b"".join(number(key) + value for key, value in pairs.items()) + b"u"


def call(function, *parts):
    return function + tuple_of(*parts) + b"R"


def keep(place):
    """Put the top of the stack into the memo, and take it off the stack."""
    return b"r" + struct.pack("<I", place) + b"0"


def kept(place):
    return b"j" + struct.pack("<I", place)


def storage(count=4, kind="FloatStorage", key="0"):
    parts = (number("storage"), name("torch", kind), number(key), number("cpu"), number(count))
    return tuple_of(*parts) + b"Q"


def tensor(size=(4,), stride=(1,), count=4, kind="FloatStorage", key="0"):
    sizes = [tuple_of(*map(number, numbers)) for numbers in (size, stride)]
    function = name("torch._utils", "_rebuild_tensor")
    return call(function, storage(count, kind, key), number(0), *sizes)


def quantised(scheme, size=(1,), count=16):
    sizes = [tuple_of(*map(number, numbers)) for numbers in (size, (1,) * len(size))]
    function = name("torch._utils", "_rebuild_qtensor")
    parts = (storage(count, "QUInt8Storage"), number(0), *sizes, scheme, b"\x89", b"N")
    return call(function, *parts)


def array(dtype, shape, data, unit=b""):
    """A NumPy array. `unit` is the unit of dates."""
    state = [number(4), number("<"), b"N", b"N", b"N", number(0), number(0), number(0)]
    if unit:
        content = b"C" + bytes([len(unit)]) + unit
        state.append(tuple_of(b"N", tuple_of(content, number(1), number(1), number(1))))
    kind = call(name("numpy", "dtype"), number(dtype), b"\x89", b"\x88") + tuple_of(*state) + b"b"
    made = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"))
    content = b"B" + struct.pack("<I", len(data)) + data
    return made + tuple_of(number(1), tuple_of(*map(number, shape)), kind, b"\x89", content) + b"b"


# ---------------------------------------------------------------- pickles and files


def whole(*parts):
    """The pickle that consists of these parts."""
    return b"\x80\x02" + b"".join(parts) + b"."


def zip_of(pickled, storages=None, compression=zipfile.ZIP_STORED):
    """The content of a file in torch's zip format with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def legacy_of(pickled, keys=(), storages=b""):
    """The content of a file in torch's legacy format with this pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, protocol=2) for part in (LEGACY_MAGIC, 1001, system)]
    return b"".join(head) + pickled + pickle.dumps(list(keys), protocol=2) + storages


def tensor_pickle(offset=0, size=(2, 2), stride=(2, 1), count=4, kind="FloatStorage", key="0"):
    """A pickle of {"weight": tensor} with these numbers."""
    numbers = number(offset) + number(size) + number(stride)
    arguments = storage(count, kind, key) + numbers + b"\x89ccollections\nOrderedDict\n)R"
    function = name("torch._utils", "_rebuild_tensor_v2")
    return b"\x80\x02}" + number("weight") + function + b"(" + arguments + b"tRs."
