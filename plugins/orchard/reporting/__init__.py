"""What the tables show: the state of each batch, the models, exports, the pages' view. Changes no table."""
