"""The page a run is judged on: figures, a picture, tables, and the same in machine-readable form."""

from .page import write_report
from .summary import write_summary
from .thermo import read_thermo
from .verdicts import Verdict, verdicts

__all__ = ["Verdict", "read_thermo", "verdicts", "write_report", "write_summary"]
