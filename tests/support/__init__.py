"""What tests share: fakes, stand-ins, flows and stores. No test stands here."""
