"""The baselines that prompt-tuning papers compare with, registered like a method of any other package."""
