"""Models from files, from live torch modules and from layers written as text.

What `importers` and `saving` read is made into a model here. No format is ever parsed here. The modules, in
the order of reading:

    load         `fastrnn.load`: a model from a file
    torch_module `fastrnn.from_torch`: a model from a live torch module
    export       `fastrnn.export`: a live torch module as a program
    calibration  a model's input features brought to one size before its weights become int8
    expression   a model from a state dict and layers written as text
    verify       the tests that a saved model carries
"""
