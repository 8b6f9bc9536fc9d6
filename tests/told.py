"""What a long piece of work said and how far its bars went."""

from contextlib import contextmanager

from madgnet_bench.catalog.prepare import Progress


class Told(Progress):
    """Keeps every line, and of every bar its label, total, start and how far it went."""

    def __init__(self):
        self.lines, self.bars = [], []

    def say(self, text):
        self.lines.append(text)

    @contextmanager
    def bar(self, label, total, *, unit, start=0):
        counts = []
        yield counts.append
        self.bars.append((label, total, start, sum(counts)))
