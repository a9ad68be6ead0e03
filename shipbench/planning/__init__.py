"""Planning: the runs that a command asks for, and which of them are still to do."""
