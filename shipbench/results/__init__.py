"""The results folder: records, histories, predictions, claims."""
