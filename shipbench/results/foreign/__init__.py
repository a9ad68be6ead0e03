"""Results of other harnesses: one reader per format, and the records that they become."""
