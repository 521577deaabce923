"""Training sets: configurations along melt–quenches of a teacher potential, chosen for diversity and labelled."""

from .make import make
from .plan import Plan
from .select import farthest_points, stratified

__all__ = ["Plan", "farthest_points", "make", "stratified"]
