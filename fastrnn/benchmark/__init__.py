"""Models timed next to the engines that a user would otherwise pick.

This is what ``fastrnn bench MODEL`` does. The project's own benchmark, ``python -m bench``, measures its
grid with the same parts; the grid, its targets and its reports are there, never here. In the library only
`comparison` and the command line import this package, and no engine is imported until a work is built for it.

The modules, in the order in which to read them:

    work         what the engines are given to do
    engines      fastrnn and its peers, each made ready for a work
    narrow_engines  the peers in bfloat16 and int8
    torch_model  the layers of a work in torch
    onnx_model   the layers of a work as an ONNX model
    measure      compare the outputs of engines, then time them in turns
    tail         quantiles and a histogram of single calls
    table        results as text
    model        ``fastrnn bench MODEL``
    picture      time against error, as characters and as SVG
    precisions   ``fastrnn bench MODEL --precision all``
    block        ``fastrnn bench MODEL --block N --rate R``
"""
