"""A model as pages of dataflow: ops over values with named dimensions."""
