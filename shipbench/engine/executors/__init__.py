"""Where the runs of a plan execute: in this process, in worker processes, on a cluster."""
