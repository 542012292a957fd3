"""One reader a format: the bytes of a file to a picture, or a `Fault`. The allow-list is in `signatures`."""
