"""Tables as text for a terminal, Markdown, LaTeX, tidy CSV and JSON."""

from madgnet_bench.bench.render.csv import to_csv
from madgnet_bench.bench.render.json import to_json
from madgnet_bench.bench.render.latex import to_latex
from madgnet_bench.bench.render.markdown import to_markdown
from madgnet_bench.bench.render.text import to_text

__all__ = ["to_csv", "to_json", "to_latex", "to_markdown", "to_text"]
