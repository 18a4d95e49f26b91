"""What a definition rests on, in a made-up package."""

import pytest

from rpo_pipeline.storage.source_code import SourceCode

SHOP = {
    "__init__.py": "from shop.prices import price\n",
    "prices.py": '''
"""Prices."""
import math
from decimal import Decimal

import numpy as np
from shop import taxes

RATE = 3
NOTE = "of no use"
SQUARES = [x * x for x in (1, 2)]

def price(x):
    """What it costs."""
    return np.sqrt(_round(x * RATE)) + taxes.tax(x)  # a comment

def _round(x):
    return math.floor(x)

def unused(x):
    return Decimal(x)
''',
    "taxes.py": """
import scipy
table = {}
table["food"] = 1

def tax(x):
    return table[x]

def other(x):
    return scipy.other(x)
""",
    "orders.py": """
from shop import price
from . import taxes as t

class Order:
    def total(self):
        return self._sum()

    def _sum(self):
        from shop.taxes import other
        return other(1)

    def print(self):
        return price(2)

def page():
    return "bill.html.j2"

def start():
    return "shop.worker"

def whole():
    return t
""",
    "worker.py": "if __name__ == '__main__':\n    print('works')\n",
    "bill.html.j2": '{% include "logo.j2" %}',
    "logo.j2": "logo",
    "unused.j2": "nobody",
}


@pytest.fixture
def reach(tmp_path):
    for name, text in SHOP.items():
        (tmp_path / name).write_text(text)

    def reach(module, name, **changed):
        for file, (old, new) in changed.items():
            path = tmp_path / f"{file}.py"
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        return SourceCode({"shop": tmp_path}).reach([(f"shop.{module}", name)])

    return reach


def names(found):
    return {f"{module}:{name}" for module, name in found.definitions if name}


def test_a_definition_rests_on_what_its_text_names_directly_or_not(reach):
    found = reach("prices", "price")
    assert names(found) == {
        "shop.prices:price",
        "shop.prices:RATE",
        "shop.prices:_round",
        "shop.taxes:tax",
        "shop.taxes:table",
    }
    assert found.libraries == {"numpy"}


def test_a_package_that_reexports_is_looked_through(reach):
    assert "shop.prices:_round" in names(reach("orders", "Order"))


def test_a_method_rests_on_its_own_names_and_the_methods_that_it_calls(reach):
    found = reach("orders", "Order.total")
    methods = {"shop.orders:Order.total", "shop.orders:Order._sum"}
    assert names(found) == methods | {"shop.taxes:other", "shop.taxes:table"}
    assert found.libraries == {"scipy"}


def test_a_module_that_is_handed_on_counts_as_a_whole(reach):
    assert {"shop.taxes:tax", "shop.taxes:other"} <= names(reach("orders", "whole"))


def test_a_template_is_reached_by_who_names_it_and_brings_those_that_it_includes(reach):
    templates = {path.rpartition("/")[2] for path in reach("orders", "page").templates}
    assert templates == {"bill.html.j2", "logo.j2"}
    assert not reach("prices", "price").templates


def test_a_module_that_is_started_by_its_name_is_reached(reach):
    assert "shop.worker" in reach("orders", "start").modules


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prices", "  # a comment", ""),
        ("prices", "What it costs.", "How much it costs."),
        ("prices", '"""Prices."""', '"""Prices of things."""'),
        ("prices", "np.sqrt(_round(x * RATE))", "np.sqrt(\n        _round(x * RATE)\n    )"),
        ("prices", "of no use", "changed"),
        ("prices", "return Decimal(x)", "return -Decimal(x)"),
        ("taxes", "scipy.other", "scipy.another"),
    ],
)
def test_comments_docstrings_layout_and_what_is_not_reached_change_nothing(reach, file, old, new):
    before = reach("prices", "price").definitions
    assert reach("prices", "price", **{file: (old, new)}).definitions == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prices", "RATE = 3", "RATE = 4"),
        ("prices", "math.floor", "math.ceil"),
        ("prices", "import math", "import cmath as math"),
        ("taxes", 'table["food"] = 1', 'table["food"] = 2'),
        ("taxes", "return table[x]", "return -table[x]"),
    ],
)
def test_what_is_reached_changes_it(reach, file, old, new):
    before = reach("prices", "price").definitions
    assert reach("prices", "price", **{file: (old, new)}).definitions != before
