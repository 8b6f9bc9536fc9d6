"""From run folders to tables, without torch."""
