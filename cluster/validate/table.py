"""The validation table: its families of rows, and what nothing computes yet."""

from collections.abc import Iterator, Sequence

from cluster.errors import BadValue
from cluster.validate.chips import chip_rows, network_rows, rack_rows
from cluster.validate.factors import cholesky_rows
from cluster.validate.hosts import layout_rows, product_rows
from cluster.validate.images import resnet_rows
from cluster.validate.models import decoder_rows, encoder_rows, matmul_rows
from cluster.validate.row import Family, Row, skipped
from cluster.validate.serving import capacity_rows, llama_rows, mixtral_rows, service_rows

FAMILIES = (
    Family(("V01", "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V09"), chip_rows),
    Family(
        ("V13", "V14", "V15", "V16", "V17", "V18", "V19", "V20", "V21", "V23", "V25"),
        network_rows,
    ),
    Family(("V10",), resnet_rows),
    Family(("V26",), matmul_rows),
    Family(("V12", "V31", "V32"), encoder_rows),
    Family(("V28",), product_rows),
    Family(("V29",), layout_rows),
    Family(("V30",), cholesky_rows),
    Family(("V33",), llama_rows),
    Family(("V34",), mixtral_rows),
    Family(("V35",), decoder_rows),
    Family(("V37",), capacity_rows),
    Family(("V39",), rack_rows),
    Family(("V41", "V43", "V44", "V45"), service_rows),
)
SKIPPED = (
    skipped("V36", "gain of speculative decoding", 6.3, "vendor blog, Nov 2024",
            "no launch drafts and verifies; which share of a draft is accepted follows from "
            "weights of 70B and 1B models, which nobody can run here"),
)  # fmt: skip


def known_ids() -> tuple[str, ...]:
    """Return the ids of the table, in order."""
    return tuple(sorted({i for f in FAMILIES for i in f.ids} | {row.id for row in SKIPPED}))


def rows(only: Sequence[str] = ()) -> Iterator[Row]:
    """Compute the rows of the ids in `only`, all without; raises BadValue for an unknown id."""
    unknown = sorted(set(only) - set(known_ids()))
    if unknown:
        raise BadValue("--only", unknown[0], f"must be some of {', '.join(known_ids())}")
    done = set()
    for family in FAMILIES:
        if only and not set(family.ids) & set(only):
            continue
        for row in family.rows():
            if not only or row.id in only:
                done.add(row.id)
                yield row
    for row in SKIPPED:
        if row.id not in done and (not only or row.id in only):
            yield row
