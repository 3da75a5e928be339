"""Attacks on what an edge sends, and a report of what they recover. See docs/audit.md."""
