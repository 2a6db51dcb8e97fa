"""Search: spaces, heuristics, CPGA and exact search over a scheduling problem."""

from .algorithms import (
    ALGORITHMS,
    UnknownAlgorithmError,
    check_algorithm,
    choose_algorithm,
    search_schedule,
)
from .cpga import CpgaParams, CpgaSearch, NoRoomError, ParamsError
from .result import HistoryPoint, SearchResult
from .series import SeriesPlan, solve_series
from .space import SearchSpace
from .stop import Stop

__all__ = [
    "ALGORITHMS",
    "CpgaParams",
    "CpgaSearch",
    "HistoryPoint",
    "NoRoomError",
    "ParamsError",
    "SearchResult",
    "SearchSpace",
    "SeriesPlan",
    "Stop",
    "UnknownAlgorithmError",
    "check_algorithm",
    "choose_algorithm",
    "search_schedule",
    "solve_series",
]
