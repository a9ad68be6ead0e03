"""Tables and figures in their formats; every text is escaped for the format it goes into."""
