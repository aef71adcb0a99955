"""Tables that no terminal shows: lines are at most 60 characters long, and no text is lost."""

import re

import pytest

from fastrnn.terminal import print_table

COLUMNS = ("tensor", "shape", "dtype")


def lines_of(capsys, *table, **options):
    print_table(*table, **options)
    return capsys.readouterr().out.splitlines()


def test_a_table_that_fits_has_a_line_for_each_row(capsys):
    assert lines_of(capsys, COLUMNS, [("weight_ih_l0", "(16, 3)", "float32"), ("b", "(16,)", "float64")]) == [
        "tensor        shape    dtype",
        "weight_ih_l0  (16, 3)  float32",
        "b             (16,)    float64",
    ]


def test_long_texts_go_on_below(capsys):
    name = "encoder.recurrent_part.layers.0.weight_ih_l0_reverse_of_the_second_direction"
    lines = lines_of(capsys, COLUMNS, [(name, "(1024, 1024)", "float32"), ("short", "(3,)", "float32")])
    assert lines == [
        "tensor                                 shape         dtype",
        "encoder.recurrent_part.layers.0.       (1024, 1024)  float32",
        "weight_ih_l0_reverse_of_the_second_",
        "direction",
        "short                                  (3,)          float32",
    ]
    assert "".join(line[:37].rstrip() for line in lines[1:4]) == name


def test_a_text_without_a_place_to_break_is_broken_anywhere(capsys):
    lines = lines_of(capsys, COLUMNS, [("x" * 150, "(1, 2)", "float32")])
    assert max(map(len, lines)) <= 60 and sum(line.count("x") for line in lines) == 150
    assert lines_of(capsys, ("one",), [("y" * 130,)]) == ["one", "y" * 60, "y" * 60, "y" * 10]


def test_columns_that_are_too_many_stand_below_one_another(capsys):
    columns = [f"column {i}" for i in range(8)]
    rows = [[f"{row}{i} value" for i in range(8)] for row in "ab"]
    lines = lines_of(capsys, columns, rows)
    assert lines[:2] == ["a0 value", "  column 1: a1 value"]
    assert lines[8:10] == ["b0 value", "  column 1: b1 value"] and len(lines) == 16
    wide = lines_of(capsys, columns, rows, width=None)
    assert len(wide) == 3 and len(wide[0]) > 60


@pytest.mark.parametrize("widths", ([5, 200, 3], [70, 70], [30, 20, 10, 4], [9] * 6, [70] * 8, [61], [59, 8]))
def test_no_line_is_too_long_and_no_character_is_lost(capsys, widths):
    texts = ["abcdefghij"[i % 10] * width for i, width in enumerate(widths)]
    lines = lines_of(capsys, ["-"] * len(widths), [texts])
    assert max(map(len, lines)) <= 60
    for text in texts:
        assert sum(line.count(text[0]) for line in lines) == len(text)


def test_a_terminal_may_not_be_steered_by_a_table(capsys):
    (_, *lines) = lines_of(capsys, ("tensor",), [("a\x1b[2J" * 20,)])
    assert re.fullmatch(r"(a\?\[2J){20}", "".join(lines))
