"""The extension module, found once. Without it the package can still be imported and says what is missing when used."""

from __future__ import annotations

from typing import Any

__all__ = ["missing", "omega_bt"]

#: Why the extension could not be imported, if it could not.
missing: ImportError | None = None


class _Missing:
    """Stands for the extension and tells why it is not there."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"the extension omega_bt cannot be imported: {missing}") from missing


try:
    import omega_bt
except ImportError as _error:
    missing = _error
    omega_bt = _Missing()  # type: ignore[assignment]
