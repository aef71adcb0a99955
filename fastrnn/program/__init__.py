"""Whole models: `Sequential`, layers one after the other, and what makes one of specifications.

Files are never read or written here (`saving`, `importers`), and no layer is defined here (`layers`).
"""
