"""Tables and figures in each format; every text is escaped for its format."""
