from __future__ import annotations

import pytest
import torch

from fulgurite.utilities.memory import garbage_collection_cuda, is_oom_error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_no_memory(error: BaseException, expected: bool) -> None:
    assert is_oom_error(error) is expected


def test_memory_can_be_freed_on_any_machine() -> None:
    garbage_collection_cuda()
