"""The team of threads that calls share, and how many of them a call may use.

Work comes as a grid of phases and slices (`threads.h`). Nothing here knows what a slice computes.
"""
