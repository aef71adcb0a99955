"""The guides of docs/importing.md run, one for each way in, and their errors are as the page says."""

import re
import sys
import types

import pytest
from test_docs import LINK, ROOT, anchors

GUIDES = ROOT / "docs" / "importing.md"
# A program, and what it raises if a block of text comes right after it.
STEP = re.compile(r"^```python\n(.*?)^```\n(?:\n^```\n(.*?)\n^```$)?", re.M | re.S)


def guides():
    """The guides, by their headings; the beginning of the page, which they share, is ""."""
    if not GUIDES.is_file():
        return {}
    first, *others = re.split(r"^## ", GUIDES.read_text(encoding="utf-8"), flags=re.M)
    return {"": first, **{text.partition("\n")[0]: text for text in others}}


@pytest.mark.filterwarnings("ignore")  # torch's own, of tracing and of pickles
@pytest.mark.parametrize("heading", [heading for heading in guides() if heading])
def test_guide_runs(heading, tmp_path, monkeypatch):
    """Each guide in a folder of its own, after the beginning of the page. Errors are as it says."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("guide")  # pickles find their classes there
    monkeypatch.setitem(sys.modules, "guide", module)
    page, whole = guides(), GUIDES.read_text(encoding="utf-8")
    for program, raised in (*STEP.findall(page[""]), *STEP.findall(page[heading])):
        # At its own lines, which errors of `export` show.
        lines = whole[: whole.index(program)].count("\n")
        code = compile("\n" * lines + program, str(GUIDES), "exec")
        if not raised:
            exec(code, vars(module))
            continue
        with pytest.raises((ValueError, TypeError)) as caught:
            exec(code, vars(module))
        got = f"{caught.type.__name__}: {caught.value}"
        wanted = ".*".join(map(re.escape, raised.replace("\n", " ").split("...")))  # "...": any text
        assert re.fullmatch(wanted, got), got


def test_each_route_has_a_guide():
    rows = re.findall(r"^\| (?!you have|---)(.*?) \|", guides().get("", ""), re.M)
    linked = {link.partition("#")[2] for row in rows for link in LINK.findall(row)}
    assert (linked <= anchors(GUIDES) and len(linked) == len(guides()) - 1) or not GUIDES.is_file()
