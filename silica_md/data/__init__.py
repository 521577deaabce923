"""Measured figures, cited; see README.md in this folder."""
