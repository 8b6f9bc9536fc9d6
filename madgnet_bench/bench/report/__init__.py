"""The report: one page that opens from disk, with its figures, tables and pictures beside it. No torch."""

from madgnet_bench.bench.report.page import write_report

__all__ = ["write_report"]
