from __future__ import annotations

from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from distilbench.core.errors import UserError
from distilbench.data.embedded import docstrings
from distilbench.data.embedded.docstrings import EVAL_PACKAGES, TRAIN_PACKAGES, normalise, pairs, sentences
from distilbench.data.text import DISTRIBUTIONS

MODULE = r'''
"""Tools that measure the shape of a cloud.

The second paragraph is wrapped over
two lines, and it ends here.
"""

def measure(cloud, unit):
    """Measure the :class:`~sky.Cloud` in `metres` or ``feet``

    The **height** follows from the [handbook](https://example.org) of the station, see `the manual <a.html>`_ for it.
    This was proposed in [1]_. It was later found to be right, e.g. In rain [2]_.

    .. math:: x = y

    .. note::
        A note is kept as a sentence of its own.

    Heading of a part
    -----------------
    Where possible the value is :math:`\frac{a}{b}` of the total.

    Parameters
    ----------
    cloud : array of shape (n, 3)
        The points of the cloud, one in each row.
    unit : str

    Examples
    --------
    >>> measure(cloud)
    This is the output of the code and not a sentence.

    References
    ----------
    .. [1] A. Author, The title of a book about the clouds.

    ====  ====
    This  is a table of the values in metres.
    """
    PATTERN = "\d"

class Station:
    """Station that reports the weather of the day.

    Args:
        name (`str`, *optional*): The name that is printed on the map
            of the stations.
        %(template)s is the name of the parameter here.
        The {klass} is made from the values of the day.

    ```python
    This is code in a fence and not a sentence.
    ```
    """

    def copy(self):
        """Tools that measure the shape of a cloud!"""

add_newdoc("rain", """Report the rain that fell on the station.""")
'''

EXPECTED = [
    "Tools that measure the shape of a cloud.",
    "The second paragraph is wrapped over two lines, and it ends here.",
    "Measure the Cloud in metres or feet",
    "The height follows from the handbook of the station, see the manual for it.",
    "It was later found to be right, e.g. In rain.",
    "A note is kept as a sentence of its own.",
    "The points of the cloud, one in each row.",
    "Station that reports the weather of the day.",
    "The name that is printed on the map of the stations.",
    "Report the rain that fell on the station.",
]

BODY = "The first part of the body says what the function does, and the second part says why it is so."


def package(folder: Path, name: str, **modules: str) -> None:
    (folder / name).mkdir()
    for module, text in ({"__init__": ""} | modules).items():
        (folder / name / f"{module}.py").write_text(text, encoding="utf-8")


def documented(name: str, *paragraphs: str) -> str:
    text = "\n\n    ".join(paragraphs)
    return f'def {name}():\n    """{text}\n    """\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_sentences_are_free_of_markup_code_and_duplicates(folder: Path) -> None:
    package(folder, "weather_markup", clouds=MODULE)
    assert sentences(["weather_markup"]) == EXPECTED


def test_unreadable_files_tests_and_absent_packages_are_passed_over(folder: Path) -> None:
    package(folder, "weather_bad", good='"""This is the only sentence of the package."""', broken='"""Not python.""" (')
    (folder / "weather_bad" / "latin.py").write_bytes(b'"""The caf\xe9 is the place for the talk."""')
    package(folder / "weather_bad", "tests", unit='"""This is the sentence of a test."""')
    assert sentences(["weather_bad", "weather_absent"]) == ["This is the only sentence of the package."]


def test_pairs_join_the_prose_after_the_summary(folder: Path) -> None:
    package(folder, "weather_pairs", rain=documented("fall", "Say how much rain fell.", BODY, "It ends here for good."))
    (pair,) = pairs(["weather_pairs"])
    assert (pair.package, pair.name) == ("weather_pairs", "rain.fall")
    assert pair.summary == "Say how much rain fell."
    assert pair.body == f"{BODY} It ends here for good."


