"""The landing zone: its keys, its listings, S3's messages about uploads, and which run lists a batch."""
