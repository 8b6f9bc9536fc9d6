"""Readers of official layouts, one data set per file."""
