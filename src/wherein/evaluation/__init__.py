"""Measuring methods on labelled images: protocols ask, metrics judge, reports and galleries show."""

from wherein.evaluation.calibration_plot import save_reliability
from wherein.evaluation.gallery import save_gallery
from wherein.evaluation.protocols import PROTOCOLS, askable, protocol_for, published, run, select
from wherein.evaluation.records import Journal, Outcome, Record
from wherein.evaluation.report import summarise, to_markdown, to_table, write_json

__all__ = [
    "PROTOCOLS",
    "Journal",
    "Outcome",
    "Record",
    "askable",
    "protocol_for",
    "published",
    "run",
    "save_gallery",
    "save_reliability",
    "select",
    "summarise",
    "to_markdown",
    "to_table",
    "write_json",
]
