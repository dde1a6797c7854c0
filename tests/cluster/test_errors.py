import pickle

import pytest

from cluster import errors

EXAMPLES = {
    errors.ClusterError: ("nothing to do",),
    errors.ModelError: ("a.gguf", "is damaged", "fetch it again"),
    errors.FetchError: ("smollm2", "no network", "try later"),
    errors.PromptTooLong: (300, 40, 320),
    errors.DoesNotFit: (3, 231 * 2**20, 220 * 2**20, "use --tp 8 or more chips"),
    errors.UnknownName: ("topology", "tourus", ("ring", "torus")),
    errors.BadValue: ("--tp", 4, "must divide the 9 heads"),
    errors.ClockMiss: ("rows1.logits1@320", (0, 1), (9000, 12, 24), (500.0, 2.8), (50.0, 2.8)),
    errors.MachineError: ("ray", "lost a worker", "start it again"),
    errors.WorkerLost: ("ray", "2 of 4 actors died", "look into the logs"),
    errors.CheckpointError: ("folder", "is damaged"),
}


def every_class(base=errors.ClusterError):
    return {base}.union(*(every_class(child) for child in base.__subclasses__()))


def test_every_error_has_an_example_here():
    ours = {c for c in every_class() if c.__module__ == errors.__name__}
    assert ours == set(EXAMPLES)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_errors_survive_pickling_with_their_fields(kind):
    error = kind(*EXAMPLES[kind])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_errors_are_one_line(kind):
    assert "\n" not in str(kind(*EXAMPLES[kind]))


def test_text_of_others_is_folded_into_one_line():
    assert str(errors.ModelError("a", "first\n  second")) == "a: first second"


def test_does_not_fit_says_where_how_much_and_what_to_do():
    assert str(errors.DoesNotFit(*EXAMPLES[errors.DoesNotFit])) == (
        "stage 3 needs 231.0 MiB of SRAM, a chip has 220.0 MiB; use --tp 8 or more chips"
    )


def test_unknown_name_suggests_the_nearest_or_lists_all():
    assert "did you mean 'torus'?" in str(errors.UnknownName("topology", "Tourus", ["torus"]))
    assert "known: ring, torus" in str(errors.UnknownName("topology", "xyz", ["ring", "torus"]))
