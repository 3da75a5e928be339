"""The report of an audit: one HTML file, and JSON."""

from __future__ import annotations

from .write import HTML, JSON, add_privacy, write_audit

__all__ = ["HTML", "JSON", "add_privacy", "write_audit"]
