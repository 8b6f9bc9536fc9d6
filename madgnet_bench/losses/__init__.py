"""Losses: named, already weighted terms of a network's output and a batch."""
