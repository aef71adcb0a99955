"""The file that keeps a model: specifications, tensors, its self-test, an example from torch.

Specifications and arrays go in and come out. What makes a model of them stands above, in `loading`.
"""
