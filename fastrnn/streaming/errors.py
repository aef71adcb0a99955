"""The errors that streams and pools raise."""

import numpy as np

from fastrnn.errors import message

# ---------------------------------------------------------------- streams


def taken_stream(where: str, is_torn: bool) -> RuntimeError:
    """A stream is in use by another thread, or was in use by one when the process was forked."""
    if not is_torn:
        return RuntimeError(message(where, "one thread at a time", "a second one"))
    hint = "reset() or an assigned state makes it whole."
    return _torn(where, "a stream", hint)


# ---------------------------------------------------------------- streams and pools


def bound_twice(where: str) -> RuntimeError:
    """``__init__`` is called again on a stream or pool that has its layers already."""
    return RuntimeError(message(where, "one call of __init__", "a second one"))


def wrong_states(where: str, owner: str) -> ValueError:
    """The states in a pickle are not those of a stream or pool of these layers."""
    return ValueError(message(where, f"the states of {owner}", "others"))


def _torn(where: str, what: str, hint: str) -> RuntimeError:
    got = "one in the middle of a step"
    return RuntimeError(message(where, f"{what} that no thread was using at the fork", got, hint))


# ---------------------------------------------------------------- pools


def changed_ids(where: str) -> ValueError:
    """The array of ids has another size than when the arguments were checked."""
    return ValueError(message(where, "ids that stay as they are during the call", "an array of another size"))


def unmade_pool(where: str) -> RuntimeError:
    """A pool whose ``__init__`` was never called, or failed."""
    return RuntimeError(message(where, "a pool that is made", "one without layers"))


def torn_pool(where: str) -> RuntimeError:
    """Another thread was changing states when the process was forked."""
    return _torn(where, "a pool", "Make a new one.")


def nested_turn(where: str) -> RuntimeError:
    """A thread calls a pool from inside a call of the same pool."""
    return RuntimeError(message(where, "one call at a time in a thread", "one inside another"))


def no_memory(where: str, what: str) -> MemoryError:
    """There is not enough memory for what a pool needs."""
    return MemoryError(message(where, what, "no memory"))


def wrong_ids(where: str, ids: object, index: int | None = None) -> TypeError:
    """Ids are not a sequence of integers, or the one at ``index`` is not an integer."""
    got = f"{ids.dtype} of shape {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
    if index is not None:
        return TypeError(message(where, "ids to be whole numbers", f"{got} at index {index}"))
    return TypeError(message(where, "ids to be whole numbers in a sequence", got))


def wrong_id(where: str, id: int, index: int, is_repeated: bool, is_closed: bool) -> ValueError:
    """The id at ``index`` is given twice, or no open stream has it."""
    shown = f"{id}" if -(2**64) < id < 2**64 else "a number beyond 64 bits"
    if is_repeated:
        return ValueError(message(where, "each id once", f"{shown} again at index {index}"))
    hint = "It is closed." if is_closed else "open() gives one."
    return ValueError(message(where, "ids of open streams", f"{shown} at index {index}", hint))
