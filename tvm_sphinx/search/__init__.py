"""Search: heuristics, exact segments, CPGA and CP-SAT behind one function, `search_schedule`."""

from .cpga import CpgaParams, NoRoomError, ParamsError, UnknownAlgorithmError
from .portfolio import ALGORITHMS, check_search, search_schedule
from .pruning import PruningReport
from .result import HistoryPoint, SearchResult
from .series import Segment, SeriesPlan, solve_series
from .stop import Stop, StopError

__all__ = [
    "ALGORITHMS",
    "CpgaParams",
    "HistoryPoint",
    "NoRoomError",
    "ParamsError",
    "PruningReport",
    "SearchResult",
    "Segment",
    "SeriesPlan",
    "Stop",
    "StopError",
    "UnknownAlgorithmError",
    "check_search",
    "search_schedule",
    "solve_series",
]
