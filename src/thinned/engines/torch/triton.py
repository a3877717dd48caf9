"""The GPU kernels (to come in this room)."""

missing = "the Triton kernels are not here yet"
