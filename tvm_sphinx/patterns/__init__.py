"""Recurring subgraphs of a task graph, and the smaller search space that they give."""

from .describe import describe_patterns, draw_patterns
from .draw import patterns_html, patterns_svg
from .find import find_patterns, operator_labels
from .fold import Folding, fold_problem
from .guided import Pruning, prune_problem, search_with_pruning
from .hierarchy import Part, Pattern, PatternHierarchy
from .prune import PruningReport, log10_size, prune_search_space, report_pruning, report_structure
from .ties import tie_occurrences
from .units import bounded_units, serial_units

__all__ = [
    "Folding",
    "Part",
    "Pattern",
    "PatternHierarchy",
    "Pruning",
    "PruningReport",
    "bounded_units",
    "describe_patterns",
    "draw_patterns",
    "find_patterns",
    "fold_problem",
    "log10_size",
    "operator_labels",
    "patterns_html",
    "patterns_svg",
    "prune_problem",
    "prune_search_space",
    "report_pruning",
    "report_structure",
    "search_with_pruning",
    "serial_units",
    "tie_occurrences",
]
