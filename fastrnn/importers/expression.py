"""Layers written as text: a short expression or a pasted Sequential, read without running it.

The text is parsed as Python, and its syntax tree is read. Nothing in it is evaluated, except for literals. It
may have these forms:

    embedding, lstm, Last, fc, Sigmoid
    LSTM("encoder.lstm", batch_first=True), "fc.0", Softmax(dim=-1)
    fastrnn.Sequential(fastrnn.LSTM.from_state_dict(sd, "lstm"), fastrnn.Last(), ...)

The path of a module in the state dict stands for the layer that its tensors make. The name of a layer without
weights stands for that layer. A path with numbers is put in quotes. Of a whole program the last Sequential is
read.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from fastrnn.errors import message, printable, quote
from fastrnn.importers.architecture import kind_of_module, module_paths
from fastrnn.importers.parameters import take_prefix
from fastrnn.importers.state_dict import StateDict
from fastrnn.spec import LayerSpec

WHERE = "layers"
MAX_TEXT = 100_000
EXAMPLE = 'For example "embedding, lstm, Last, fc, Sigmoid".'


def read_layers(
    text: str,
    state_dict: StateDict,
    option_names: Mapping[str, Sequence[str]],
    weighted: Sequence[str],
    defaults: Mapping[str, Any],
) -> tuple[list[LayerSpec], set[str]]:
    """Read the layers of a text.

    Parameters
    ----------
    text : str
    state_dict : StateDict
        Holds the weights.
    option_names : mapping of str to sequence of str
        The kinds of layers that exist, and the options of each in the order of its arguments.
    weighted : sequence of str
        The kinds that always have weights.
    defaults : mapping of str to object
        Options of layers over time, for those that the text does not give: batch_first, nonlinearity.

    Returns
    -------
    specs : list of LayerSpec
        In order.
    paths : set of str
        The modules of the state dict that the text names.

    Raises
    ------
    ValueError
        The text has none of these forms, or names a module or layer that does not exist.
    WeightError
        A tensor could not be read.
    """
    tree = _parse(text)
    reader = _Reader(state_dict, option_names, weighted, defaults)
    try:
        specs = list(reader.read(_expression_of(tree)))
    except RecursionError:
        raise ValueError(
            message(WHERE, "a list of layers", "one that is nested too deeply", EXAMPLE)
        ) from None
    if not specs:
        raise ValueError(message(WHERE, "at least one layer", "none", EXAMPLE))
    for name in defaults:
        if not any(name in option_names[spec.kind] for spec in specs):
            raise ValueError(message(WHERE, f"a layer that takes {name}", "none"))
    return specs, reader.paths


def key_in(text: str) -> str | None:
    """Return the key that a pasted program passes to load_state_dict, or None.

    Raises
    ------
    ValueError
        The text is not Python.
    """
    for node in ast.walk(_parse(text)):
        if isinstance(node, ast.Call) and _last_name(node.func) == "load_state_dict":
            values = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "key")]
            for value in values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return value.value
    return None


def _parse(text: str) -> ast.Module:
    if len(text) > MAX_TEXT:
        raise ValueError(message(WHERE, f"a text of at most {MAX_TEXT} characters", str(len(text))))
    try:
        return ast.parse(text.strip().strip(","), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        got = f"one that is not Python ({printable(place[:100])})"
        raise ValueError(message(WHERE, "a list of layers", got, EXAMPLE)) from None


def _expression_of(tree: ast.Module) -> ast.expr:
    """Return the one expression of a text, or the last Sequential of a program."""
    statements = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    values = [node.value for node in statements if isinstance(node, (ast.Expr, ast.Assign)) and node.value]
    if len(values) < len(statements):
        raise ValueError(message(WHERE, "a list of layers", "a program of other statements", EXAMPLE))
    calls = [value for value in values if isinstance(value, ast.Call)]
    models = [call for call in calls if _last_name(call.func) == "Sequential"]
    if models:
        return models[-1]
    if not values:
        raise ValueError(message(WHERE, "at least one layer", "none", EXAMPLE))
    if len(values) != 1:
        raise ValueError(message(WHERE, "a list of layers", f"{len(values)} statements", EXAMPLE))
    return values[0]


def _last_name(node: ast.expr) -> str:
    """Return the name of a class or function, as in Tanh, nn.Tanh or fastrnn.Tanh; else ""."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="fastrnn" | "nn" | "torch"), attr=name):
            return name
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="torch"), attr="nn"), attr=name):
            return name
    return ""


