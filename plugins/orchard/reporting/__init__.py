"""What the tables tell a person: the state of each batch, the models, exports. Reads only."""
