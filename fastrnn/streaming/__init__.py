"""Live sequences: `Stream`, one of them or rows in step, and `StreamPool`, many of them stepped as one batch.

Who may step, which ids are open and where states lie is decided here. What a step computes is decided by the
operators.
"""
