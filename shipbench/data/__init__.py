"""Images and labels of every task."""
