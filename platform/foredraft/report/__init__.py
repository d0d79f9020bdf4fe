"""What a study says: rows, then plain information, then figures, then one page."""

from foredraft.report.study_report import pictures_of, write_report
from foredraft.report.summary import reading_of

__all__ = ["pictures_of", "reading_of", "write_report"]
