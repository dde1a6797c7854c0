"""The commands of `lpu`, a file per group; `cluster.cli` collects them."""
