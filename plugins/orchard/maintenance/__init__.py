"""What keeps a warehouse small and whole: cleaning, the retirement of a backbone, verification and repair."""
