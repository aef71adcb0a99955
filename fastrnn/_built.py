"""Check that the compiled modules are there.

`fastrnn` imports this module first. In a source tree that is not built, the error says what to type.
"""

try:
    import fastrnn.engine.threads.team  # noqa: F401  it needs no other compiled module
except ImportError as error:
    from pathlib import Path

    root = Path(__file__).parent.parent
    if error.name != "fastrnn.engine.threads.team" or not (root / "setup.py").is_file():
        raise
    raise ImportError(
        f"fastrnn: expected compiled modules, got a source tree without them ({root}). "
        "Type `pip install -e .` there; or, if fastrnn is installed already, start Python in another folder.",
        name=error.name,
    ) from None
