"""Models of files and of live torch modules: `load`, `verify`, `from_torch`, and layers written as text.

Formats are never parsed here (`importers`, `saving`): what they give is made into a model.
"""
