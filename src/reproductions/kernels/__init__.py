"""Numerical operations that several cells need: torch in, torch out, no knowledge of papers."""
