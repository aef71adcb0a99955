"""The file that holds a model: its specifications, tensors, self-test and an example from torch.

Specifications and arrays go in and come out. Models are unknown here: `program` saves them, `loading` makes
them again. The modules, in the order of reading:

    model_file    the format, and what a file holds as data
    golden        the self-test and examples: reference outputs, tolerances, comparison
    whole_files   writing a file so that it appears whole or not at all
"""
