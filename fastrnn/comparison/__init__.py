"""Two models beside each other: how far apart their results are, and what each costs.

Models are run here as users run them. Nothing is known of how they compute. Other engines are in `benchmark`.

The modules, in the order in which to read them:

    differences  errors as numbers, and the result with its text
    subjects     models, layers and programs, made ready to be compared
    drift        errors over many steps
    comparing    `compare`
"""

from fastrnn.comparison.comparing import compare
from fastrnn.comparison.differences import Differences

__all__ = ["Differences", "compare"]
