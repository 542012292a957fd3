"""What keeps a warehouse small: cleaning, and the retirement of a backbone."""
