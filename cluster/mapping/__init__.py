"""From a model and a graph to who computes what: partition, placement, the choice of both."""
