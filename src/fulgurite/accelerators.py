"""The public names of accelerators."""

from fulgurite.machine.accelerators import Accelerator, CPUAccelerator, CUDAAccelerator, MPSAccelerator

__all__ = ["Accelerator", "CPUAccelerator", "CUDAAccelerator", "MPSAccelerator"]
