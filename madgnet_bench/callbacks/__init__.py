"""What watches a training: history, case tables, galleries."""
