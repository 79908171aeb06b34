"""Versions of what maps are made with: another one may pick another engine and round differently."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "onnxruntime", "openvino")


def engine_versions() -> list[str]:
    """Versions of the packages of all engines, "" for one that is not installed."""
    return [_version(name) for name in _PACKAGES]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
