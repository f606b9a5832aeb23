"""Memory: what an exception says about it, and giving it back."""

from __future__ import annotations

import gc

import torch

from fulgurite.utilities.tree import recursive_detach

__all__ = [
    "garbage_collection_cuda",
    "is_cuda_out_of_memory",
    "is_cudnn_snafu",
    "is_oom_error",
    "is_out_of_cpu_memory",
    "recursive_detach",
]


def is_oom_error(exception: BaseException) -> bool:
    """Whether something failed for lack of memory, on whichever device."""
    return is_cuda_out_of_memory(exception) or is_cudnn_snafu(exception) or is_out_of_cpu_memory(exception)


def is_cuda_out_of_memory(exception: BaseException) -> bool:
    """Whether a CUDA device had no memory left."""
    if isinstance(exception, torch.cuda.OutOfMemoryError):
        return True
    return _says(exception, "CUDA") and _says(exception, "out of memory")


def is_cudnn_snafu(exception: BaseException) -> bool:
    """Whether cuDNN failed in the way it does when memory is short."""
    return _says(exception, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")


def is_out_of_cpu_memory(exception: BaseException) -> bool:
    """Whether the host had no memory left."""
    return isinstance(exception, MemoryError) or _says(exception, "DefaultCPUAllocator: can't allocate memory")


def _says(exception: BaseException, text: str) -> bool:
    return isinstance(exception, RuntimeError) and text in str(exception)


def garbage_collection_cuda() -> None:
    """Free what nobody holds any more, on the CUDA devices too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
