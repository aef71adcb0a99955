"""The team of threads that calls share, and how many of them a call may use.

What a thread computes is never known here: work is a grid of phases and slices (`threads.h`).
"""
