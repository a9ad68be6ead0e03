"""Copies of VTAB-1k brought to this machine: from the hub, from archives, from folders."""
