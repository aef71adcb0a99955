"""The file that holds a model or a program: specifications, tensors, self-test and an example from torch.

Specifications and arrays go in and come out. Models are unknown here: `program` saves them, `loading` makes
them again. The modules, in the order of reading:

    model_file    the format of a model of layers, and what such a file holds as data
    program_file  the same for a program
    graph_file    the graph of a program as JSON
    golden        the self-test and examples: reference outputs, tolerances, comparison
    whole_files   writing a file so that it appears whole or not at all
"""
