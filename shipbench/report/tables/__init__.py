"""Tables and fact boxes of a report: each is a function of a suite view or of the whole study."""
