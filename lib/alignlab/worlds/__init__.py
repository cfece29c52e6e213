"""What is true, and every text about it. Strings and datasets; no ids, no torch."""
