"""The validation table: its families of rows, and what nothing computes yet."""

from collections.abc import Iterator, Sequence

from cluster.errors import BadValue
from cluster.validate.chips import chip_rows, network_rows, rack_rows
from cluster.validate.images import resnet_rows
from cluster.validate.models import decoder_rows, encoder_rows, matmul_rows
from cluster.validate.row import Family, Row, skipped

FAMILIES = (
    Family(("V01", "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V09"), chip_rows),
    Family(
        ("V13", "V14", "V15", "V16", "V17", "V18", "V19", "V20", "V21", "V23", "V25"),
        network_rows,
    ),
    Family(("V10",), resnet_rows),
    Family(("V26",), matmul_rows),
    Family(("V12", "V31", "V32"), encoder_rows),
    Family(("V35",), decoder_rows),
    Family(("V39",), rack_rows),
)
ISCA22 = "Abts et al., ISCA 2022"
SKIPPED = (
    skipped("V28", "large products on 100 chips, FLOP/s", 10.5e15, ISCA22,
            "no schedule yet that streams operands from hosts while chips multiply"),
    skipped("V29", "column- over row-major weight stream", 154, ISCA22,
            "the host link is modelled by its rate, not by addresses in host memory"),
    skipped("V30", "Cholesky on 8 chips, speed-up", 1.5, ISCA22, "no factorisation kernels yet"),
    skipped("V33", "Llama-2-70B, tokens/s per user", 300, "vendor, via TechPowerUp, Feb 2024",
            "lpu plan takes fp16 weights only, in which 576 chips do not hold the model"),
    skipped("V34", "Mixtral 8x7B, tokens/s per user", 480, "vendor, via TechPowerUp, Feb 2024",
            "no kernels for a mixture of experts yet"),
    skipped("V36", "gain of speculative decoding", 6.3, "vendor blog, Nov 2024",
            "no speculative decoding yet"),
    skipped("V37", "gpt-oss-120B on 576 chips, SRAM left, B", 69.7e9, "SHIP, MLSys 2026",
            "needs the fp8 and fp4 sizes of its weights"),
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
