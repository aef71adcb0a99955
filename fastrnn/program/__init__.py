"""Whole models: `Sequential`, how one is made from specifications, and the tests of a model.

Files are read and written elsewhere (`saving`, `importers`), and layers are defined in `layers`.
"""
