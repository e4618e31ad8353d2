"""The pure part: conditions, the book, prices, the decision."""
