"""How fast fastrnn is, beside the engines that a user would otherwise pick: ``python -m bench``."""