def test_pairs_are_unique_and_do_not_repeat_the_summary(folder: Path) -> None:
    texts = [
        documented("first", "Say how much rain fell.", BODY),
        documented("alias", "Say how much rain fell.", BODY),
        documented("same_summary", "Say how much rain fell!", BODY.replace("first", "third")),
        documented("same_body", "Say how much snow fell.", BODY.upper()),
        documented("echo", "Say how much hail fell.", f"Say how much hail fell. {BODY.replace('first', 'fourth')}"),
        documented("short", "Say how much dew fell.", "This is too short a body."),
    ]
    package(folder, "weather_unique", rain="\n".join(texts))
    assert [pair.name for pair in pairs(["weather_unique"])] == ["rain.first"]


def test_a_body_is_cut_at_the_end_of_a_sentence_and_has_no_boilerplate(folder: Path) -> None:
    own = [f"The {chr(97 + i)} of this part is the reason for the value that is seen in the report." for i in range(12)]
    boilerplate = "Read the guide of the station for more of the same."
    common = [documented(f"f{i}", f"Say how much rain fell on day {i}.", boilerplate) for i in range(4)]
    package(
        folder, "weather_long", a=documented("long", "Say how much rain fell.", boilerplate, *own), b="\n".join(common)
    )
    (pair,) = pairs(["weather_long"])
    assert pair.body == " ".join(own[:7])
    assert len(pair.body.split()) <= 120


def test_the_training_text_has_no_evaluation_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(folder, "weather_eval", a=documented("fall", "Say how much rain fell.", BODY, "It ends here for good."))
    leaked = documented(
        "leak", "SAY how much rain: fell.", BODY, "It ends here, for good!", "This is a sentence of its own."
    )
    package(folder, "weather_train", a=leaked)
    monkeypatch.setattr(docstrings, "EVAL_PACKAGES", ("weather_eval",))
    monkeypatch.setattr(docstrings, "TRAIN_PACKAGES", ("weather_train",))
    assert len(sentences(["weather_train"])) == 4
    assert docstrings.training_sentences() == ["This is a sentence of its own."]


def test_the_retrieval_set_is_drawn_by_id_and_not_by_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [documented(f"f{i}", f"Say how much rain fell on day {i}.", f"On day {i} it {BODY}") for i in range(20)]
    package(folder, "weather_set", a="\n".join(texts))
    monkeypatch.setattr(docstrings, "EVAL_PACKAGES", ("weather_set",))
    queries, documents, relevance = docstrings.retrieval_set(max_queries=5, max_documents=10)
    assert len(queries) == 5
    assert len(documents) == 10
    assert relevance == {name: {name: 1} for name in queries}
    assert set(queries) < set(documents)
    assert list(documents) != sorted(documents)
    assert docstrings.retrieval_set(max_queries=5, max_documents=20)[0] == queries


def test_a_missing_evaluation_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstrings, "EVAL_PACKAGES", ("weather_absent",))
    with pytest.raises(UserError, match=r"'weather_absent'.* is not installed; install it"):
        pairs(["weather_absent"])


def test_training_and_evaluation_packages_are_disjoint() -> None:
    assert not set(TRAIN_PACKAGES) & set(EVAL_PACKAGES)


def test_normalise_keeps_letters_and_digits_only() -> None:
    assert normalise("The `x_1`, É  (2)!") == "thex1é2"


def test_a_real_package_gives_the_same_sentences_twice() -> None:
    found = sentences(["joblib"])
    assert found == sentences(["joblib"])
    assert len(found) == len(set(map(normalise, found))) > 200


def test_scipy_gives_many_pairs_whose_query_is_not_the_document() -> None:
    found = pairs(["scipy"])
    assert 600 < len(found) < 4000
    assert all(4 <= len(pair.summary.split()) <= 30 and 12 <= len(pair.body.split()) <= 120 for pair in found)
    assert not any(normalise(pair.body).startswith(normalise(pair.summary)) for pair in found)
    assert len({normalise(pair.body) for pair in found}) == len({pair.name for pair in found}) == len(found)


def test_packages_are_known_by_what_installs_them() -> None:
    owners = packages_distributions()
    for name in (*TRAIN_PACKAGES, *EVAL_PACKAGES):
        assert version(DISTRIBUTIONS.get(name, name)) == version(owners[name][0]), name
