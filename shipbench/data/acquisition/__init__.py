"""How a copy of VTAB-1k comes to this machine: from the hub, from archives, from folders."""
