"""The validation table: its families of rows."""

from collections.abc import Iterator, Sequence

from cluster.errors import BadValue
from cluster.validate.chips import chip_rows, network_rows, rack_rows
from cluster.validate.collectives import collective_rows
from cluster.validate.factors import cholesky_rows
from cluster.validate.hosts import layout_rows, product_rows
from cluster.validate.images import resnet_rows
from cluster.validate.models import decoder_rows, encoder_rows, matmul_rows
from cluster.validate.row import Family, Row
from cluster.validate.serving import (
    capacity_rows,
    llama_rows,
    mixtral_rows,
    service_rows,
    speculation_rows,
)

FAMILIES = (
    Family(("V01", "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V09"), chip_rows),
    Family(
        ("V13", "V14", "V16", "V17", "V18", "V19", "V20", "V21", "V23", "V25"),
        network_rows,
    ),
    Family(("V15", "V22"), collective_rows),
    Family(("V10",), resnet_rows),
    Family(("V26",), matmul_rows),
    Family(("V12", "V31", "V32"), encoder_rows),
    Family(("V28",), product_rows),
    Family(("V29",), layout_rows),
    Family(("V30",), cholesky_rows),
    Family(("V33",), llama_rows),
    Family(("V34",), mixtral_rows),
    Family(("V35",), decoder_rows),
    Family(("V36",), speculation_rows),
    Family(("V37",), capacity_rows),
    Family(("V39",), rack_rows),
    Family(("V41", "V43", "V44", "V45"), service_rows),
)


def known_ids() -> tuple[str, ...]:
    """Return the ids of the table, in order."""
    return tuple(sorted(i for family in FAMILIES for i in family.ids))


def rows(only: Sequence[str] = ()) -> Iterator[Row]:
    """Compute the rows of the ids in `only`, all without; raises BadValue for an unknown id."""
    unknown = sorted(set(only) - set(known_ids()))
    if unknown:
        raise BadValue("--only", unknown[0], f"must be some of {', '.join(known_ids())}")
    for family in FAMILIES:
        if only and not set(family.ids) & set(only):
            continue
        for row in family.rows():
            if not only or row.id in only:
                yield row
