"""What a setting out of a file may be: JSON knows NaN and numbers beyond a float's, and Python takes true for 1."""

from __future__ import annotations

import sys


def whole(value: object, least: int) -> bool:
    """Whether a setting is an integer, of at least so much."""
    return type(value) is int and value >= least


def finite(value: object) -> bool:
    """Whether a setting is a number that a float64 can hold."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= sys.float_info.max
