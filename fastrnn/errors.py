"""The exceptions that fastrnn raises, and the pieces that their messages are made of.

    ValueError
    ├── FormatError    a file is damaged, hostile, or of no known kind
    └── WeightError    the tensors do not make that layer

A wrong shape or value is a ValueError, an argument of the wrong type a TypeError. All messages have
one grammar: *where: expected X, got Y. Hint.*

Nothing is checked here, and nothing else of the package is imported. The checks are in `checks`.
"""

from collections.abc import Collection, Iterable

# ---------------------------------------------------------------- exceptions


class FormatError(ValueError):
    """The file is damaged, hostile, or of no kind that fastrnn reads.

    Example: a file that holds a whole pickled module, where a ``state_dict`` is expected.
    """


class WeightError(ValueError):
    """The tensors do not make the requested layer.

    Example: ``GRU.from_state_dict`` on the weights of an LSTM, or a missing bias.
    """


# ---------------------------------------------------------------- messages


def message(where: str, expected: str, got: str, hint: str = "") -> str:
    """Return one sentence in the grammar of all messages, followed by the hint."""
    text = f"{where}: expected {expected}, got {got}."
    return f"{text} {hint}" if hint else text


def brief(value: object, limit: int = 60) -> str:
    """Describe a value of any type and size in a few words."""
    if isinstance(value, (bool, float, str, type(None))) or (
        isinstance(value, int) and -(10**18) < value < 10**18
    ):
        text = repr(value[:limit] if isinstance(value, str) else value)
        return text if len(text) <= limit else f"{text[:limit]}..."
    if isinstance(value, type):
        return f"the class {value.__name__[:limit]}"
    name = type(value).__name__
    if name.lower().endswith("dtype"):
        return f"the dtype {value!s:.{limit}}"
    shape = getattr(value, "shape", None)
    return f"{name} of shape {shape}" if isinstance(shape, tuple) else name


def brief_error(error: BaseException) -> str:
    """Return the type and the beginning of the text of an error that damaged content caused."""
    return f"{type(error).__name__}: {str(error)[:200]}"


def printable(text: str) -> str:
    """Return a text from an untrusted source as one line: "?" replaces control characters and line breaks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def literal(text: str) -> str:
    """Return a text as a Python literal, in double quotes if nothing in it needs an escape."""
    is_plain = text.isprintable() and not set(text) & {'"', "\\"}
    return f'"{text}"' if is_plain else repr(text)


def join(words: Iterable[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def quote(names: Iterable[str]) -> str:
    """Return names as a quoted list: '"a", "b" and "c"'."""
    return join(map(literal, names))


def quote_first(names: Collection[str], most: int) -> str:
    """Return the first names as a quoted list, with " ..." if there are more than `most`."""
    return f"{quote(list(names)[:most])}{' ...' if len(names) > most else ''}"