class _Reader:
    """Makes LayerSpecs of the nodes of a syntax tree."""

    def __init__(
        self,
        state_dict: StateDict,
        option_names: Mapping[str, Sequence[str]],
        weighted: Sequence[str],
        defaults: Mapping[str, Any],
    ) -> None:
        self.state_dict = state_dict
        self.option_names = option_names
        self.weighted = weighted
        self.defaults = defaults
        self.paths: set[str] = set()

    def read(self, node: ast.expr) -> Iterator[LayerSpec]:
        """Yield the layers of a node in order."""
        match node:
            case ast.Tuple(elts=items) | ast.List(elts=items):
                for item in items:
                    yield from self.read(item)
            case ast.Call(func=function, args=arguments, keywords=[]) if _last_name(function) == "Sequential":
                for item in arguments:
                    yield from self.read(item)
            case ast.Call(func=ast.Attribute(value=owner, attr="from_state_dict"), args=[_, *arguments]):
                yield self._layer(node, _last_name(owner), arguments, node.keywords)
            case ast.Call(func=function, args=arguments):
                yield self._layer(node, _last_name(function), arguments, node.keywords)
            case ast.Name() | ast.Attribute() | ast.Constant(value=str() | int()):
                yield self._named(node)
            case _:
                self._refuse(node)

    def _named(self, node: ast.expr) -> LayerSpec:
        """Return the layer of a name: that of a kind of layer, or the path of a module."""
        path = str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)
        kind = _last_name(node)
        if path not in module_paths(self.state_dict) and kind in self.option_names:
            return self._layer(node, kind, [], [])
        found = kind_of_module(self.state_dict, path)
        if found is None:
            paths = quote(sorted(module_paths(self.state_dict))[:20])
            raise ValueError(message(WHERE, f"a layer, or one of the modules {paths}", quote([path])))
        return self._layer(node, found, [ast.Constant(path)], [])

    def _layer(
        self, node: ast.expr, kind: str, arguments: list[ast.expr], keywords: list[ast.keyword]
    ) -> LayerSpec:
        if kind not in self.option_names:
            got = quote([kind]) if kind else _text(node)
            raise ValueError(message(WHERE, f"one of {quote(self.option_names)}", got))
        values = [self._value(argument) for argument in arguments]
        prefix = ""
        takes_weights = kind in self.weighted or bool(values and isinstance(values[0], str))
        if takes_weights and values:
            prefix, *values = values
        names = [name for name in self.option_names[kind] if name not in ("precision",)]
        if len(values) > len(names) or (takes_weights and values):
            raise ValueError(message(WHERE, f"{kind} with options by their names", _text(node)))
        options = dict(zip(names, values, strict=False))
        for keyword in keywords:
            if [other.arg for other in keywords].count(keyword.arg) > 1:
                raise ValueError(message(WHERE, "each option once", quote([keyword.arg or "**"])))
            if keyword.arg == "prefix" and takes_weights:
                prefix = self._value(keyword.value)
            elif keyword.arg is not None and keyword.arg in self.option_names[kind]:
                options[keyword.arg] = self._value(keyword.value)
            else:
                known = quote(self.option_names[kind]) if self.option_names[kind] else "none"
                raise ValueError(message(WHERE, f"options of {kind} ({known})", quote([keyword.arg or "**"])))
        tensors = take_prefix(WHERE, self.state_dict, prefix) if takes_weights else {}
        self.paths |= {prefix.removesuffix(".")} if takes_weights else set()
        if "batch_first" in self.option_names[kind]:
            options = self._with_defaults(kind, options)
        return LayerSpec(kind, options, tensors)

    def _with_defaults(self, kind: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a layer over time: the text's and the defaults, which must not contradict."""
        for name in self.option_names[kind]:
            if name in self.defaults and options.setdefault(name, self.defaults[name]) != self.defaults[name]:
                got = f"{kind} with {name}={options[name]!r}"
                raise ValueError(message(WHERE, f"{name}={self.defaults[name]!r}, as requested", got))
        if "nonlinearity" in self.option_names[kind] and "nonlinearity" not in options:
            expected = f'nonlinearity="tanh" or "relu" for {kind}, which no file says'
            raise ValueError(message(WHERE, expected, "none"))
        return options

    def _value(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            self._refuse(node)

    def _refuse(self, node: ast.expr) -> NoReturn:
        raise ValueError(
            message(WHERE, "names of layers and modules, numbers and strings", _text(node), EXAMPLE)
        )


def _text(node: ast.expr) -> str:
    return printable(ast.unparse(node)[:80])
