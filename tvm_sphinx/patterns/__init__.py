"""Recurring subgraphs of a task graph, and the smaller search space that they give."""

from .find import find_patterns, operator_labels
from .hierarchy import Part, Pattern, PatternHierarchy

__all__ = ["Part", "Pattern", "PatternHierarchy", "find_patterns", "operator_labels"]
