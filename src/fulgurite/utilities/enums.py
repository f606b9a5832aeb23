"""Settings with few values."""

from __future__ import annotations

from enum import Enum


class GradClipAlgorithmType(str, Enum):
    """How gradients are clipped."""

    VALUE = "value"
    NORM = "norm"

    @staticmethod
    def supported_type(val: str) -> bool:
        """Whether `val` names one of these."""
        return val in [member.value for member in GradClipAlgorithmType]

    @staticmethod
    def supported_types() -> list[str]:
        """Their names."""
        return [member.value for member in GradClipAlgorithmType]
