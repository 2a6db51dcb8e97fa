"""Recurring subgraphs of a task graph: found, described and drawn."""

from .describe import describe_patterns
from .dot import patterns_dot
from .find import find_patterns, operator_labels
from .hierarchy import Part, Pattern, PatternHierarchy
from .svg import patterns_html, patterns_svg

__all__ = [
    "Part",
    "Pattern",
    "PatternHierarchy",
    "describe_patterns",
    "find_patterns",
    "operator_labels",
    "patterns_dot",
    "patterns_html",
    "patterns_svg",
]
