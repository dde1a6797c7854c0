"""One vector of length 1 for a sequence: the mean of the tokens that count."""

from chip.kernels.attention import transpose as transpose_values
from chip.kernels.attention import write_columns
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import MemoryMap
from chip.kernels.norm import mean_square_scales as rms_scale
from chip.kernels.shape import Blocks
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Loops, Rows, Schedule, run
from chip.spec import WEST

TINY = 1e-24  # keeps the length of a zero vector finite


def pool(plan: Schedule, memory: MemoryMap, hidden: Blocks, tokens: int) -> None:
    """embedding[block] = mean of x0[block, token] where poolmask is 1, divided by its length.

    The sum over tokens is a product with poolmask [lanes are tokens], whose columns are x
    transposed; poolscale is 1 / tokens that count.
    """
    identity = memory["identity"].region
    rows = Region(identity.index, identity.address, hidden.width, "f16")
    for block in range(hidden.count):
        chain = Chain(plan.spec, "pool: tokens as columns")
        value = chain.vxm("to_f16", Rows(memory["x0"], block * tokens), loops=run(tokens))
        write_columns(chain, value, memory[f"X{block}"])
        plan.place(chain)
        out = memory[f"XT{block}"]
        transpose_values(plan, 0, memory[f"X{block}"], 0, Buffer("identity", rows), out)
        chain = Chain(plan.spec, "pool: sum")
        words = hidden.width // COLUMN_PAIRS
        part = Pass(out, 0, 1, words, Rows(memory["poolmask"]), 1)
        (flow,) = matmul(chain, WEST, [part])
        mean = chain.vxm("mul", flow, Rows(memory["poolscale"]))
        chain.write(mean, Rows(memory["pooled"], block))
        plan.place(chain)
    rms_scale(plan, 0, memory["pooled"], hidden.count, 1, TINY, memory["length"])
    loops: Loops = ((1, 1), (hidden.count, 1))
    chain = Chain(plan.spec, "pool: length 1")
    length = Rows(memory["length"], 0, (0, 0))
    value = chain.vxm("mul", Rows(memory["pooled"]), length, loops=loops)
    chain.write(value, Rows(memory["embedding"]))
    plan.place(chain)
