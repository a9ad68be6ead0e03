"""FGVC: five fine-grained data sets in the splits of VPT."""
