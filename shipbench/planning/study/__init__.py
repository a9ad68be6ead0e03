"""Studies: a whole paper in one file, from its runs to its reports, planned as one grid."""
