"""What programs have in common rests in SRAM once."""

from hypothesis import given
from hypothesis import strategies as st

from chip.program import FETCH_BLOCK, WAITS, Instruction, Queues
from chip.text import ProgramText

QUEUE = st.lists(
    st.one_of(
        st.builds(lambda a: Instruction("mem.read", (a, 0)), st.integers(-3, 3)),
        st.builds(lambda t: Instruction("icu.nop", (t,)), st.integers(1, 3)),
    ),
    max_size=2 * FETCH_BLOCK + 5,
)
PROGRAM = st.dictionaries(st.sampled_from(("mem.r:0", "mem.r:1")), QUEUE)


@given(st.lists(PROGRAM, max_size=3))
def test_it_is_counted_as_if_blocks_were_compared_word_by_word(programs):
    text, seen = ProgramText(), set()
    for queues in programs:
        text.add(Queues.of({name: tuple(queue) for name, queue in queues.items()}))
        for queue in queues.values():
            seen |= {
                tuple(queue[at : at + FETCH_BLOCK]) for at in range(0, len(queue), FETCH_BLOCK)
            }
    assert text.instructions == sum(one.op not in WAITS for block in seen for one in block)
