"""The baselines every prompt-tuning paper compares with, registered as anyone's own method would be."""
