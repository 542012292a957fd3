"""What the tables show: the state of each batch, the models, exports. Reads only."""
