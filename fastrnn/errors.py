"""The errors, and every check that raises one.

    ValueError
    ├── FormatError    a file is damaged, hostile, or of no known kind
    └── WeightError    the tensors do not make that layer

A wrong shape or value is a ValueError, a thing of a wrong kind a TypeError. All messages have
one grammar: *where: expected X, got Y. Hint.* A ``check_*`` function raises or returns what
it checked, ready for use.
"""

from collections.abc import Iterable


class FormatError(ValueError):
    """The file is damaged, hostile, or of no kind that fastrnn reads.

    Example: a file that holds a whole pickled module, where a ``state_dict`` is wanted.
    """


class WeightError(ValueError):
    """The tensors do not make the layer that was asked for.

    Example: ``GRU.from_state_dict`` on the weights of an LSTM, or a missing bias.
    """


def message(where: str, expected: str, got: str, hint: str = "") -> str:
    """One sentence in the grammar of all messages, and a hint behind it."""
    text = f"{where}: expected {expected}, got {got}."
    return f"{text} {hint}" if hint else text


def brief(value: object, limit: int = 60) -> str:
    """A short text for a value of any kind and size."""
    if isinstance(value, (bool, float, str, type(None))) or (
        isinstance(value, int) and -(10**18) < value < 10**18
    ):
        text = repr(value[:limit] if isinstance(value, str) else value)
        return text if len(text) <= limit else f"{text[:limit]}..."
    name = type(value).__name__
    shape = getattr(value, "shape", None)
    return f"{name} of shape {shape}" if isinstance(shape, tuple) else name


def printable(text: str) -> str:
    """A text of anyone as one line: "?" for what would begin another one or steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def literal(text: str) -> str:
    """A text as a program has it, in double quotes where that is plain."""
    is_plain = text.isprintable() and not set(text) & {'"', "\\"}
    return f'"{text}"' if is_plain else repr(text)


def join(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def quote(names: Iterable[str]) -> str:
    """Names as a list in quotes, for a message."""
    return join(map(literal, names))
