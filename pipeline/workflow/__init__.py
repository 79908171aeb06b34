"""What a user asks for, one function each, that reads top to bottom and returns an Outcome."""
