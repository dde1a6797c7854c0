import inspect
import pickle

import pytest

from topology import errors

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.TopologyError) and cls is not errors.TopologyError
]


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_the_wire_and_print_one_line(cls):
    arity = len(inspect.signature(cls).parameters)
    error = cls(*range(3, 3 + arity))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls and copy.args == error.args and vars(copy) == vars(error)
    assert "\n" not in str(error) and len(str(error)) > 10
