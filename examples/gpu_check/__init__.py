"""``make gpu-check``: dgemma proved on a machine with an NVIDIA GPU, and timed there (docs/gpu-check.md)."""
