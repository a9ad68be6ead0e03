"""What a trained model looks at: its attention, its features, and the tokens that guide its prompts."""
