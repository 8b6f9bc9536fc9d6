"""Measures: per-case functions first, then torchmetrics state on top."""
