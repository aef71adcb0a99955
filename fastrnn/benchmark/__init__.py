"""Models timed beside the engines that a user would otherwise pick.

What ``fastrnn bench MODEL`` does; the project's own benchmark, ``python -m bench``, measures its
grid with the same parts. Nothing here is imported before one of the two asks for it.
"""
