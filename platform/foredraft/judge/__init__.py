"""What a draft is worth to its target: accuracy, acceptance, seconds."""
