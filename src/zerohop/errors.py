"""Errors that reach a person: each says what went wrong and names the fix."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNSUPPORTED: Final = 77


class ZerohopError(Exception):
    """A failure with a message for people, an optional hint that names the fix, and an exit status."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UnsupportedError(ZerohopError):
    """This machine cannot do what was asked (exit status 77)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=EXIT_UNSUPPORTED)
