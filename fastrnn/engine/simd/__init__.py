"""The simd backend: packed weights and fused kernels, one build of one C source for each instruction set.

Products, gates and functions of rows are here; how a call is divided, and what time and lengths are, never.
"""
