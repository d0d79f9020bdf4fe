"""What a study says: rows, then plain information, then figures, then one page."""

from foredraft.report.study_report import write_report

__all__ = ["write_report"]
