"""Numba kernels: arrays and scalars in, output array last. Each file stands alone."""
