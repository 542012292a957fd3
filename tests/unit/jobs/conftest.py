"""Generated examples have no deadline each: a machine with other work to do would fail them."""

from hypothesis import settings

settings.register_profile("orchard", deadline=None)
settings.load_profile("orchard")
