"""Measures the project's ops and its MD step against the machine and against rivals."""
