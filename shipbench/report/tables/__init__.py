"""Tables of a report: each a pure function of a study."""
