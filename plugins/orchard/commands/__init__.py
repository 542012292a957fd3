"""The subcommands of `orchard`, one module each; `orchard.cli` finds them here and says what a module must have."""
