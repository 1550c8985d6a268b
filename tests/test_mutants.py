"""The faults of mutants.py can be put into the project as it is now."""
import os

import pytest

import mutants
from conftest import ROOT


@pytest.mark.parametrize('fault', mutants.FAULTS, ids=lambda fault: fault[0])
def test_the_text_of_each_fault_is_there_once(fault):
    _, file, text, replacement, tests, _ = fault
    with open(os.path.join(ROOT, file), encoding='utf-8') as source:
        assert source.read().count(text) == 1 and text != replacement
    assert os.path.exists(os.path.join(ROOT, 'tests', 'test_{}.py'.format(tests)))
